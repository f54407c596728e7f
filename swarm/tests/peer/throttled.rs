//! Limits on bandwidth: what a host gives in virtual time, what it takes over real connections.

use std::{num::NonZeroU64, time::Duration};

use prometheus::Registry;
use swarm::{
    bandwidth::{BandwidthMetrics, Bucket, Rate, Throttle},
    peer::{PeerServerConfig, PieceClient, PieceClientConfig},
};
use tokio::{io::AsyncReadExt as _, time::Instant};

use super::{
    ATTEMPT, Parent, Stored, TestShelf, authority, counted, eventually, fetch, identity, metrics,
    requests::{connect_as, server},
};

const MIB: u64 = 1 << 20;

pub(crate) fn throttle(bytes_per_second: u64, name: Bucket) -> (Throttle, Registry) {
    let registry = Registry::new();
    let metrics = BandwidthMetrics::register(&registry).expect("a fresh registry");
    let rate = NonZeroU64::new(bytes_per_second).expect("a limit");
    (
        Throttle::new(Rate::BytesPerSecond(rate), name, &metrics),
        registry,
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the virtual clock is what is tested"
)]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn children_of_a_limited_host_share_its_rate() {
    let stored = Stored::new(MIB as usize);
    let shelf = TestShelf::default();
    shelf.put(stored.task, stored.progress.clone());
    let (throttle, registry) = throttle(MIB, Bucket::Serve);
    let config = PeerServerConfig {
        throttle,
        ..PeerServerConfig::default()
    };
    let (server, _) = server(shelf, config);
    let path = format!("/tasks/{}/{ATTEMPT}/pieces/0-3", stored.task);
    let began = now();
    let take = async |id: &str| {
        let mut connection = connect_as(id, &server);
        assert_eq!(connection.ask(&path).await, "200", "{id}");
        let mut answer = vec![0; MIB as usize];
        connection.child.read_exact(&mut answer).await.unwrap();
        now() - began
    };
    let (first, second) = tokio::join!(take("a"), take("b"));
    // 2 MiB at 1 MiB/s, of which the first quarter and the last part of the heads need not wait. One
    // after the other, the first would have its own in half of the time.
    let (earlier, later) = (first.min(second), first.max(second));
    assert!(Duration::from_millis(1600) < later, "{later:?}");
    assert!(Duration::from_millis(1000) < earlier, "{earlier:?}");
    assert!(counted(&registry, "throttled_bytes_total", "serve") > MIB);
}

#[tokio::test]
async fn what_a_limited_host_takes_waits_and_comes_whole() {
    let authority = authority();
    let parent = Parent::start(&authority, PeerServerConfig::default()).await;
    let stored = Stored::new(MIB as usize);
    parent.shelf.put(stored.task, stored.progress.clone());
    let (throttle, registry) = throttle(2 * MIB, Bucket::Fetch);
    let config = PieceClientConfig {
        throttle,
        ..PieceClientConfig::default()
    };
    let client = PieceClient::new(&identity(&authority, "child"), config, metrics().0).unwrap();
    let (body, ()) = tokio::join!(
        fetch(&client, &parent.host, stored.run(0..4)),
        eventually(|| client.is_throttled()),
    );
    assert!(body.unwrap() == stored.body);
    assert!(0 < counted(&registry, "throttled_bytes_total", "fetch"));
    assert!(!client.is_throttled());
}
