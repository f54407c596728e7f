//! Makes whoever moves bytes wait for a [`TokenBucket`]: the clock and the queue around it.
//!
//! Waiters go in the order in which they came. Who leaves while it waits has taken nothing. Where
//! there is no limit nothing is locked and no clock is read.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, TryLockError},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    bucket::TokenBucket,
    metrics::{BandwidthMetrics, Bucket},
    rate::Rate,
};

/// One limit, shared by all who are under it. Cheap to clone; unlimited by default.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    limited: Option<Arc<Limited>>,
}

#[derive(Debug)]
struct Limited {
    /// The lock is the queue: it is fair, and held by whoever is next for as long as it waits.
    bucket: Mutex<TokenBucket>,
    name: Bucket,
    metrics: BandwidthMetrics,
}

/// Whether somebody waits for a download: a reader here, or another host. Once raised it stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    raised: CancellationToken,
}

/// The limits that one transfer is under. Unlimited by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    own: Throttle,
    /// Holds as well while nobody waits.
    unasked: Option<(Throttle, Demand)>,
}

// === impl Throttle ===

impl Throttle {
    pub fn new(rate: Rate, name: Bucket, metrics: &BandwidthMetrics) -> Self {
        let limited = rate.bytes_per_second().map(|bytes_per_second| {
            Arc::new(Limited {
                bucket: Mutex::new(TokenBucket::new(bytes_per_second, now().into_std())),
                name,
                metrics: metrics.clone(),
            })
        });
        Self { limited }
    }

    /// Returns when `bytes` may move, and how long that took.
    pub async fn take(&self, bytes: u64) -> Duration {
        match &self.limited {
            Some(limited) => limited.take(bytes).await,
            None => Duration::ZERO,
        }
    }

    /// Whether somebody waits for it now.
    pub fn is_short(&self) -> bool {
        let held = |limited: &Arc<Limited>| limited.bucket.try_lock().is_err();
        self.limited.as_ref().is_some_and(held)
    }

    fn is_limited(&self) -> bool {
        self.limited.is_some()
    }
}

// === impl Limited ===

impl Limited {
    async fn take(&self, bytes: u64) -> Duration {
        let began = now();
        let (mut bucket, has_queued) = match self.bucket.try_lock() {
            Ok(bucket) => (bucket, false),
            Err(TryLockError { .. }) => (self.bucket.lock().await, true),
        };
        let mut has_slept = false;
        // Nobody else takes meanwhile, so one sleep is enough; a timer never fires early.
        while let Err(until) = bucket.take(now().into_std(), bytes) {
            has_slept = true;
            sleep_until(until.into()).await;
        }
        drop(bucket);
        if !has_queued && !has_slept {
            return Duration::ZERO;
        }
        let waited = now() - began;
        self.metrics.waited(self.name, bytes, waited);
        waited
    }
}

// === impl Demand ===

impl Demand {
    pub(crate) fn raise(&self) {
        self.raised.cancel();
    }
}

// === impl Pace ===

impl Pace {
    pub(crate) fn new(own: Throttle) -> Self {
        Self { own, unasked: None }
    }

    /// As it is, and under `prefetch` as well until `demand` is raised.
    pub(crate) fn until(&self, demand: &Demand, prefetch: &Throttle) -> Self {
        let limit = || (prefetch.clone(), demand.clone());
        Self {
            own: self.own.clone(),
            unasked: prefetch.is_limited().then(limit),
        }
    }

    /// Returns when `bytes` may move, and how long that took.
    pub(crate) async fn take(&self, bytes: u64) -> Duration {
        let mut waited = Duration::ZERO;
        if let Some((throttle, demand)) = &self.unasked
            && !demand.raised.is_cancelled()
        {
            // Whoever comes to wait for the bytes must not wait for this limit.
            let taken = demand.raised.run_until_cancelled(throttle.take(bytes));
            waited = taken.await.unwrap_or_default();
        }
        waited + self.own.take(bytes).await
    }

