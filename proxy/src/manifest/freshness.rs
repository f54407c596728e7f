//! Pure: may a remembered answer for a tag be given, and with what?
//!
//! The clock is a parameter. An answer from the future (the clock was set back) is not fresh: the
//! upstream is asked, and the answer is given only where that fails.

use std::time::{Duration, SystemTime};

/// How long answers for tags are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagTimes {
    /// An answer this young is given without asking.
    pub ttl: Duration,
    /// An answer this old is given, with a warning, when the upstream cannot say better.
    pub stale_if_error: Duration,
}

/// What to do about a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Give the answer.
    Fresh,
    /// Ask the upstream; give the answer, with a warning, if it fails.
    Revalidate,
    /// Ask the upstream; there is nothing to give.
    Ask,
}

/// "No such tag" is believed for this long, so that a new tag is seen soon.
pub const UNKNOWN_TTL: Duration = Duration::from_secs(5);

/// An answer is not given in place of asking at this age, however few questions are left.
const SPARING_AGE_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// RFC 9111 dropped the code 110, so the one for anything goes with a text.
pub const STALE_WARNING: &str =
    "299 - \"darter: the upstream did not answer; this is the last answer it gave\"";

pub const HELD_WARNING: &str =
    "299 - \"darter: the upstream answers few questions more; this is the last answer it gave\"";

// === impl TagTimes ===

impl TagTimes {
    /// What to do about a tag that was last resolved at `resolved_at`.
    pub fn judge(&self, resolved_at: Option<SystemTime>, now: SystemTime) -> Freshness {
        let Some(resolved_at) = resolved_at else {
            return Freshness::Ask;
        };
        match now.duration_since(resolved_at) {
            Ok(age) if age < self.ttl => Freshness::Fresh,
            Ok(age) if age >= self.stale_if_error => Freshness::Ask,
            Ok(_) | Err(_) => Freshness::Revalidate,
        }
    }

    /// Whether an answer would do where the upstream has few questions left.
    pub fn would_do(&self, resolved_at: SystemTime, now: SystemTime) -> bool {
        let age_max = SPARING_AGE_MAX.min(self.stale_if_error);
        now.duration_since(resolved_at)
            .is_ok_and(|age| age < age_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(age_s: i64, expect: Freshness) {
        let times = TagTimes {
            ttl: Duration::from_secs(60),
            stale_if_error: Duration::from_secs(3600),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let age = Duration::from_secs(age_s.unsigned_abs());
        let resolved_at = if age_s < 0 { now + age } else { now - age };
        assert_eq!(times.judge(Some(resolved_at), now), expect, "{age_s} s");
    }

    #[test]
    fn an_answer_ages_from_fresh_to_gone() {
        check(0, Freshness::Fresh);
        check(59, Freshness::Fresh);
        check(60, Freshness::Revalidate);
        check(3599, Freshness::Revalidate);
        check(3600, Freshness::Ask);
        check(-1, Freshness::Revalidate);
        check(-1_000_000, Freshness::Revalidate);
    }

    #[test]
    fn an_answer_does_for_a_few_hours_where_few_questions_are_left() {
        let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
        let now = SystemTime::UNIX_EPOCH + hours(1_000);
        for (stale_if_error, resolved_at, expect) in [
            (hours(24), now, true),
            (hours(24), now - hours(5), true),
            (hours(24), now - hours(6), false),
            (hours(1), now - hours(1), false),
            (hours(24), now + hours(1), false),
        ] {
            let times = TagTimes {
                ttl: Duration::ZERO,
                stale_if_error,
            };
            let seen = times.would_do(resolved_at, now);
            assert_eq!(seen, expect, "{stale_if_error:?} {resolved_at:?}");
        }
    }

    #[test]
    fn without_an_answer_the_upstream_is_asked() {
        let times = TagTimes {
            ttl: Duration::MAX,
            stale_if_error: Duration::MAX,
        };
        assert_eq!(times.judge(None, SystemTime::UNIX_EPOCH), Freshness::Ask);
    }

    #[test]
    fn a_ttl_of_zero_asks_every_time() {
        let times = TagTimes {
            ttl: Duration::ZERO,
            stale_if_error: Duration::from_secs(1),
        };
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(times.judge(Some(now), now), Freshness::Revalidate);
    }
}
