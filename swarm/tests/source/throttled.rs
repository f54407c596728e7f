//! Limits on bandwidth: what is taken from an upstream, and what is fetched for nobody yet.

use std::pin::pin;

use futures_util::StreamExt as _;
use protocol::{ContentKind, Digest, Origin, TaskId};
use swarm::{
    OpenRequest, ReadProof, Swarm, Wanted, WarmOrder, bandwidth::Bucket, task::Shelf as _,
};
use tokio::time::timeout;

use super::{
    REGISTRY, REPOSITORY, fetch_blob,
    registry::{Registry, Reply},
    upstreams,
};
use crate::{
    host,
    peer::{PATIENCE, Stored, counted, eventually, throttled::throttle},
};

const SIZE: usize = 4 << 20;

fn body() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 251 + at % 253) as u8).collect()
}

async fn healthy_registry() -> Registry {
    let body = body();
    Registry::start(move |asked| Reply::serve(asked, &body)).await
}

#[tokio::test]
async fn what_is_taken_from_an_upstream_waits_and_comes_whole() {
    let registry = healthy_registry().await;
    let (limit, counts) = throttle(64 << 20, Bucket::Source);
    let limited = upstreams(registry.address, &[]).throttled(limit);
    let fetched = fetch_blob(&limited, None).await.unwrap();
    assert!(fetched.bytes == body());
    assert!(0 < counted(&counts, "throttled_bytes_total", "source"));
}

/// An order to warm at a rate at which it never ends by itself; `comes` is whoever wants it.
async fn warm_until(comes: impl AsyncFn(&Swarm, TaskId, Origin)) {
    let registry = healthy_registry().await;
    let (prefetch, _) = throttle(1, Bucket::Prefetch);
    let stored = Stored::new(1);
    let swarm = host::swarm(
        &stored.store,
        upstreams(registry.address, &[]),
        Vec::new(),
        prefetch.clone(),
    );
    let task = TaskId(Digest::sha256_of(&body()));
    let origin = Origin {
        registry: REGISTRY.parse().expect("a registry name"),
        repository: REPOSITORY.parse().expect("a repository name"),
        kind: ContentKind::Blob,
    };
    let order = WarmOrder {
        task,
        origin: origin.clone(),
        wants: Vec::new(),
        by: "scheduler".parse().expect("a host id"),
    };
    let mut warming = pin!(swarm.warm(order));
    tokio::select! {
        ended = &mut warming => panic!("it does not keep to the limit: {ended:?}"),
        () = eventually(|| prefetch.is_short()) => {}
    }
    let both = async { tokio::join!(comes(&swarm, task, origin), warming).1 };
    let warmed = timeout(PATIENCE, both).await;
    let warmed = warmed.expect("the limit is lifted");
    warmed.expect("the registry is healthy");
}

#[tokio::test]
async fn an_order_keeps_to_the_rate_of_prefetch_until_somebody_reads() {
    let reads = async |swarm: &Swarm, task: TaskId, origin: Origin| {
        let request = OpenRequest {
            task,
            origin,
            wanted: Wanted::Whole,
            credential: None,
            proof: ReadProof::Unchecked,
        };
        let mut reader = swarm.open(request).await.unwrap().reader;
        let mut read = Vec::new();
        while let Some(chunk) = reader.next().await {
            read.extend_from_slice(&chunk.unwrap());
        }
        assert!(read == body());
    };
    Box::pin(warm_until(reads)).await;
}

#[tokio::test]
async fn an_order_keeps_to_the_rate_of_prefetch_until_another_host_asks() {
    warm_until(async |swarm, task, _| {
        assert!(swarm.follow(task).await.is_some());
    })
    .await;
}
