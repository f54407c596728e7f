//! Pure: what becomes of a parent or sibling that failed a child, and of one that lied to several.

use protocol::scheduler::{Failure, ParentFailure};

use super::{
    hosts::HostKey,
    peer::{Exclusion, PeerState},
    source::Loss,
    turn::Turn,
};

// === impl Turn ===

impl Turn<'_> {
    pub(super) fn parent_failed(&mut self, child: HostKey, parent: HostKey, reason: ParentFailure) {
        let excluded_for = match reason {
            ParentFailure::Busy => self.limits.busy_exclusion,
            ParentFailure::Unreachable | ParentFailure::Slow | ParentFailure::Gone => {
                self.limits.failed_exclusion
            }
            ParentFailure::Lied => self.limits.liar_exclusion,
        };
        let entry = Exclusion {
            host: parent,
            until: self.now + excluded_for,
        };
        let Some(peer) = self.task.peer_mut(child) else {
            return;
        };
        Exclusion::add(&mut peer.excluded, entry, self.limits.exclusions_max);
        if reason == ParentFailure::Lied && self.hosts.blame(self.now, self.limits, child, parent) {
            self.banned.push(parent);
        }
        if self.unpair(child, parent)
            && let Some(host) = self.hosts.get_mut(parent)
        {
            host.failed(reason);
        }
        if self.unlink(parent, child) {
            if let Some(host) = self.hosts.get_mut(parent) {
                host.failed(reason);
            }
            self.affected.push(child);
        } else {
            self.orphaned(child);
        }
    }

    /// `child` has lost a parent that it had already lost here. Where it was told to wait for that, it
    /// may have heard so before it knew, and have nobody's word now.
    pub(super) fn orphaned(&mut self, child: HostKey) {
        if let Some(PeerState::Waiting { .. }) = self.task.state(child) {
            self.task.set_renew_at(child, self.now);
            self.tell_wait(child);
        }
    }

    /// The cluster bans `host`: nobody gets anything from it any more.
    pub(super) fn shut_out(&mut self, host: HostKey) {
        self.shed_children(host);
        self.unpair_all(host);
        if self.task.source_host() == Some(host) {
            self.source_lost(host, Loss::Failed(Failure::Corrupt));
        }
    }
}
