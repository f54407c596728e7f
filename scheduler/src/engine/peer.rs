//! Pure: one host's part in one task, and whom it may not use.
//!
//! Edges and queues are kept by [`super::task`], which sees both ends of them.

use std::time::Instant;

use protocol::AttemptId;

use super::hosts::HostKey;

/// One host's part in one task.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) state: PeerState,
    pub(super) attempt: AttemptId,
    pub(super) pieces: u32,
    /// Hops to a source by the shortest way known when the parents were given.
    pub(super) depth: u16,
    pub(super) parents: Vec<HostKey>,
    pub(super) children: Vec<HostKey>,
    pub(super) siblings: Vec<HostKey>,
    pub(super) excluded: Vec<Exclusion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerState {
    /// It was told to wait. `place` is its place in the queue.
    Waiting {
        place: u64,
        since: Instant,
        renew_at: Instant,
    },
    /// It has parents.
    Fed,
    /// It has the grant.
    AtSource,
    /// It holds the whole.
    Complete,
}

/// How a peer can give pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supply {
    Fed,
    AtSource,
    Complete,
}

/// A host that is not to be used before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exclusion {
    pub(super) host: HostKey,
    pub(super) until: Instant,
}

// === impl Peer ===

impl Peer {
    pub(super) fn new(state: PeerState) -> Self {
        Self {
            state,
            attempt: AttemptId(0),
            pieces: 0,
            depth: 0,
            parents: Vec::new(),
            children: Vec::new(),
            siblings: Vec::new(),
            excluded: Vec::new(),
        }
    }
}

// === impl PeerState ===

impl PeerState {
    /// As status shows it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Fed => "fed",
            Self::AtSource => "at-source",
            Self::Complete => "complete",
        }
    }
}

// === impl Exclusion ===

impl Exclusion {
    /// Whether `list` forbids `host` now.
    pub(super) fn holds(list: &[Self], host: HostKey, now: Instant) -> bool {
        list.iter()
            .any(|entry| entry.host == host && now < entry.until)
    }

    /// Adds to `list`, which keeps its `max` newest entries.
    pub(super) fn add(list: &mut Vec<Self>, entry: Self, max: usize) {
        list.retain(|known| known.host != entry.host);
        list.push(entry);
        if max < list.len() {
            list.remove(0);
        }
    }
}
