//! Pure: the requests under way at the source, none over a piece of another.

use std::collections::BTreeMap;

use protocol::{PieceIndex, PieceSet};

use super::RunId;

#[derive(Debug, Default)]
pub(super) struct SourceRuns {
    next_id: u32,
    by_id: BTreeMap<RunId, Run>,
}

/// A request for the pieces from `next` up to `end`; `next` moves as they come.
#[derive(Debug)]
struct Run {
    next: u32,
    end: u32,
}

// === impl SourceRuns ===

impl SourceRuns {
    /// Begins a run. A run under way that would come to `first` ends there.
    pub(super) fn begin(&mut self, first: u32, end: u32) -> RunId {
        for run in self.by_id.values_mut() {
            if run.next < first && first < run.end {
                run.end = first;
            }
        }
        let id = RunId(self.next_id);
        self.next_id += 1;
        self.by_id.insert(id, Run { next: first, end });
        id
    }

    pub(super) fn ended(&mut self, id: RunId) {
        self.by_id.remove(&id);
    }

    pub(super) fn arrived(&mut self, piece: PieceIndex) {
        for run in self.by_id.values_mut() {
            if run.next == piece.0 {
                run.next += 1;
            }
        }
    }

    /// Whether a run will come to `piece` within `soon` pieces.
    pub(super) fn reaches(&self, piece: u32, soon: u32) -> bool {
        self.by_id
            .values()
            .any(|run| run.next <= piece && piece < run.end && piece - run.next <= soon)
    }

    /// Where a run from `first` must end so that it does not cover what another has begun.
    pub(super) fn gap_end(&self, first: u32, end: u32) -> u32 {
        let ahead = self
            .by_id
            .values()
            .map(|run| run.next)
            .filter(|next| first < *next);
        ahead.fold(end, u32::min)
    }

    /// Takes out the runs that have nothing left to bring.
    pub(super) fn take_done(&mut self, had: &PieceSet) -> Vec<RunId> {
        let is_done = |run: &Run| run.next >= run.end || had.contains(PieceIndex(run.next));
        let done: Vec<RunId> = self
            .by_id
            .iter()
            .filter(|(_, run)| is_done(run))
            .map(|(id, _)| *id)
            .collect();
        for id in &done {
            self.by_id.remove(id);
        }
        done
    }

    /// Takes out all of them.
    pub(super) fn take_all(&mut self) -> Vec<RunId> {
        let all = std::mem::take(&mut self.by_id);
        all.into_keys().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether no two of them cover one piece.
    #[cfg(test)]
    pub(super) fn are_apart(&self) -> bool {
        let mut spans: Vec<_> = self.by_id.values().map(|run| (run.next, run.end)).collect();
        spans.sort_unstable();
        spans.windows(2).all(|pair| pair[0].1 <= pair[1].0)
    }
}
