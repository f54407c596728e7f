//! What a node holds in memory while slow clients read a blob that is far larger than that.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    darter::{Darter, Home},
    http::Request,
    noise::Noise,
    own_registry::{Blob, Content, OwnRegistry},
    process::wait_until,
};

use crate::{
    herd::alone,
    pull::{digest_while, joined},
};

/// Bytes of the blob.
const SIZE: u64 = 4 << 30;

/// Slow clients; the one that reads all of it as fast as it comes is one more.
const SLOW: u64 = 16;

/// Anonymous memory that a node may have while it serves them.
const MEMORY_MAX: u64 = 64 << 20;

/// The longest that all of it may take, on two busy cores.
const PULL_LIMIT: Duration = Duration::from_secs(300);

/// How far the fast client is, and whether the slow ones may leave.
#[derive(Debug, Default)]
struct Race {
    ahead: AtomicU64,
    over: AtomicBool,
}

// === impl Race ===

impl Race {
    /// Reads in small bites, and each only when the fast client is `times` as far, until the race
    /// is over; then leaves in the middle of the body.
    fn slowly(&self, proxy: SocketAddr, path: &str, times: u64) -> Result<u64> {
        let mut response = Request::get(path).send(proxy)?;
        ensure!(response.status == 200, "{}", response.status);
        let mut bite = vec![0; 1000 * times as usize];
        let mut own = 0;
        loop {
            let may_read = || {
                self.over.load(Ordering::Acquire)
                    || own * times < self.ahead.load(Ordering::Acquire)
            };
            wait_until("the fast client gets ahead", PULL_LIMIT, may_read)?;
            if self.over.load(Ordering::Acquire) {
                return Ok(own);
            }
            let got = response.read_some(&mut bite);
            own += got.map_err(|ending| anyhow::anyhow!("{ending:?} after {own} bytes"))? as u64;
        }
    }

    /// The most anonymous memory that was seen until the fast client was done.
    fn watch(&self, darter: &Darter) -> Result<u64> {
        let mut most = 0;
        let mut problem = None;
        let sampled = wait_until("the blob is read", PULL_LIMIT, || {
            match darter.anonymous_memory() {
                Ok(bytes) => most = most.max(bytes),
                Err(error) => problem = Some(error),
            }
            problem.is_some() || self.over.load(Ordering::Acquire)
        });
        match problem {
            Some(error) => Err(error),
            None => sampled.map(|()| most),
        }
    }
}

#[test]
fn sixteen_slow_clients_of_4_gib_cost_at_most_64_mib_of_memory() -> Result<()> {
    if !can_run(&["setpriv"])? {
        return Ok(());
    }
    let noise = Noise::new("memory", SIZE)?;
    let digest = noise.digest();
    let mut content = Content::default();
    content.blobs.insert(digest.clone(), Blob::Noise(noise));
    let registry = OwnRegistry::start(content)?;
    let home = Home::new()?;
    let darter = Darter::run(&alone(&home, registry.address()), &home)?;
    let at_rest = darter.anonymous_memory()?;
    let (proxy, race) = (darter.proxy()?, Race::default());
    let path = format!("/v2/team/noise/blobs/{digest}?ns=registry.test");
    let most = thread::scope(|scope| {
        let fast = scope.spawn(|| {
            let told = digest_while(proxy, &path, &race.ahead);
            race.over.store(true, Ordering::Release);
            told
        });
        let slow: Vec<_> = (1..=SLOW)
            .map(|number| {
                scope.spawn({
                    let (race, path) = (&race, &path);
                    move || race.slowly(proxy, path, 1 + number)
                })
            })
            .collect();
        let most = race.watch(&darter);
        let told = joined(fast);
        for (number, client) in slow.into_iter().enumerate() {
            let read = joined(client).with_context(|| format!("slow client {number}"))?;
            ensure!(
                0 < read && read < SIZE,
                "slow client {number} read {read} bytes"
            );
        }
        ensure!(told? == digest, "wrong bytes");
        most
    })
    .with_context(|| darter.log().unwrap_or_default())?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    eprintln!(
        "anonymous memory at rest {:.1} MiB, at most {:.1} MiB with {} clients of a {SIZE} byte blob",
        mib(at_rest),
        mib(most),
        SLOW + 1,
    );
    let fetches = registry.blob_fetches();
    ensure!(fetches == 1, "the registry was asked {fetches} times");
    ensure!(
        most <= MEMORY_MAX,
        "{:.1} MiB of anonymous memory",
        mib(most)
    );
    darter.stop()
}
