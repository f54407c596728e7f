//! Pure: the parents of one task, what they hold and what was asked of them.

use std::{collections::BTreeMap, ops::Range, time::Instant};

use protocol::{HostId, PieceIndex, PieceSet};

#[derive(Debug, Default)]
pub(super) struct Parents {
    by_id: BTreeMap<HostId, Parent>,
    in_flight: PieceSet,
}

#[derive(Debug)]
struct Parent {
    holds: PieceSet,
    runs: Vec<Range<u32>>,
    /// When it is given up unless something comes.
    deadline: Instant,
}

// === impl Parents ===

impl Parents {
    /// Adds a parent; tells whether it is new.
    pub(super) fn join(&mut self, id: HostId, deadline: Instant) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        let parent = Parent {
            holds: PieceSet::default(),
            runs: Vec::new(),
            deadline,
        };
        self.by_id.insert(id, parent);
        true
    }

    /// Removes a parent; what it was asked for is needed again.
    pub(super) fn leave(&mut self, id: &HostId) -> bool {
        let Some(parent) = self.by_id.remove(id) else {
            return false;
        };
        for index in parent.runs.into_iter().flatten() {
            self.in_flight.remove(PieceIndex(index));
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn holds(&mut self, now: Instant, id: &HostId, pieces: &PieceSet) {
        if let Some(parent) = self.by_id.get_mut(id) {
            parent.holds.union(pieces);
            // It moves: what it does not have yet is not its fault.
            parent.deadline = parent.deadline.max(now);
        }
    }

    pub(super) fn begin(&mut self, id: &HostId, run: Range<u32>, deadline: Instant) {
        if let Some(parent) = self.by_id.get_mut(id) {
            if parent.runs.is_empty() {
                parent.deadline = deadline;
            }
            self.in_flight.union(&PieceSet::of_range(run.clone()));
            parent.runs.push(run);
        }
    }

    pub(super) fn arrived(&mut self, piece: PieceIndex, deadline: Instant) {
        if !self.in_flight.remove(piece) {
            return;
        }
        for parent in self.by_id.values_mut() {
            let Some(at) = parent.runs.iter().position(|run| run.contains(&piece.0)) else {
                continue;
            };
            parent.deadline = deadline;
            let run = &parent.runs[at];
            // Pieces of one run come in order.
            match piece.0 + 1 == run.end {
                true => drop(parent.runs.remove(at)),
                false => parent.runs[at].start = piece.0 + 1,
            }
        }
    }

    pub(super) fn in_flight(&self, piece: PieceIndex) -> bool {
        self.in_flight.contains(piece)
    }

    pub(super) fn has_room(&self, runs_max: usize) -> bool {
        self.by_id
            .values()
            .any(|parent| parent.runs.len() < runs_max)
    }

    /// The least busy parent with room that holds `piece`.
    pub(super) fn best_for(&self, piece: PieceIndex, runs_max: usize) -> Option<HostId> {
        let able = |parent: &Parent| parent.runs.len() < runs_max && parent.holds.contains(piece);
        let candidates = self.by_id.iter().filter(|(_, parent)| able(parent));
        candidates
            .min_by_key(|(_, parent)| parent.runs.len())
            .map(|(id, _)| id.clone())
    }

    /// Where a run from `first` ends: at what the parent lacks, or is had, or asked of another.
    pub(super) fn run_end(&self, id: &HostId, first: u32, length_max: u32, had: &PieceSet) -> u32 {
        let Some(parent) = self.by_id.get(id) else {
            return first + 1;
        };
        let fits = |index: u32| {
            let piece = PieceIndex(index);
            parent.holds.contains(piece) && !had.contains(piece) && !self.in_flight(piece)
        };
        (first + 1..first + length_max)
            .find(|index| !fits(*index))
            .unwrap_or(first + length_max)
    }

    /// Parents whose time is up: something was asked of them and nothing came.
    pub(super) fn overdue(&self, now: Instant) -> Vec<HostId> {
        let late = |parent: &Parent| !parent.idle() && parent.deadline <= now;
        self.by_id
            .iter()
            .filter(|(_, parent)| late(parent))
            .map(|(id, _)| id.clone())
            .collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_id
            .values()
            .filter(|parent| !parent.idle())
            .map(|parent| parent.deadline)
            .min()
    }
}

// === impl Parent ===

impl Parent {
    /// A parent that has said what it holds and was asked for nothing owes nothing.
    fn idle(&self) -> bool {
        self.runs.is_empty()
    }
}
