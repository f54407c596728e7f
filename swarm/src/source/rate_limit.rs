//! Pure: what a registry says of the requests that it still answers, and who does not ask where few
//! of them are left.
//!
//! Docker Hub tells it as `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`, the
//! form of draft-polli-ratelimit-headers: a number, then parameters, of which `w` is the window in
//! seconds. Whoever has an older answer that would do leaves the rest to those who have none; one of
//! them is let through now and then, so that it is seen when the count has recovered.

use std::time::{Duration, Instant};

use http::HeaderMap;

/// What one answer told, as far as it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RateLimit {
    /// Requests in one window.
    pub(super) limit: Option<u32>,
    /// Those of them that are left.
    pub(super) remaining: Option<u32>,
    pub(super) window: Option<Duration>,
}

/// What is left for this host at one endpoint, as far as it told.
#[derive(Debug, Default)]
pub(super) enum Allowance {
    #[default]
    Ample,
    /// Until `ends_at`, unless an answer tells otherwise.
    Scarce {
        ends_at: Instant,
        /// When the next one is let through who need not ask, and how long after him another one.
        look_at: Instant,
        pause: Duration,
    },
}

/// Requests are few where no more than one in so many is left.
const SCARCE_SHARE: u64 = 20;
/// A window that is not told, and the longest that is believed: Docker Hub's.
const WINDOW_DEFAULT: Duration = Duration::from_secs(60);
const WINDOW_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// How many are let through in one window who need not ask.
const LOOKS: u32 = 12;

// === impl RateLimit ===

impl RateLimit {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let told = |name: &str| headers.get(name)?.to_str().ok();
        let (limit, remaining) = (told("ratelimit-limit"), told("ratelimit-remaining"));
        Self {
            limit: limit.and_then(number),
            remaining: remaining.and_then(number),
            window: remaining.and_then(window).or(limit.and_then(window)),
        }
    }

    /// Whether few are left; where the limit is not told, whether none is.
    fn is_scarce(&self) -> Option<bool> {
        let limit = u64::from(self.limit.unwrap_or(0));
        let remaining = u64::from(self.remaining?);
        Some(remaining * SCARCE_SHARE <= limit)
    }
}

// === impl Allowance ===

impl Allowance {
    /// An answer came that told this.
    pub(super) fn told(&mut self, told: RateLimit, now: Instant) {
        match told.is_scarce() {
            None => {}
            Some(false) => *self = Self::Ample,
            Some(true) => {
                let window = told.window.unwrap_or(WINDOW_DEFAULT).min(WINDOW_MAX);
                let pause = window / LOOKS;
                let look_at = match *self {
                    Self::Ample => now + pause,
                    Self::Scarce { look_at, .. } => look_at,
                };
                let ends_at = now + window;
                *self = Self::Scarce {
                    ends_at,
                    look_at,
                    pause,
                };
            }
        }
    }

    /// Whether somebody is to ask who need not.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match self {
            Self::Ample => true,
            Self::Scarce { ends_at, .. } if *ends_at <= now => {
                *self = Self::Ample;
                true
            }
            Self::Scarce { look_at, pause, .. } if *look_at <= now => {
                *look_at = now + *pause;
                true
            }
            Self::Scarce { .. } => false,
        }
    }
}

fn number(told: &str) -> Option<u32> {
    let (number, _) = told.split_once(';').unwrap_or((told, ""));
    number.trim().parse().ok()
}

