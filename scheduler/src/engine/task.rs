//! Pure: one task, its peers, and the graph from parent to child between them.
//!
//! Invariants: an edge is known at both of its ends; a peer is in the queue of the waiting exactly
//! while its state says so, and among the suppliers exactly while it can give pieces.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use protocol::{HostId, Origin, Proof, TaskId, Want, want::WANTS_MAX};

use super::{
    hosts::HostKey,
    peer::{Exclusion, Peer, PeerState, Supply},
    phase::Phase,
    spoiled::Spoiled,
};

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: TaskId,
    /// Where the first peer that registered wants it from.
    pub(super) origin: Option<Origin>,
    /// What those who registered since it was last had want of it; nothing where they want it all.
    pub(super) wants: Option<Vec<Want>>,
    pub(super) phase: Phase,
    /// Fetchers lost since the last success.
    pub(super) attempts: u32,
    /// The last host that had the grant and is no seed, if it brought the task in.
    pub(super) signer: Option<HostId>,
    pub(super) total: Option<u32>,
    pub(super) failed_fetchers: Vec<Exclusion>,
    /// Until when no seed is sent: the upstream has refused one, which asks with no credential.
    pub(super) refused_until: Option<Instant>,
    pub(super) spoiled: Spoiled,
    /// For a content of one piece, what its holders say proves it.
    pub(super) proof: Option<Arc<Proof>>,
    /// When something was last heard of the task.
    pub(super) touched_at: Instant,
    /// When one of the waiting may go to an upstream that failed.
    pub(super) alone_at: Option<Instant>,
    /// When the waiting are looked at next.
    pub(super) retry_at: Option<Instant>,
    /// When the engine's timer looks at the task.
    pub(super) wake_at: Option<Instant>,
    peers: BTreeMap<HostKey, Peer>,
    waiting: BTreeMap<u64, HostKey>,
    suppliers: BTreeSet<HostKey>,
    complete: usize,
    next_place: u64,
    /// Where the last search for candidates stopped.
    cursor: Option<HostKey>,
    /// The last peer that was offered a further parent.
    offered: Option<HostKey>,
}

// === impl Task ===

impl Task {
    pub(super) fn new(now: Instant, id: TaskId) -> Self {
        Self {
            id,
            origin: None,
            wants: None,
            phase: Phase::Quiet,
            attempts: 0,
            signer: None,
            total: None,
            failed_fetchers: Vec::new(),
            refused_until: None,
            spoiled: Spoiled::default(),
            proof: None,
            touched_at: now,
            alone_at: None,
            retry_at: None,
            wake_at: None,
            peers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            suppliers: BTreeSet::new(),
            complete: 0,
            next_place: 0,
            cursor: None,
            offered: None,
        }
    }

    /// Somebody wants `wants` of it, or all of it where that is nothing.
    pub(super) fn want(&mut self, wants: Vec<Want>) {
        let Some(known) = &mut self.wants else {
            self.wants = Some(wants);
            return;
        };
        if known.is_empty() {
            return;
        }
        let is_all = wants.is_empty() || WANTS_MAX < known.len() + wants.len();
        if is_all {
            known.clear();
        } else {
            known.extend(wants);
        }
    }

    pub(super) fn peer(&self, key: HostKey) -> Option<&Peer> {
        self.peers.get(&key)
    }

    pub(super) fn peer_mut(&mut self, key: HostKey) -> Option<&mut Peer> {
        self.peers.get_mut(&key)
    }

