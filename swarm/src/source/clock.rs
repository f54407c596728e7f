//! The one place of the source that reads the clock and the random generator.

use std::time::{Duration, Instant, SystemTime};

#[expect(
    clippy::disallowed_methods,
    reason = "the source drives its own retries and token lives"
)]
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "Retry-After may be a date")]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Time since `start`.
pub(super) fn since(start: Instant) -> Duration {
    now().saturating_duration_since(start)
}

/// A random number from 0 to 1.
pub(super) fn jitter() -> f64 {
    rand::random()
}
