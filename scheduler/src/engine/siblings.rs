//! Pure: who exchanges pieces with whom, beside the graph from parents to children.
//!
//! The graph gives everybody a way to a source; siblings keep every uplink busy. Pairs form a graph
//! of bounded degree that grows at its middle: where those whom a newcomer meets have siblings
//! enough, it is put between two of them, so that no host is many hops from any other, however late
//! it came.

use protocol::Candidate;

use super::{
    hosts::{HostKey, HostState},
    peer::{Exclusion, PeerState},
    turn::Turn,
};

// === impl Turn ===

impl Turn<'_> {
    /// Gives `host` siblings, as many as it may have and there are.
    pub(super) fn pair_up(&mut self, host: HostKey) {
        if self.has_siblings(host) {
            return;
        }
        let met = self
            .task
            .next_suppliers(self.limits.candidates_examined_max);
        let met: Vec<HostKey> = met
            .into_iter()
            .filter(|other| self.may_pair(host, *other))
            .collect();
        // Neighbours in the list came one after another: those far apart are better.
        let stride = met.len().div_ceil(self.limits.siblings_max.max(1)).max(1);
        for start in 0..stride {
            for other in met.iter().skip(start).step_by(stride) {
                if self.has_siblings(host) {
                    return;
                }
                self.meet(host, *other);
            }
        }
    }

    /// Cuts the pair of `host` with `other`; both may look for another.
    pub(super) fn unpair(&mut self, host: HostKey, other: HostKey) -> bool {
        let were_pair = self.task.unpair(host, other);
        if were_pair {
            self.lonely.extend([host, other]);
        }
        were_pair
    }

    pub(super) fn unpair_all(&mut self, host: HostKey) {
        for other in self.task.siblings(host).to_vec() {
            self.unpair(host, other);
        }
    }

    /// Finds siblings for those who have lost some. Those who fetch nothing need none.
    pub(super) fn comfort_lonely(&mut self) {
        for host in std::mem::take(&mut self.lonely) {
            if self.task.state(host) == Some(PeerState::Fed) {
                self.pair_up(host);
            }
        }
    }

    pub(super) fn sibling_candidates(&self, host: HostKey) -> Vec<Candidate> {
        let hosts = self
            .task
            .siblings(host)
            .iter()
            .filter_map(|key| self.hosts.get(*key));
        hosts
            .map(|record| Candidate {
                host: record.host.clone(),
            })
            .collect()
    }

    fn meet(&mut self, host: HostKey, other: HostKey) {
        if self.task.siblings(other).len() < self.limits.siblings_max {
            return self.join_pair(host, other);
        }
        let own = self.task.siblings(host);
        let mut theirs = self.task.siblings(other).iter();
        let between = theirs.find(|third| !own.contains(third) && self.may_pair(host, **third));
        if let Some(third) = between.copied() {
            self.task.unpair(other, third);
            self.join_pair(host, other);
            self.join_pair(host, third);
        }
    }

    fn join_pair(&mut self, one: HostKey, other: HostKey) {
        self.task.pair(one, other);
        self.outdated.extend([one, other]);
    }

    fn has_siblings(&self, host: HostKey) -> bool {
        // One short of the bound still has room to be put between two others.
        self.limits.siblings_max <= self.task.siblings(host).len() + 1
            && self.limits.siblings_max != 1
            || self.limits.siblings_max <= self.task.siblings(host).len()
    }

    fn may_pair(&self, host: HostKey, other: HostKey) -> bool {
        let (Some(one), Some(two)) = (self.task.peer(host), self.task.peer(other)) else {
            return false;
        };
        let Some(record) = self.hosts.get(other) else {
            return false;
        };
        // Whoever is at the source has its uplink for what nobody else has.
        let exchanges = match two.state {
            PeerState::Fed | PeerState::Complete => self.task.source_host() != Some(other),
            PeerState::Waiting { .. } | PeerState::AtSource => false,
        };
        host != other
            && exchanges
            && record.upload_slots != 0
            && record.state(self.now, self.limits.host_silence) == HostState::Live
            && !self.hosts.is_banned(other, self.now)
            && !one.siblings.contains(&other)
            && !Exclusion::holds(&one.excluded, other, self.now)
            && !Exclusion::holds(&two.excluded, host, self.now)
    }
}
