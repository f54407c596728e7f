//! Pure: what becomes of a peer for whom no parent is found: it waits, somebody else is sent to the
//! source, or it goes to the upstream by itself.

use std::time::Instant;

use protocol::scheduler::Failure;

use super::{
    filter::Lack, hosts::HostKey, peer::PeerState, phase::Phase, source::Loss, turn::Turn,
};

// === impl Turn ===

impl Turn<'_> {
    /// Decides about a peer for whom no parent was found.
    pub(super) fn starve(&mut self, child: HostKey, lack: Lack) {
        let is_starved = self.is_starved(child);
        match (self.task.phase, lack) {
            // The source belongs to a host that this child has no way to.
            (Phase::Fetching { fetcher, since, .. }, Lack::Nobody)
                if is_starved && since + self.limits.starvation <= self.now =>
            {
                match self.feeds_somebody(fetcher) {
                    true => self.send_alone(child, Failure::Unavailable),
                    // Nor has anybody else: for the herd it is lost.
                    false => {
                        self.source_lost(fetcher, Loss::Silent);
                        self.wait(child);
                    }
                }
            }
            (Phase::Settling { .. } | Phase::Warming { .. } | Phase::Fetching { .. }, _) => {
                self.wait(child);
            }
            (Phase::Failed { reason, until }, Lack::Nobody) if self.now < until => {
                self.send_alone(child, reason);
            }
            (Phase::Quiet | Phase::Failed { .. }, Lack::Busy) if !is_starved => self.wait(child),
            (Phase::Quiet | Phase::Failed { .. }, _) => {
                self.begin_source(Some(child));
                self.wait(child);
            }
        }
    }

    /// Sends a host to the upstream by itself. Where that may be at its limit already, the whole
    /// cluster goes there one by one; who has to wait for that may profit from the next try for all.
    fn send_alone(&mut self, host: HostKey, reason: Failure) {
        let may_go = match reason {
            // Its own credential is all that can help it.
            Failure::Refused | Failure::NotFound => true,
            Failure::Unavailable | Failure::Corrupt | Failure::Local => {
                let is_open = self.alone_at.is_none_or(|at| at <= self.now);
                if is_open {
                    *self.alone_at = Some(self.now + self.limits.alone_interval);
                }
                is_open
            }
        };
        match may_go {
            true => self.tell_alone(host, reason),
            false => self.wait(host),
        }
    }

    fn feeds_somebody(&self, host: HostKey) -> bool {
        let peer = self.task.peer(host);
        peer.is_some_and(|peer| !peer.children.is_empty())
    }

    /// When the next of the waiting can be sent to the upstream.
    pub(super) fn next_alone(&self) -> Option<Instant> {
        match self.task.phase {
            Phase::Failed { .. } => self.alone_at.filter(|at| self.now < *at),
            Phase::Quiet
            | Phase::Settling { .. }
            | Phase::Warming { .. }
            | Phase::Fetching { .. } => None,
        }
    }

    pub(super) fn give_up(&mut self, reason: Failure) {
        let until = self.now + self.limits.failure_memory;
        self.task.phase = Phase::Failed { reason, until };
        self.task.attempts = 0;
        self.task.failed_fetchers.clear();
        for host in self.task.waiting().collect::<Vec<_>>() {
            self.send_alone(host, reason);
        }
    }

    fn is_starved(&self, child: HostKey) -> bool {
        match self.task.state(child) {
            Some(PeerState::Waiting { since, .. }) => since + self.limits.starvation <= self.now,
            Some(PeerState::Fed | PeerState::AtSource | PeerState::Complete) | None => false,
        }
    }
}
