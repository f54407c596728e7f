//! Pure: what becomes of a peer for whom no parent is found: it waits, somebody else is sent to the
//! source, or it goes to the upstream by itself.

use std::time::{Duration, Instant};

use protocol::scheduler::Failure;

use super::{
    filter::Lack, hosts::HostKey, peer::PeerState, phase::Phase, source::Loss, turn::Turn,
};

// === impl Turn ===

impl Turn<'_> {
    /// Decides about a peer for whom no parent was found.
    pub(super) fn starve(&mut self, child: HostKey, lack: Lack) {
        let is_starved = self.has_waited(child, self.limits.starvation);
        match (self.task.phase, lack) {
            // Those that get their pieces from it have a way of their own: they can feed it then.
            (Phase::Fetching { .. }, Lack::Circle) => {
                if self.has_waited(child, self.limits.circle) {
                    self.shed_children(child);
                }
                self.wait(child);
            }
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
            (Phase::Failed { reason, until }, Lack::Nobody | Lack::Circle) if self.now < until => {
                self.send_alone(child, reason);
            }
            // Where nobody has it all, nobody's slot is worth waiting for: the rest must be fetched.
            (Phase::Failed { .. }, Lack::Busy) if !is_starved => self.wait(child),
            (Phase::Quiet, Lack::Busy) if !is_starved && self.task.has_complete() => {
                self.wait(child);
            }
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
            Failure::Unavailable | Failure::Corrupt | Failure::Local => self.take_turn_alone(),
        };
        match may_go {
            true => self.tell_alone(host, reason),
            false => self.wait(host),
        }
    }

    /// Whether one of the task's waiting may go to the upstream now. If not, the task has a time at which
    /// one may: each task has one such time at most, so all that wait for one have their turn.
    fn take_turn_alone(&mut self) -> bool {
        let interval = self.limits.alone_interval;
        match self.task.alone_at {
            Some(at) if self.now < at => return false,
            Some(at) if self.now < at + interval => {
                self.task.alone_at = None;
                return true;
            }
            // Nobody had to go when it was time.
            Some(_) => self.task.alone_at = None,
            None => {}
        }
        let next = self.alone_at.map_or(self.now, |at| at.max(self.now));
        let is_now = next == self.now;
        let is_of_use = match self.task.phase {
            Phase::Failed { until, .. } => next < until,
            Phase::Fetching { .. } => true,
            Phase::Quiet | Phase::Settling { .. } | Phase::Warming { .. } => false,
        };
        if is_now || is_of_use {
            *self.alone_at = Some(next + interval);
        }
        if is_of_use && !is_now {
            self.task.alone_at = Some(next);
        }
        is_now
    }

    fn feeds_somebody(&self, host: HostKey) -> bool {
        let peer = self.task.peer(host);
        peer.is_some_and(|peer| !peer.children.is_empty())
    }

    /// When the next of the waiting can be sent to the upstream.
    pub(super) fn next_alone(&self) -> Option<Instant> {
        match self.task.phase {
            Phase::Failed { .. } | Phase::Fetching { .. } => {
                self.task.alone_at.filter(|at| self.now < *at)
            }
            Phase::Quiet | Phase::Settling { .. } | Phase::Warming { .. } => None,
        }
    }

    pub(super) fn give_up(&mut self, reason: Failure) {
        let until = self.now + self.limits.failure_memory;
        self.task.phase = Phase::Failed { reason, until };
        self.task.alone_at = None;
        self.task.attempts = 0;
        self.task.failed_fetchers.clear();
        self.task.refused_until = None;
        for host in self.task.waiting().collect::<Vec<_>>() {
            self.send_alone(host, reason);
        }
    }

    fn has_waited(&self, child: HostKey, time: Duration) -> bool {
        match self.task.state(child) {
            Some(PeerState::Waiting { since, .. }) => since + time <= self.now,
            Some(PeerState::Fed | PeerState::AtSource | PeerState::Complete) | None => false,
        }
    }
}