    pub(super) fn state(&self, key: HostKey) -> Option<PeerState> {
        self.peers.get(&key).map(|peer| peer.state)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = (HostKey, &Peer)> {
        self.peers.iter().map(|(key, peer)| (*key, peer))
    }

    pub(super) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// The waiting, longest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = HostKey> {
        self.waiting.values().copied()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The first in the queue at or after `place` and before `end`.
    pub(super) fn waiting_from(&self, place: u64, end: u64) -> Option<(u64, HostKey)> {
        self.waiting
            .range(place..end)
            .next()
            .map(|(place, key)| (*place, *key))
    }

    /// One past the last place in the queue.
    pub(super) fn queue_end(&self) -> u64 {
        self.next_place
    }

    /// Whether somebody holds the whole.
    pub(super) fn has_complete(&self) -> bool {
        self.complete != 0
    }

    /// Whether a peer is left that does not hold the whole.
    pub(super) fn has_unfinished(&self) -> bool {
        self.complete < self.peers.len()
    }

    /// Adds a peer that waits at the end of the queue.
    pub(super) fn insert_waiting(&mut self, now: Instant, key: HostKey) {
        let state = self.place_at_end(key, now, now);
        self.peers.insert(key, Peer::new(state));
    }

    pub(super) fn insert_complete(&mut self, key: HostKey) {
        self.peers.insert(key, Peer::new(PeerState::Complete));
        self.suppliers.insert(key);
        self.complete += 1;
    }

    /// Takes a peer out that has no edges any more.
    pub(super) fn remove(&mut self, key: HostKey) {
        self.leave_queue(key);
        self.suppliers.remove(&key);
        if let Some(peer) = self.peers.remove(&key) {
            self.complete -= usize::from(peer.state == PeerState::Complete);
        }
    }

    /// Makes `key` wait: at the end of the queue, from `now` on if it did not wait yet.
    pub(super) fn set_waiting(&mut self, now: Instant, key: HostKey) {
        let (since, renew_at) = match self.state(key) {
            Some(PeerState::Waiting {
                since, renew_at, ..
            }) => (since, renew_at),
            Some(PeerState::Fed | PeerState::AtSource | PeerState::Complete) => (now, now),
            None => return,
        };
        self.leave_queue(key);
        self.suppliers.remove(&key);
        let state = self.place_at_end(key, since, renew_at);
        self.set_state(key, state);
    }

    /// Makes `key` one that gives pieces.
    pub(super) fn set_supplying(&mut self, key: HostKey, supply: Supply) {
        self.leave_queue(key);
        let state = match supply {
            Supply::Fed => PeerState::Fed,
            Supply::AtSource => PeerState::AtSource,
            Supply::Complete => PeerState::Complete,
        };
        self.set_state(key, state);
        self.suppliers.insert(key);
    }

    pub(super) fn set_renew_at(&mut self, key: HostKey, at: Instant) {
        if let Some(peer) = self.peers.get_mut(&key)
            && let PeerState::Waiting { renew_at, .. } = &mut peer.state
        {
            *renew_at = at;
        }
    }

    /// Draws an edge. The caller has seen to it that it closes no cycle.
    pub(super) fn link(&mut self, parent: HostKey, child: HostKey) {
        let depth = self.peers.get(&parent).map_or(0, |peer| peer.depth) + 1;
        if let Some(peer) = self.peers.get_mut(&parent) {
            peer.children.push(child);
        }
        if let Some(peer) = self.peers.get_mut(&child) {
            peer.depth = if peer.parents.is_empty() {
                depth
            } else {
                peer.depth.min(depth)
            };
            peer.parents.push(parent);
        }
    }

    /// Takes an edge away; tells whether it was there.
    pub(super) fn unlink(&mut self, parent: HostKey, child: HostKey) -> bool {
        if let Some(peer) = self.peers.get_mut(&parent) {
            peer.children.retain(|key| *key != child);
        }
        let Some(peer) = self.peers.get_mut(&child) else {
            return false;
        };
        let before = peer.parents.len();
        peer.parents.retain(|key| *key != parent);
        peer.parents.len() < before
    }

    /// Makes siblings of two peers.
    pub(super) fn pair(&mut self, one: HostKey, other: HostKey) {
        for (host, sibling) in [(one, other), (other, one)] {
            if let Some(peer) = self.peers.get_mut(&host)
                && !peer.siblings.contains(&sibling)
            {
                peer.siblings.push(sibling);
            }
        }
    }

    /// Undoes [`Task::pair`]; tells whether they were siblings.
    pub(super) fn unpair(&mut self, one: HostKey, other: HostKey) -> bool {
        let mut were_pair = false;
        for (host, sibling) in [(one, other), (other, one)] {
            if let Some(peer) = self.peers.get_mut(&host) {
                let before = peer.siblings.len();
                peer.siblings.retain(|key| *key != sibling);
                were_pair |= peer.siblings.len() < before;
            }
        }
        were_pair
    }

    pub(super) fn siblings(&self, key: HostKey) -> &[HostKey] {
        self.peers.get(&key).map_or(&[], |peer| &peer.siblings)
    }

    /// A peer that has become a source is one hop from each of its children.
    pub(super) fn set_rooted(&mut self, key: HostKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.depth = 0;
        for child in peer.children.clone() {
            if let Some(child) = self.peers.get_mut(&child) {
                child.depth = 1;
            }
        }
    }

    /// Everybody that gets pieces from `key`, by however many hops.
    pub(super) fn descendants(&self, key: HostKey) -> BTreeSet<HostKey> {
        let mut found = BTreeSet::new();
        let mut open = vec![key];
        while let Some(next) = open.pop() {
            for child in self.peers.get(&next).map_or(&[][..], |peer| &peer.children) {
                if found.insert(*child) {
                    open.push(*child);
                }
            }
        }
        found
    }

    /// Up to `count` suppliers, the fetcher first, the others in turn from call to call.
    pub(super) fn next_suppliers(&mut self, count: usize) -> Vec<HostKey> {
        let fetcher = self.fetcher();
        let start = self.cursor.unwrap_or(HostKey::MIN);
        let after = self.suppliers.range(start..);
        let before = self.suppliers.range(..start);
        let others = after
            .chain(before)
            .copied()
            .filter(|key| Some(*key) != fetcher);
        let known_fetcher = fetcher.filter(|key| self.suppliers.contains(key));
        let found: Vec<HostKey> = known_fetcher
            .into_iter()
            .chain(others)
            .take(count)
            .collect();
        self.cursor = found.last().copied();
        found
    }

    /// Up to `count` of the peers that have parents, in turn from call to call.
    pub(super) fn next_fed(&mut self, count: usize) -> Vec<HostKey> {
        let start = self.offered.unwrap_or(HostKey::MIN);
        let is_fed = |key: &HostKey| self.state(*key) == Some(PeerState::Fed);
        let after = self
            .suppliers
            .range((Bound::Excluded(start), Bound::Unbounded));
        let before = self.suppliers.range(..=start);
        let found = after.chain(before).copied().filter(is_fed);
        let found: Vec<HostKey> = found.take(count).collect();
        self.offered = found.last().copied();
        found
    }

    pub(super) fn suppliers(&self) -> impl Iterator<Item = HostKey> {
        self.suppliers.iter().copied()
    }

    pub(super) fn supplier_count(&self) -> usize {
        self.suppliers.len()
    }

    /// The holder of the grant.
    pub(super) fn fetcher(&self) -> Option<HostKey> {
        match self.phase {
            Phase::Fetching { fetcher, .. } => Some(fetcher),
            Phase::Quiet
            | Phase::Settling { .. }
            | Phase::Warming { .. }
            | Phase::Failed { .. } => None,
        }
    }

    /// Who is to bring it in, granted or asked to warm.
    pub(super) fn source_host(&self) -> Option<HostKey> {
        match self.phase {
            Phase::Fetching { fetcher: host, .. } | Phase::Warming { seed: host, .. } => Some(host),
            Phase::Quiet | Phase::Settling { .. } | Phase::Failed { .. } => None,
        }
    }

    fn place_at_end(&mut self, key: HostKey, since: Instant, renew_at: Instant) -> PeerState {
        let place = self.next_place;
        self.next_place += 1;
        self.waiting.insert(place, key);
        PeerState::Waiting {
            place,
            since,
            renew_at,
        }
    }

    fn leave_queue(&mut self, key: HostKey) {
        if let Some(PeerState::Waiting { place, .. }) = self.state(key) {
            self.waiting.remove(&place);
        }
    }

    fn set_state(&mut self, key: HostKey, state: PeerState) {
        if let Some(peer) = self.peers.get_mut(&key) {
            self.complete -= usize::from(peer.state == PeerState::Complete);
            self.complete += usize::from(state == PeerState::Complete);
            peer.state = state;
        }
    }
}
