//! Pure: whether a registry that kept silent is asked again by those who need not wait for it.
//!
//! It is remembered for a while that nobody answered, so that of many who can go elsewhere one waits
//! and the others do not. Blobs are told apart from the rest: they often lie at another host, which
//! may be silent while the registry is not. Whoever has nowhere else to go is never kept from
//! asking, and any answer ends the silence.

use std::time::{Duration, Instant};

use protocol::ContentKind;

use super::{
    error::{Awaited, SourceError},
    request::Resource,
};

/// How long somebody waits for an upstream that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Patience {
    /// Who has nowhere else to go: as long as the retries last.
    Long,
    /// Who has: [`Timeouts::fallback`](super::Timeouts::fallback) at most, and not at all where
    /// that was in vain a moment ago.
    Short,
}

/// What of a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errand {
    Blob,
    /// Manifests, tags, and lists.
    Rest,
}

/// The silence of one registry, if it is silent.
#[derive(Debug, Default)]
pub(super) struct Silence {
    blobs: State,
    rest: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Answering,
    /// So many questions in a row had no answer.
    Failing { failures: u32 },
    /// Until `ask_at` nobody who need not does ask.
    Silent { error: SourceError, ask_at: Instant },
}

/// Questions in a row without an answer, after which a registry is taken for silent.
const FAILURES_MAX: u32 = 3;

// === impl Errand ===

impl Errand {
    pub(crate) fn of(kind: ContentKind) -> Self {
        match kind {
            ContentKind::Blob => Self::Blob,
            ContentKind::Manifest => Self::Rest,
        }
    }

    pub(super) fn of_resource(resource: &Resource) -> Self {
        match resource {
            Resource::Blob(_) => Self::Blob,
            Resource::Manifest(_) | Resource::TagsList { .. } | Resource::Referrers { .. } => {
                Self::Rest
            }
        }
    }
}

// === impl Silence ===

impl Silence {
    /// Whether somebody who can go elsewhere is to ask; the error of a moment ago if not. The
    /// first who comes after `memory` is sent to see, and the others go on not asking.
    pub(super) fn admits(
        &mut self,
        errand: Errand,
        now: Instant,
        memory: Duration,
    ) -> Result<(), SourceError> {
        match self.of(errand) {
            State::Silent { error, ask_at } if now < *ask_at => Err(error.clone()),
            State::Silent { ask_at, .. } => {
                *ask_at = now + memory;
                Ok(())
            }
            State::Answering | State::Failing { .. } => Ok(()),
        }
    }

    /// A question ended, with `error` if that is how.
    pub(super) fn ended(&mut self, errand: Errand, error: Option<&SourceError>, ask_at: Instant) {
        let state = self.of(errand);
        let Some(error) = error.filter(|error| is_silence(error)) else {
            // An answer that nobody likes is one.
            if !error.is_some_and(says_nothing_of_it) {
                *state = State::Answering;
            }
            return;
        };
        *state = match state {
            State::Answering => State::Failing { failures: 1 },
            State::Failing { failures } if *failures + 1 < FAILURES_MAX => State::Failing {
                failures: *failures + 1,
            },
            State::Failing { .. } | State::Silent { .. } => State::Silent {
                error: error.clone(),
                ask_at,
            },
        };
    }

    /// Somebody waited for as long as he would, and nothing came.
    pub(super) fn outlasted(&mut self, errand: Errand, error: SourceError, ask_at: Instant) {
        *self.of(errand) = State::Silent { error, ask_at };
    }

    fn of(&mut self, errand: Errand) -> &mut State {
        match errand {
            Errand::Blob => &mut self.blobs,
            Errand::Rest => &mut self.rest,
        }
    }
}

/// Whether nobody answered at all.
fn is_silence(error: &SourceError) -> bool {
    match error {
        SourceError::Unreachable { .. } => true,
        SourceError::Stalled { awaited, .. } => *awaited == Awaited::Headers,
        SourceError::NotAllowed(_)
        | SourceError::Forbidden { .. }
        | SourceError::Redirect(_)
        | SourceError::Refused(_)
        | SourceError::RateLimited { .. }
        | SourceError::Status(_)
        | SourceError::Interrupted
        | SourceError::TooLong { .. }
        | SourceError::Malformed(_) => false,
    }
}

/// Whether it failed before anybody was asked.
fn says_nothing_of_it(error: &SourceError) -> bool {
    match error {
        SourceError::NotAllowed(_) | SourceError::Forbidden { .. } => true,
        SourceError::Stalled { awaited, .. } => *awaited == Awaited::Slot,
        SourceError::Unreachable { .. }
        | SourceError::Redirect(_)
        | SourceError::Refused(_)
        | SourceError::RateLimited { .. }
        | SourceError::Status(_)
        | SourceError::Interrupted
        | SourceError::TooLong { .. }
        | SourceError::Malformed(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::clock;

    const MEMORY: Duration = Duration::from_secs(30);

    fn silent(awaited: Awaited) -> SourceError {
        SourceError::Stalled {
            awaited,
            waited: Duration::from_secs(10),
        }
    }

    /// What a word stands for happens at its second; gives who is let in.
    #[track_caller]
    fn check(events: &[(u64, &str)], expect: &[bool]) {
        let (start, mut silence) = (clock::now(), Silence::default());
        let mut seen = Vec::new();
        for (second, event) in events {
            let now = start + Duration::from_secs(*second);
            let (blob, ask_at) = (Errand::Blob, now + MEMORY);
            let headers = silent(Awaited::Headers);
            match *event {
                "fails" => silence.ended(blob, Some(&headers), ask_at),
                "no slot" => silence.ended(blob, Some(&silent(Awaited::Slot)), ask_at),
                "cut" => silence.ended(blob, Some(&SourceError::Interrupted), ask_at),
                "answers" => silence.ended(blob, None, ask_at),
                "outlasted" => silence.outlasted(blob, headers, ask_at),
                "ask" => seen.push(silence.admits(blob, now, MEMORY).is_ok()),
                "ask for a tag" => seen.push(silence.admits(Errand::Rest, now, MEMORY).is_ok()),
                other => panic!("{other}"),
            }
        }
        assert_eq!(seen, expect, "{events:?}");
    }

    #[test]
    fn who_was_outlasted_keeps_the_next_from_waiting_and_one_sees_whether_it_is_over() {
        check(
            &[
                (0, "ask"),
                (10, "outlasted"),
                (11, "ask"),
                (39, "ask"),
                (40, "ask"),
                (41, "ask"),
                (50, "outlasted"),
                (79, "ask"),
                (80, "ask"),
            ],
            &[true, false, false, true, false, false, true],
        );
    }

    #[test]
    fn an_answer_of_any_kind_ends_the_silence() {
        check(&[(0, "outlasted"), (1, "answers"), (1, "ask")], &[true]);
        check(&[(0, "outlasted"), (1, "cut"), (1, "ask")], &[true]);
        check(&[(0, "outlasted"), (1, "no slot"), (1, "ask")], &[false]);
    }

    #[test]
    fn a_few_failures_in_a_row_are_silence_and_one_is_not() {
        let fails = (0, "fails");
        check(&[fails, fails, (1, "ask")], &[true]);
        check(&[fails, fails, fails, (1, "ask")], &[false]);
        check(&[fails, fails, (0, "answers"), fails, (1, "ask")], &[true]);
    }

    #[test]
    fn a_silent_store_of_blobs_is_no_silent_registry() {
        check(
            &[(0, "outlasted"), (1, "ask for a tag"), (1, "ask")],
            &[true, false],
        );
    }
}
