//! Pure: one host that was told to have a task: whether it does, and how often it is told again.

use std::time::{Duration, Instant};

use protocol::{operator::PreheatFailure, scheduler::Failure};

use crate::engine::peer::PeerState;

/// A host that was told and has not registered within this is told again.
const ANSWER: Duration = Duration::from_secs(10);

/// The pause before a host that failed is told again.
const PAUSE: Duration = Duration::from_secs(2);

/// A host that gets no piece for this long has failed.
const STUCK: Duration = Duration::from_secs(120);

/// How often one host is told of one task.
const TRIES_MAX: u32 = 3;

/// A host that was told to have a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    tries: u32,
    step: Step,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// It was told.
    Asked { until: Instant },
    /// It takes part in the task.
    Getting { pieces: u32, until: Instant },
    /// It failed and will be told again.
    Pausing { until: Instant, why: PreheatFailure },
}

/// What a look at one host comes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    Same(Told),
    Again(Told),
    Held,
    Failed(PreheatFailure),
}

// === impl Told ===

impl Told {
    pub(super) fn first(now: Instant) -> Self {
        Self {
            tries: 1,
            step: Step::Asked {
                until: now + ANSWER,
            },
        }
    }

    /// What has become of the host, which takes the given part in the task and has these pieces.
    pub(super) fn look(self, now: Instant, part: Option<(PeerState, u32)>) -> Look {
        match (part, self.step) {
            (Some((PeerState::Complete, _)), _) => Look::Held,
            (
                Some((PeerState::Fed | PeerState::AtSource, pieces)),
                Step::Getting {
                    pieces: before,
                    until,
                },
            ) if pieces == before => match now < until {
                true => Look::Same(self),
                false => Look::Failed(PreheatFailure::Stuck),
            },
            // Whoever waits is in the engine's hands, which has an end for that.
            (Some((_, pieces)), _) => Look::Same(self.at(Step::Getting {
                pieces,
                until: now + STUCK,
            })),
            (None, Step::Pausing { why, .. }) if is_final(why) => Look::Failed(why),
            (None, Step::Asked { until } | Step::Pausing { until, .. }) if now < until => {
                Look::Same(self)
            }
            (None, Step::Asked { .. }) => self.again(now, PreheatFailure::Stuck),
            (None, Step::Pausing { why, .. }) => self.again(now, why),
            (None, Step::Getting { .. }) => Look::Same(self.failed(now, PreheatFailure::Stuck)),
        }
    }

    /// It could not get the task.
    pub(super) fn failed(self, now: Instant, why: PreheatFailure) -> Self {
        self.at(Step::Pausing {
            until: now + PAUSE,
            why,
        })
    }

    fn again(self, now: Instant, why: PreheatFailure) -> Look {
        if TRIES_MAX <= self.tries {
            return Look::Failed(why);
        }
        let tries = self.tries + 1;
        Look::Again(Self {
            tries,
            ..Self::first(now)
        })
    }

    fn at(self, step: Step) -> Self {
        Self { step, ..self }
    }

    pub(super) fn pieces(&self) -> u32 {
        match self.step {
            Step::Getting { pieces, .. } => pieces,
            Step::Asked { .. } | Step::Pausing { .. } => 0,
        }
    }
}

/// Whether every other host would be told the same by the source.
pub(super) fn is_final(failure: PreheatFailure) -> bool {
    match failure {
        PreheatFailure::Source(Failure::Refused | Failure::NotFound) => true,
        PreheatFailure::Source(Failure::Unavailable | Failure::Corrupt | Failure::Local)
        | PreheatFailure::NoHost
        | PreheatFailure::Stuck => false,
    }
}
