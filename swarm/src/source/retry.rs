//! Pure: whether and when something that failed is tried again.
//!
//! Invariant: every row of failures ends. Progress starts a new row, but the number of rows has
//! its own bound.

use std::time::{Duration, SystemTime};

use super::error::SourceError;

/// The retries of one fetch or request.
#[derive(Debug)]
pub(super) struct Retries {
    limits: RetryLimits,
    failures_in_a_row: u32,
    failures: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct RetryLimits {
    /// Failures in a row, without a byte between them, that end it.
    pub(super) failures_in_a_row_max: u32,
    /// No retry begins later than this after the start or the last byte.
    pub(super) window: Duration,
    /// The pause before the first retry; doubled for each further one.
    pub(super) backoff: Duration,
}

/// Failures of one fetch, progress or none, that end it.
const FAILURES_MAX: u32 = 256;
/// No pause is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A `Retry-After` beyond this is not waited for: the caller is told instead.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

// === impl Retries ===

impl Retries {
    pub(super) fn new(limits: RetryLimits) -> Self {
        Self {
            limits,
            failures_in_a_row: 0,
            failures: 0,
        }
    }

    pub(super) fn progressed(&mut self) {
        self.failures_in_a_row = 0;
    }

    /// How long to pause before the next try; `None` to give up. `elapsed` is the time since the
    /// start or the last progress, `jitter` is a random number from 0 to 1.
    pub(super) fn failed(
        &mut self,
        error: &SourceError,
        elapsed: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        self.failures_in_a_row += 1;
        self.failures += 1;
        let over = self.limits.failures_in_a_row_max <= self.failures_in_a_row
            || FAILURES_MAX <= self.failures;
        if over || !error.retryable() {
            return None;
        }
        let told = match error {
            SourceError::RateLimited { retry_after, .. } => *retry_after,
            SourceError::NotAllowed(_)
            | SourceError::Forbidden { .. }
            | SourceError::Unreachable { .. }
            | SourceError::Stalled { .. }
            | SourceError::Redirect(_)
            | SourceError::Refused(_)
            | SourceError::Status(_)
            | SourceError::Interrupted
            | SourceError::TooLong { .. }
            | SourceError::Malformed(_) => None,
        };
        let pause = match told {
            Some(told) if RETRY_AFTER_MAX < told => return None,
            Some(told) => told.max(self.backoff(jitter)),
            None => self.backoff(jitter),
        };
        (elapsed + pause <= self.limits.window).then_some(pause)
    }

    /// Between half and all of the doubled pause, so that many who failed together come apart.
    fn backoff(&self, jitter: f64) -> Duration {
        let doublings = (self.failures_in_a_row - 1).min(16);
        let whole = self
            .limits
            .backoff
            .saturating_mul(1 << doublings)
            .min(BACKOFF_MAX);
        whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    const LIMITS: RetryLimits = RetryLimits {
        failures_in_a_row_max: 4,
        window: Duration::from_secs(20),
        backoff: Duration::from_millis(100),
    };

    /// The pauses in milliseconds after `failures` of one kind at full jitter.
    fn pauses(error: &SourceError, failures: usize) -> Vec<Option<u128>> {
        let mut retries = Retries::new(LIMITS);
        (0..failures)
            .map(|_| {
                retries
                    .failed(error, Duration::ZERO, 1.0)
                    .map(|pause| pause.as_millis())
            })
            .collect()
    }

    fn limited(retry_after: Option<u64>) -> SourceError {
        let answer = super::super::error::Answer {
            status: http::StatusCode::TOO_MANY_REQUESTS,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            by: super::super::error::AnsweredBy::Registry,
        };
        SourceError::RateLimited {
            answer: Box::new(answer),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn pauses_double_and_end() {
        assert_eq!(
            pauses(&SourceError::Interrupted, 4),
            [Some(100), Some(200), Some(400), None]
        );
    }

    #[test]
    fn what_is_not_retryable_is_not_retried() {
        assert_eq!(pauses(&SourceError::Malformed("x"), 1), [None]);
    }

    #[test]
    fn a_short_retry_after_is_honoured_and_a_long_one_is_not_waited_for() {
        assert_eq!(pauses(&limited(Some(3)), 1), [Some(3000)]);
        assert_eq!(pauses(&limited(None), 1), [Some(100)]);
        assert_eq!(pauses(&limited(Some(0)), 1), [Some(100)]);
        assert_eq!(pauses(&limited(Some(11)), 1), [None]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let read = |text| retry_after(text, now).map(|told| told.as_secs());
        assert_eq!(read(" 7 "), Some(7));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }

    #[test]
    fn progress_starts_a_new_row() {
        let mut retries = Retries::new(LIMITS);
        for _ in 0..10 {
            assert!(
                retries
                    .failed(&SourceError::Interrupted, Duration::ZERO, 0.5)
                    .is_some()
            );
            retries.progressed();
        }
    }

    #[test]
    fn no_retry_begins_after_the_window() {
        let mut retries = Retries::new(LIMITS);
        assert!(
            retries
                .failed(&SourceError::Interrupted, LIMITS.window, 0.0)
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn every_fetch_ends_whatever_progress_it_makes(progress in proptest::collection::vec(proptest::bool::ANY, 300)) {
            let mut retries = Retries::new(LIMITS);
            let mut retried = 0;
            for progressed in progress {
                if progressed {
                    retries.progressed();
                }
                match retries.failed(&SourceError::Interrupted, Duration::ZERO, 0.0) {
                    Some(pause) => prop_assert!(pause <= BACKOFF_MAX),
                    None => return Ok(()),
                }
                retried += 1;
            }
            prop_assert!(retried < 300, "it never ended");
        }
    }
}
