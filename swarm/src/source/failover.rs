//! Pure: which endpoint of a registry is asked next, and when one that is ill is asked again.
//!
//! Invariant: every request asks one endpoint at least and each at most once. An endpoint is left
//! out only while a later one is well, so that with a single one nothing is ever left out.

use std::time::{Duration, Instant};

use super::error::{Answer, AnsweredBy, Awaited, SourceError};

/// The endpoints of one registry, in the operator's order.
#[derive(Debug)]
pub(super) struct Failover {
    health: Vec<Health>,
}

#[derive(Debug, Clone, Copy)]
enum Health {
    Well,
    /// Until `ask_at` nobody asks it who has a later one. Then one sees whether it is over.
    Ill {
        failures: u32,
        ask_at: Instant,
        is_probed: bool,
    },
}

/// What an error of one endpoint leaves to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// Nothing: it is an answer.
    Nothing,
    /// It may not have all, or not for this caller: those after it are asked.
    ToLater,
    /// It gives no answer: any other is asked.
    ToAny,
}

/// How long an endpoint is ill after its first failure; doubled for each probe that fails.
const ILL_FIRST: Duration = Duration::from_secs(2);
/// No endpoint is left out for longer without one probe.
const ILL_MAX: Duration = Duration::from_secs(60);

// === impl Failover ===

impl Failover {
    pub(super) fn new(count: usize) -> Self {
        Self {
            health: vec![Health::Well; count],
        }
    }

    /// The endpoints as one request asks them, the first that answers being the last: as written,
    /// those behind that are ill at the moment while a later one is well.
    pub(super) fn order(&mut self, now: Instant) -> Vec<usize> {
        let is_well = |health: &Health| matches!(health, Health::Well);
        let last_well = self.health.iter().rposition(is_well);
        let (mut order, mut left_out) = (Vec::new(), Vec::new());
        for (index, health) in self.health.iter_mut().enumerate() {
            let has_later = last_well.is_some_and(|last| index < last);
            match health {
                Health::Ill { ask_at, .. } if has_later && now < *ask_at => left_out.push(index),
                Health::Ill {
                    failures,
                    ask_at,
                    is_probed,
                } if *ask_at <= now => {
                    *ask_at = now + pause(*failures);
                    *is_probed = true;
                    order.push(index);
                }
                Health::Well | Health::Ill { .. } => order.push(index),
            }
        }
        order.extend(left_out);
        order
    }

    /// The endpoint at `index` answered, or did not. Tells whether it fell ill just now.
    pub(super) fn ended(
        &mut self,
        index: usize,
        error: Option<&SourceError>,
        now: Instant,
    ) -> bool {
        let Some(health) = self.health.get_mut(index) else {
            return false;
        };
        let Some(error) = error.filter(|error| leaves(error) == Leaves::ToAny) else {
            *health = Health::Well;
            return false;
        };
        if says_nothing_of_it(error) {
            return false;
        }
        let failures = match *health {
            Health::Well => 1,
            Health::Ill {
                failures,
                is_probed: true,
                ..
            } => failures.saturating_add(1),
            // It failed those who had asked before it was known: that is no news.
            Health::Ill { .. } => return false,
        };
        let mut ill_for = pause(failures);
        if let SourceError::RateLimited {
            retry_after: Some(told),
            ..
        } = error
        {
            ill_for = (*told).clamp(ill_for, ILL_MAX);
        }
        let was_well = matches!(health, Health::Well);
        *health = Health::Ill {
            failures,
            ask_at: now + ill_for,
            is_probed: false,
        };
        was_well
    }
}

/// Whether the endpoint `next` is asked after `asked` gave `error`.
pub(super) fn goes_on(error: &SourceError, asked: usize, next: usize) -> bool {
    match leaves(error) {
        Leaves::Nothing => false,
        Leaves::ToLater => asked < next,
        Leaves::ToAny => true,
    }
}

fn leaves(error: &SourceError) -> Leaves {
    match error {
        SourceError::NotAllowed(_) => Leaves::Nothing,
        SourceError::Refused(_) => Leaves::ToLater,
        SourceError::Status(answer) => answered(answer),
        SourceError::Forbidden { .. }
        | SourceError::Unreachable { .. }
        | SourceError::Stalled { .. }
        | SourceError::Redirect(_)
        | SourceError::RateLimited { .. }
        | SourceError::Interrupted
        | SourceError::TooLong { .. }
        | SourceError::Malformed(_) => Leaves::ToAny,
    }
}

fn answered(answer: &Answer) -> Leaves {
    match (answer.status.as_u16(), answer.by) {
        (404, AnsweredBy::Registry) => Leaves::ToLater,
        (408 | 500..=599, _) => Leaves::ToAny,
        // A store or a token server behind it: what it says is not the registry's word.
        (_, AnsweredBy::Elsewhere) => Leaves::ToAny,
        (_, AnsweredBy::Registry) => Leaves::Nothing,
    }
}

