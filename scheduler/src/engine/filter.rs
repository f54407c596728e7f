//! Pure: who can be a parent of a child, and by which rule somebody cannot.
//!
//! It reads and never changes anything. How good those are that remain is
//! [`super::evaluator`]'s to say.

use std::{collections::BTreeSet, time::Instant};

use protocol::Candidate;

use super::{
    Limits,
    evaluator::Score,
    hosts::{HostKey, HostRecord, HostState, Hosts},
    peer::{Exclusion, PeerState},
    task::Task,
};

/// Why a host is not given to a child as a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is the child's own host.
    Itself,
    /// It has no session, or was not heard for long.
    NotAlive,
    /// Others have caught it lying.
    Banned,
    /// It neither has pieces nor is getting any.
    NothingToGive,
    /// The child could not use it a short while ago.
    FailedForChild,
    /// It has no upload slot at all.
    ServesNobody,
    /// It gets its own pieces from the child.
    Cycle,
    /// It is too many hops from a source.
    TooDeep,
    /// All of its upload slots are taken, and what is reserved for the task too.
    NoFreeSlot,
}

/// Why no parent was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// There are some, with no room just now.
    Busy,
    /// Of those there are, some could if they did not get their own pieces from it.
    Circle,
    Nobody,
}

/// The search for parents of one child.
#[derive(Debug)]
pub(super) struct Filter<'a> {
    pub(super) now: Instant,
    pub(super) limits: &'a Limits,
    pub(super) hosts: &'a Hosts,
    pub(super) task: &'a Task,
    child: HostKey,
    descendants: BTreeSet<HostKey>,
}

// === impl Refusal ===

impl Refusal {
    /// Whether it passes by itself, so that waiting for this candidate is of use.
    pub(super) fn is_passing(self) -> bool {
        match self {
            Self::TooDeep | Self::NoFreeSlot => true,
            Self::Itself
            | Self::NotAlive
            | Self::Banned
            | Self::NothingToGive
            | Self::FailedForChild
            | Self::ServesNobody
            | Self::Cycle => false,
        }
    }
}

// === impl Filter ===

impl<'a> Filter<'a> {
    pub(super) fn new(
        now: Instant,
        limits: &'a Limits,
        hosts: &'a Hosts,
        task: &'a Task,
        child: HostKey,
    ) -> Self {
        Self {
            now,
            limits,
            hosts,
            task,
            child,
            descendants: task.descendants(child),
        }
    }

    /// The score of `candidate`, or why it is refused. The refusals that pass come last, so that
    /// nobody waits for a slot that it could not use.
    pub(super) fn judge(&self, candidate: HostKey) -> Result<Score, Refusal> {
        if candidate == self.child {
            return Err(Refusal::Itself);
        }
        let host = self.hosts.get(candidate).ok_or(Refusal::NotAlive)?;
        if host.state(self.now, self.limits.host_silence) == HostState::Silent {
            return Err(Refusal::NotAlive);
        }
        if self.hosts.is_banned(candidate, self.now) {
            return Err(Refusal::Banned);
        }
        let peer = self.task.peer(candidate).ok_or(Refusal::NothingToGive)?;
        match peer.state {
            PeerState::Waiting { .. } => return Err(Refusal::NothingToGive),
            PeerState::Fed | PeerState::AtSource | PeerState::Complete => {}
        }
        if self.is_excluded(candidate) {
            return Err(Refusal::FailedForChild);
        }
        if host.upload_slots == 0 {
            return Err(Refusal::ServesNobody);
        }
        if self.descendants.contains(&candidate) {
            return Err(Refusal::Cycle);
        }
        if self.limits.depth_max <= peer.depth {
            return Err(Refusal::TooDeep);
        }
        let has_reserve = peer.children.len() < self.limits.reserved_children;
        if host.free_slots() == 0 && !has_reserve {
            return Err(Refusal::NoFreeSlot);
        }
        Ok(Score::of(self.task, peer, host, self.hosts.get(self.child)))
    }

    /// Whom of `examined` to add to the parents that the child has. Parents after the first are a
    /// luxury, taken only from hosts with slots to spare.
    pub(super) fn choose(
        &self,
        examined: &[HostKey],
        known: &[HostKey],
    ) -> Result<Vec<HostKey>, Lack> {
        let mut found = Vec::new();
        let mut busy = examined.len() < self.task.supplier_count();
        let mut circle = false;
        for candidate in examined
            .iter()
            .filter(|candidate| !known.contains(candidate))
        {
            match self.judge(*candidate) {
                Ok(score) => found.push((score.total(), *candidate)),
                Err(refusal) => {
                    busy |= refusal.is_passing();
                    circle |= refusal == Refusal::Cycle;
                }
            }
        }
        sort_best_first(&mut found);
        let mut chosen = Vec::new();
        for (_, candidate) in found {
            if self.limits.parents_max <= known.len() + chosen.len() {
                break;
            }
            let is_first = known.is_empty() && chosen.is_empty();
            if is_first
                || self
                    .hosts
                    .get(candidate)
                    .is_some_and(HostRecord::has_spare_slots)
            {
                chosen.push(candidate);
            }
        }
        match chosen.is_empty() {
            false => Ok(chosen),
            true if busy => Err(Lack::Busy),
            true if circle => Err(Lack::Circle),
            true => Err(Lack::Nobody),
        }
    }

    fn is_excluded(&self, candidate: HostKey) -> bool {
        let child = self.task.peer(self.child);
        child.is_some_and(|child| Exclusion::holds(&child.excluded, candidate, self.now))
    }
}

/// The parents of `child` as it is told them.
pub(super) fn best_first(hosts: &Hosts, task: &Task, child: HostKey) -> Vec<Candidate> {
    let Some(peer) = task.peer(child) else {
        return Vec::new();
    };
    let score = |parent: &HostKey| {
        let score = Score::of(
            task,
            task.peer(*parent)?,
            hosts.get(*parent)?,
            hosts.get(child),
        );
        Some((score.total(), *parent))
    };
    let mut scored: Vec<_> = peer.parents.iter().filter_map(score).collect();
    sort_best_first(&mut scored);
    let candidate = |(_, parent)| {
        hosts.get(parent).map(|host| Candidate {
            host: host.host.clone(),
        })
    };
    scored.into_iter().filter_map(candidate).collect()
}

/// Best first; of equals, the host that is here longest.
fn sort_best_first(scored: &mut [(f64, HostKey)]) {
    scored.sort_by(|(one, one_key), (other, other_key)| {
        other.total_cmp(one).then_with(|| one_key.cmp(other_key))
    });
}
