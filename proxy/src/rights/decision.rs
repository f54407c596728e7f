//! Pure: what was decided about a reader and a content, and for how long that stands.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::error::Refusal;

/// For how long decisions stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RightTimes {
    /// One for a credential, which may have an end of its own before that.
    pub allow: Duration,
    /// A refusal, for the very caller that was refused.
    pub deny: Duration,
    /// One for everybody.
    pub public: Duration,
    /// How long after its end a decision stands while the registry does not answer.
    pub grace: Duration,
}

/// The longest grace that can be asked for.
pub const GRACE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What the registry said about one reader and one content.
#[derive(Debug, Clone)]
pub(crate) enum Decision {
    Allowed {
        until: Instant,
        /// Whether what the content lists was decided with it, for as long.
        is_listed: bool,
    },
    Denied {
        until: Instant,
        refusal: Arc<Refusal>,
    },
}

/// What a decision comes to at some moment.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Allowed,
    Denied(Arc<Refusal>),
    /// It stood until a while ago: good enough while the registry does not answer.
    Lapsed,
    Unknown,
}

// === impl Decision ===

impl Decision {
    pub(crate) fn judge(decision: Option<&Self>, now: Instant, grace: Duration) -> Verdict {
        match decision {
            Some(Self::Allowed { until, .. }) if now < *until => Verdict::Allowed,
            Some(Self::Allowed { until, .. }) if now < *until + grace => Verdict::Lapsed,
            Some(Self::Denied { until, refusal }) if now < *until => {
                Verdict::Denied(Arc::clone(refusal))
            }
            Some(Self::Allowed { .. } | Self::Denied { .. }) | None => Verdict::Unknown,
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// What two verdicts about one caller come to: a right that stands is enough, and a refusal is newer
    /// than what has lapsed.
    pub(crate) fn or(self, other: Self) -> Self {
        let rank = |verdict: &Self| match verdict {
            Self::Allowed => 3,
            Self::Denied(_) => 2,
            Self::Lapsed => 1,
            Self::Unknown => 0,
        };
        if rank(&self) < rank(&other) {
            other
        } else {
            self
        }
    }
}

// === impl RightTimes ===

impl RightTimes {
    /// How long a credential that ends at `expires_at` is let in, at `now` of the wall clock.
    pub(crate) fn allowed_for(&self, expires_at: Option<SystemTime>, now: SystemTime) -> Duration {
        let left = expires_at.map(|end| end.duration_since(now).unwrap_or_default());
        left.map_or(self.allow, |left| left.min(self.allow))
    }
}

impl Default for RightTimes {
    fn default() -> Self {
        Self {
            allow: Duration::from_secs(5 * 60),
            deny: Duration::from_secs(10),
            public: Duration::from_secs(30 * 60),
            grace: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;

    fn render(decision: Option<&Decision>, now: Instant, grace: u64) -> &'static str {
        match Decision::judge(decision, now, Duration::from_secs(grace)) {
            Verdict::Allowed => "allowed",
            Verdict::Denied(_) => "denied",
            Verdict::Lapsed => "lapsed",
            Verdict::Unknown => "unknown",
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn a_decision_stands_until_its_end_and_through_its_grace() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let (until, is_listed) = (at(10), false);
        let allowed = Decision::Allowed { until, is_listed };
        for (second, grace, expect) in [
            (9, 0, "allowed"),
            (10, 0, "unknown"),
            (10, 5, "lapsed"),
            (15, 5, "unknown"),
        ] {
            assert_eq!(render(Some(&allowed), at(second), grace), expect);
        }
        let refusal = Arc::new(Refusal::new(Fault::Denied, "no"));
        let denied = Decision::Denied { until, refusal };
        assert_eq!(render(Some(&denied), at(9), 5), "denied");
        assert_eq!(render(Some(&denied), at(10), 5), "unknown");
        assert_eq!(render(None, now, 5), "unknown");
    }

    #[test]
    fn of_two_verdicts_the_better_founded_one_holds() {
        let name = |verdict: Verdict| match verdict {
            Verdict::Allowed => "allowed",
            Verdict::Denied(_) => "denied",
            Verdict::Lapsed => "lapsed",
            Verdict::Unknown => "unknown",
        };
        let denied = || Verdict::Denied(Arc::new(Refusal::new(Fault::Denied, "no")));
        let check = |one: Verdict, other: Verdict, expect| {
            assert_eq!(name(one.clone().or(other.clone())), expect);
            assert_eq!(name(other.or(one)), expect);
        };
        check(Verdict::Allowed, denied(), "allowed");
        check(Verdict::Lapsed, denied(), "denied");
        check(Verdict::Lapsed, Verdict::Unknown, "lapsed");
        check(Verdict::Allowed, Verdict::Lapsed, "allowed");
    }

    #[test]
    fn a_token_is_let_in_no_longer_than_it_lives() {
        let times = RightTimes::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let end = |second| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        for (expires_at, expect) in [
            (None, 300),
            (end(1_060), 60),
            (end(9_000), 300),
            (end(1_000), 0),
            (end(900), 0),
        ] {
            let seen = times.allowed_for(expires_at, now);
            assert_eq!(seen, Duration::from_secs(expect), "{expires_at:?}");
        }
    }
}