/// Whether it failed for a reason of our own, or for the one content alone.
fn says_nothing_of_it(error: &SourceError) -> bool {
    match error {
        SourceError::NotAllowed(_) | SourceError::Forbidden { .. } => true,
        SourceError::Stalled { awaited, .. } => *awaited == Awaited::Slot,
        SourceError::Status(answer) => answer.status.is_client_error(),
        SourceError::TooLong { .. } | SourceError::Malformed(_) | SourceError::Redirect(_) => true,
        SourceError::Unreachable { .. }
        | SourceError::Refused(_)
        | SourceError::RateLimited { .. }
        | SourceError::Interrupted => false,
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    ILL_FIRST.saturating_mul(1 << doublings).min(ILL_MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::source::clock;

    fn status(status: u16, by: AnsweredBy) -> SourceError {
        let answer = Box::new(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            by,
        });
        match status {
            401 | 403 => SourceError::Refused(answer),
            429 => SourceError::RateLimited {
                answer,
                retry_after: Some(Duration::from_secs(20)),
            },
            _ => SourceError::Status(answer),
        }
    }

    /// The error that a word stands for; `None` for an answer.
    fn error(word: &str) -> Option<SourceError> {
        let stalled = |awaited| SourceError::Stalled {
            awaited,
            waited: Duration::from_secs(1),
        };
        Some(match word {
            "answers" => return None,
            "cut" => SourceError::Interrupted,
            "stalls" => stalled(Awaited::Headers),
            "is full" => stalled(Awaited::Slot),
            "elsewhere 404" => status(404, AnsweredBy::Elsewhere),
            number => status(number.parse().unwrap(), AnsweredBy::Registry),
        })
    }

    /// Of three endpoints, each `(second, index, word)` ends; gives the orders at `asks`.
    #[track_caller]
    fn check(ended: &[(u64, usize, &str)], asks: &[(u64, [usize; 3])]) {
        let (start, mut failover) = (clock::now(), Failover::new(3));
        let at = |second: u64| start + Duration::from_secs(second);
        let mut ended = ended.iter().peekable();
        for (second, expect) in asks {
            while let Some((_, index, word)) = ended.next_if(|(when, ..)| when <= second) {
                failover.ended(*index, error(word).as_ref(), at(*second));
            }
            assert_eq!(failover.order(at(*second)), expect, "at {second}");
        }
    }

    #[test]
    fn who_is_ill_is_asked_last_for_a_while_and_then_by_one() {
        let (well, ill) = ([0, 1, 2], [1, 2, 0]);
        check(
            &[(0, 0, "stalls"), (3, 0, "stalls")],
            &[
                (0, ill),
                (1, ill),
                (2, well),
                (2, ill),
                (3, ill),
                (6, ill),
                (7, well),
                (7, ill),
            ],
        );
        check(&[(0, 0, "500"), (1, 0, "answers")], &[(0, ill), (1, well)]);
        check(&[(0, 0, "500"), (1, 0, "404")], &[(0, ill), (1, well)]);
        check(&[(0, 0, "429")], &[(0, ill), (19, ill), (20, well)]);
        check(&[(0, 1, "cut")], &[(0, [0, 2, 1]), (2, well)]);
    }

    #[test]
    fn failures_that_say_nothing_of_the_endpoint_make_nobody_ill() {
        for word in ["404", "401", "400", "is full", "elsewhere 404"] {
            check(&[(0, 0, word)], &[(0, [0, 1, 2])]);
        }
    }

    #[test]
    fn many_who_fail_at_once_are_one_failure() {
        let ill = (0, 0, "stalls");
        check(&[ill, ill, ill, ill], &[(0, [1, 2, 0]), (2, [0, 1, 2])]);
    }

    #[test]
    fn nobody_is_left_out_for_one_that_is_ill_too() {
        check(&[(0, 2, "stalls")], &[(0, [0, 1, 2])]);
        check(&[(0, 2, "500"), (0, 1, "500")], &[(0, [0, 1, 2])]);
        let all = [(0, 0, "500"), (0, 1, "500"), (0, 2, "500")];
        check(&all, &[(0, [0, 1, 2]), (1, [0, 1, 2])]);
    }

    #[test]
    fn an_answer_is_final_and_what_is_missing_may_be_with_a_later_one() {
        for (word, to_later, to_earlier) in [
            ("400", false, false),
            ("416", false, false),
            ("404", true, false),
            ("401", true, false),
            ("403", true, false),
            ("500", true, true),
            ("429", true, true),
            ("stalls", true, true),
            ("elsewhere 404", true, true),
        ] {
            let error = error(word).unwrap();
            let seen = (goes_on(&error, 1, 2), goes_on(&error, 1, 0));
            assert_eq!(seen, (to_later, to_earlier), "{word}");
        }
    }

    proptest! {
        #[test]
        fn each_endpoint_is_asked_once_whatever_happens(
            events in proptest::collection::vec((0..4usize, 0..5usize, 0..9u64), 0..60)
        ) {
            let words = ["answers", "500", "429", "404", "cut"];
            let (mut now, mut failover) = (clock::now(), Failover::new(4));
            for (index, word, seconds) in events {
                now += Duration::from_secs(seconds);
                failover.ended(index, error(words[word]).as_ref(), now);
                let mut order = failover.order(now);
                order.sort_unstable();
                prop_assert_eq!(order, [0, 1, 2, 3]);
            }
            let after = now + ILL_MAX;
            prop_assert!(failover.order(after) == [0, 1, 2, 3]);
        }
    }
}
