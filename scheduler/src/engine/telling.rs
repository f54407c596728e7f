//! Pure: what a host is told of one task.

use std::sync::Arc;

use protocol::{Down, Proof, TaskId, scheduler::Failure};

use super::{
    Command, filter::best_first, hosts::HostKey, peer::PeerState, phase::Phase, turn::Turn,
};

// === impl Turn ===

impl Turn<'_> {
    pub(super) fn tell_alone(&mut self, host: HostKey, reason: Failure) {
        self.remove_peer(host);
        self.tell(host, |task| Down::OnYourOwn { task, reason });
    }

    pub(super) fn tell_grant(&mut self, host: HostKey) {
        if let Phase::Fetching { fetcher, epoch, .. } = self.task.phase
            && fetcher == host
        {
            let holders = self.holders(host);
            self.tell(host, |task| Down::BackToSource {
                task,
                epoch,
                holders,
            });
        }
    }

    pub(super) fn tell_parents(&mut self, child: HostKey) {
        let parents = best_first(self.hosts, self.task, child);
        let siblings = self.sibling_candidates(child);
        let fetcher = self.trusted_fetcher();
        let proof = self.proof_for(child);
        self.tell(child, |task| Down::Parents {
            task,
            parents,
            siblings,
            fetcher,
            proof,
        });
    }

    /// What proves the content, where each parent of `child` has all of it.
    fn proof_for(&self, child: HostKey) -> Option<Arc<Proof>> {
        let parents = self.parents(child);
        let is_whole = |key: &HostKey| self.task.state(*key) == Some(PeerState::Complete);
        let are_whole = !parents.is_empty() && parents.iter().all(is_whole);
        self.task.proof.clone().filter(|_| are_whole)
    }

    pub(super) fn tell(&mut self, host: HostKey, down: impl FnOnce(TaskId) -> Down) {
        if let Some(record) = self.hosts.get(host) {
            let host = record.host.id.clone();
            self.commands.push_back(Command {
                host,
                down: down(self.task.id),
            });
        }
    }
}