fn window(told: &str) -> Option<Duration> {
    let mut parameters = told.split(';').skip(1);
    let seconds = parameters.find_map(|parameter| parameter.trim().strip_prefix("w="))?;
    Some(Duration::from_secs(seconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::clock;

    fn headers(told: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in told {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    #[track_caller]
    fn check(remaining: &str, expect: Option<u32>, window_s: Option<u64>) {
        let told = RateLimit::of(&headers(&[("ratelimit-remaining", remaining)]));
        let expect = RateLimit {
            limit: None,
            remaining: expect,
            window: window_s.map(Duration::from_secs),
        };
        assert_eq!(told, expect, "{remaining}");
    }

    #[test]
    fn the_number_and_its_window_are_read_and_anything_else_is_nothing() {
        check("76;w=21600", Some(76), Some(21600));
        check(" 0 ; w=21600", Some(0), Some(21600));
        check("0;comment=\"x\";w=60", Some(0), Some(60));
        check("200", Some(200), None);
        check("1;w=soon", Some(1), None);
        check("", None, None);
        check("-1;w=-1", None, None);
        check("many", None, None);
        check("99999999999;w=1", None, Some(1));
        assert_eq!(RateLimit::of(&HeaderMap::new()), RateLimit::default());
        let told = headers(&[
            ("ratelimit-limit", "100;w=60"),
            ("ratelimit-remaining", "9"),
        ]);
        let window = RateLimit::of(&told).window;
        assert_eq!(window, Some(Duration::from_secs(60)));
    }

    #[test]
    fn few_are_left_where_it_is_one_in_twenty_or_none() {
        for (limit, remaining, expect) in [
            ("100", "6", Some(false)),
            ("100", "5", Some(true)),
            ("100", "0", Some(true)),
            ("10", "1", Some(false)),
            ("10", "0", Some(true)),
            ("", "1", Some(false)),
            ("", "0", Some(true)),
            ("4294967295", "4294967295", Some(false)),
            ("100", "", None),
        ] {
            let told = headers(&[
                ("ratelimit-limit", limit),
                ("ratelimit-remaining", remaining),
            ]);
            let seen = RateLimit::of(&told).is_scarce();
            assert_eq!(seen, expect, "{remaining} of {limit:?}");
        }
    }

    /// At its second an answer tells how many of 100 are left in ten minutes, or somebody asks who
    /// need not; gives who is let in.
    #[track_caller]
    fn events(events: &[(u64, &str)], expect: &[bool]) {
        let (start, mut allowance) = (clock::now(), Allowance::default());
        let mut seen = Vec::new();
        for (second, event) in events {
            let now = start + Duration::from_secs(*second);
            match *event {
                "ask" => seen.push(allowance.admits(now)),
                "says nothing" => allowance.told(RateLimit::default(), now),
                remaining => {
                    let told = headers(&[
                        ("ratelimit-limit", "100;w=600"),
                        ("ratelimit-remaining", remaining),
                    ]);
                    allowance.told(RateLimit::of(&told), now);
                }
            }
        }
        assert_eq!(seen, expect, "{events:?}");
    }

    #[test]
    fn who_need_not_does_not_ask_while_few_are_left() {
        let scarce = (0, "5");
        events(&[(0, "ask"), (0, "6"), (0, "ask")], &[true, true]);
        events(&[scarce, (0, "ask"), (49, "ask")], &[false, false]);
        events(&[scarce, (1, "says nothing"), (1, "ask")], &[false]);
        // The count recovers, or the window passes.
        events(&[scarce, (1, "100"), (1, "ask"), (2, "ask")], &[true, true]);
        events(&[scarce, (600, "ask"), (600, "ask")], &[true, true]);
        events(
            &[scarce, (590, "0"), (650, "ask"), (651, "ask")],
            &[true, false],
        );
    }

    #[test]
    fn one_is_let_through_now_and_then_whatever_is_told_meanwhile() {
        events(
            &[
                (0, "5"),
                (50, "ask"),
                (50, "ask"),
                (51, "4"),
                (99, "ask"),
                (100, "ask"),
                (101, "ask"),
            ],
            &[true, false, false, true, false],
        );
    }

    #[test]
    fn a_window_without_end_is_none() {
        let mut allowance = Allowance::default();
        let told = headers(&[("ratelimit-remaining", "0;w=18446744073709551615")]);
        let now = clock::now();
        allowance.told(RateLimit::of(&told), now);
        assert!(!allowance.admits(now));
        assert!(allowance.admits(now + WINDOW_MAX));
        assert!(allowance.admits(now + WINDOW_MAX));
    }
}
