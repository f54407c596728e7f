//! Pure: the states of a task: who brings it in from the source.
//!
//! How a task moves between them is [`super::source`]'s to say.

use std::time::Instant;

use protocol::scheduler::Failure;

use super::hosts::HostKey;

/// Who brings the task in from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody is to.
    Quiet,
    /// No seed: the first grant waits for the herd to arrive.
    Settling { until: Instant },
    /// `seed` was told to, and has not registered yet.
    Warming {
        seed: HostKey,
        since: Instant,
        until: Instant,
    },
    /// `fetcher` has the grant.
    Fetching {
        fetcher: HostKey,
        epoch: u64,
        since: Instant,
        proof_until: Instant,
        moved_at: Instant,
    },
    /// Nobody could; whoever asks is told so.
    Failed { reason: Failure, until: Instant },
}

// === impl Phase ===

impl Phase {
    /// When something is to be done if nothing is heard.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Quiet => None,
            Self::Settling { until }
            | Self::Warming { until, .. }
            | Self::Failed { until, .. }
            | Self::Fetching {
                proof_until: until, ..
            } => Some(*until),
        }
    }

    /// As status shows it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Settling { .. } => "settling",
            Self::Warming { .. } => "warming",
            Self::Fetching { .. } => "fetching",
            Self::Failed { .. } => "failed",
        }
    }
}