    /// Whether somebody waits for the limit that always holds.
    pub(crate) fn is_short(&self) -> bool {
        self.own.is_short()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the throttle is the clock of its bucket"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, sync::Mutex as StdMutex};

    use futures_util::future::{join, join_all};
    use prometheus::Registry;
    use tokio::time::timeout;

    use super::*;

    const KB: u64 = 1000;

    fn throttle(bytes_per_second: u64) -> Throttle {
        let metrics = BandwidthMetrics::register(&Registry::new()).unwrap();
        let rate = NonZeroU64::new(bytes_per_second).map_or(Rate::Unlimited, Rate::BytesPerSecond);
        Throttle::new(rate, Bucket::Serve, &metrics)
    }

    async fn seconds(moving: impl Future) -> f64 {
        let began = now();
        moving.await;
        (now() - began).as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_take_together_keeps_to_the_rate() {
        let throttle = throttle(100 * KB);
        let one = || async {
            for _ in 0..10 {
                throttle.take(10 * KB).await;
            }
        };
        let took = seconds(join_all((0..4).map(|_| one()))).await;
        assert!((3.8..4.1).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_came_first_goes_first() {
        let throttle = throttle(KB);
        throttle.take(1).await;
        let order = StdMutex::new(Vec::new());
        let one = |name: usize, bytes: u64| {
            let (throttle, order) = (&throttle, &order);
            async move {
                throttle.take(bytes).await;
                order.lock().unwrap().push(name);
                throttle.take(bytes).await;
                order.lock().unwrap().push(name);
            }
        };
        let sizes = [5 * KB, 1, 20, 3 * KB];
        join_all(
            sizes
                .into_iter()
                .enumerate()
                .map(|(name, bytes)| one(name, bytes)),
        )
        .await;
        assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_while_it_waits_has_taken_nothing() {
        let throttle = throttle(KB);
        throttle.take(2 * KB).await;
        for _ in 0..10 {
            let leaves = timeout(Duration::from_millis(100), throttle.take(1000 * KB));
            assert!(leaves.await.is_err());
        }
        let took = seconds(throttle.take(1)).await;
        assert!((0.9..1.1).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let throttle = throttle(0);
        let took = seconds(async {
            for _ in 0..1000 {
                assert_eq!(throttle.take(u64::MAX).await, Duration::ZERO);
            }
        });
        assert_eq!(took.await, 0.0);
        assert!(!throttle.is_short());
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttle_is_short_while_somebody_waits_for_it() {
        let throttle = throttle(KB);
        throttle.take(KB).await;
        assert!(!throttle.is_short(), "owing is not yet waiting");
        let waits = throttle.take(1);
        let looks = async { throttle.is_short() };
        let (waited, was_short) = join(waits, looks).await;
        assert!(was_short);
        assert_eq!(waited, Duration::from_secs(1));
        assert!(!throttle.is_short());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_under_both_limits() {
        let (own, unasked, demand) = (throttle(10 * KB), throttle(KB), Demand::default());
        let pace = Pace::new(own.clone()).until(&demand, &unasked);
        let moves = async {
            for _ in 0..10 {
                pace.take(KB).await;
            }
        };
        let took = seconds(moves).await;
        assert!((8.9..9.1).contains(&took), "{took}");
        let swapped = Pace::new(unasked).until(&demand, &own);
        let took = seconds(async {
            for _ in 0..10 {
                swapped.take(KB).await;
            }
        });
        let took = took.await;
        assert!((9.8..10.1).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_who_comes_to_wait_lifts_the_limit_at_once() {
        let (own, unasked, demand) = (throttle(10 * KB), throttle(1), Demand::default());
        let pace = Pace::new(own).until(&demand, &unasked);
        let moves = async {
            for _ in 0..10 {
                pace.take(KB).await;
            }
        };
        let comes = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            demand.raise();
        };
        let took = seconds(join(moves, comes)).await;
        assert!((5.0..6.0).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_waited_are_counted_with_their_seconds() {
        let registry = Registry::new();
        let metrics = BandwidthMetrics::register(&registry).unwrap();
        let rate = Rate::BytesPerSecond(NonZeroU64::new(KB).unwrap());
        let throttle = Throttle::new(rate, Bucket::Fetch, &metrics);
        throttle.take(2 * KB).await;
        throttle.take(500).await;
        let told = |name: &str| {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == name);
            let counts = family.into_iter().flat_map(|family| family.get_metric());
            let sum: f64 = counts.map(|metric| metric.get_counter().get_value()).sum();
            sum
        };
        assert_eq!(told("darter_swarm_throttled_bytes_total"), 500.0);
        assert_eq!(told("darter_swarm_throttled_seconds_total"), 2.0);
    }
}
