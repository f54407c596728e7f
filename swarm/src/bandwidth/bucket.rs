//! Pure: a token bucket that is paid after the fact.
//!
//! A take is granted while nothing is owed, however large it is, and then paid off at the rate; so
//! no piece is too large for a slow bucket, and none has to be cut to fit. What is not used is kept
//! for [`BURST`] and no longer.
//!
//! Invariant: in any span of time no more is granted than the rate allows in it and in one burst,
//! and one take.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// How long unused bandwidth is kept. Timers that fire late and readers that pause a moment catch
/// up within it.
pub(super) const BURST: Duration = Duration::from_millis(20);

/// The state of one limit.
#[derive(Debug)]
pub(super) struct TokenBucket {
    bytes_per_second: NonZeroU64,
    /// When all that was granted is paid for; in the past where something is left over.
    paid_at: Instant,
}

// === impl TokenBucket ===

impl TokenBucket {
    /// A bucket with nothing owed and nothing left over at `now`.
    pub(super) fn new(bytes_per_second: NonZeroU64, now: Instant) -> Self {
        Self {
            bytes_per_second,
            paid_at: now,
        }
    }

    /// Grants `bytes`, or tells when to ask again.
    pub(super) fn take(&mut self, now: Instant, bytes: u64) -> Result<(), Instant> {
        if now < self.paid_at {
            return Err(self.paid_at);
        }
        let kept_since = now.checked_sub(BURST).unwrap_or(self.paid_at);
        self.paid_at = self.paid_at.max(kept_since) + self.time_for(bytes);
        Ok(())
    }

    /// Rounded up, so that many small takes do not exceed the rate.
    fn time_for(&self, bytes: u64) -> Duration {
        const NANOS: u128 = 1_000_000_000;
        let nanos = (u128::from(bytes) * NANOS).div_ceil(u128::from(self.bytes_per_second.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(DEBT_MAX)
    }
}

/// No take is paid off for longer: what lies beyond is out of reach of a clock.
const DEBT_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any origin will do")]
    fn epoch() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    /// Takes `(at ms, bytes)` from a bucket of 1000 bytes a second; renders each as `ok` or as the
    /// time in ms to come back at.
    #[track_caller]
    fn check(takes: &[(u64, u64)], expect: &str) {
        let start = epoch();
        let rate = NonZeroU64::new(1000).unwrap();
        let mut bucket = TokenBucket::new(rate, start);
        let told = takes.iter().map(|(at, bytes)| {
            match bucket.take(start + Duration::from_millis(*at), *bytes) {
                Ok(()) => "ok".to_owned(),
                Err(until) => (until - start).as_millis().to_string(),
            }
        });
        assert_eq!(told.collect::<Vec<_>>().join(" "), expect);
    }

    #[test]
    fn what_is_owed_is_paid_off_before_the_next() {
        check(&[(0, 500), (0, 1), (499, 1), (500, 1)], "ok 500 500 ok");
    }

    #[test]
    fn a_take_of_any_size_is_granted_when_nothing_is_owed() {
        check(&[(0, 1 << 20), (1, 1)], "ok 1048576");
        check(&[(0, u64::MAX), (1, 1)], "ok 86400000");
    }

    #[test]
    fn what_is_not_used_is_kept_a_moment_and_no_longer() {
        check(&[(0, 100), (110, 100), (200, 1)], "ok ok ok");
        check(
            &[(0, 0), (60_000, 100), (60_079, 1), (60_080, 1)],
            "ok ok 60080 ok",
        );
    }

    proptest! {
        #[test]
        fn the_rate_holds_in_every_span(
            rate in 1000u64..1_000_000_000,
            takes in prop::collection::vec((1u64..1 << 20, 0u64..50_000), 1..60),
        ) {
            let start = epoch();
            let mut bucket = TokenBucket::new(NonZeroU64::new(rate).unwrap(), start);
            let mut now = start;
            let mut granted: Vec<(Duration, u64)> = Vec::new();
            for (bytes, pause_micros) in takes {
                now += Duration::from_micros(pause_micros);
                if let Err(until) = bucket.take(now, bytes) {
                    prop_assert!(now < until);
                    now = until;
                    prop_assert!(bucket.take(now, bytes).is_ok());
                }
                granted.push((now - start, bytes));
            }
            for (first, (from, _)) in granted.iter().enumerate() {
                let mut total = 0;
                for (to, bytes) in &granted[first..] {
                    let allowed = (*to - *from + BURST).as_secs_f64() * rate as f64;
                    prop_assert!(total as f64 <= allowed + 1.0, "{} in {:?}", total, *to - *from);
                    total += bytes;
                }
            }
            let total: u64 = granted[..granted.len() - 1].iter().map(|(_, bytes)| bytes).sum();
            let (last, _) = granted[granted.len() - 1];
            let pauses = Duration::from_micros(50_000 * granted.len() as u64);
            let bound = Duration::from_secs_f64(total as f64 / rate as f64) + pauses;
            prop_assert!(last <= bound, "{:?} of {:?}", last, bound);
        }
    }
}
