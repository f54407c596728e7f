//! Pure: one host that a task can be had from: what it holds, what was asked of it, how fast it is.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use protocol::{PieceIndex, PieceSet};

use super::Limits;

/// What a supplier is to this host, by the scheduler's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// An equal: both give each other what they have.
    Sibling,
    /// One with a way to the source, on whom this host may wait.
    Parent,
}

#[derive(Debug)]
pub(super) struct Supplier {
    pub(super) relation: Relation,
    pub(super) holds: PieceSet,
    pub(super) runs: Vec<Run>,
    /// The smoothed time that a piece takes it, once it has brought one.
    pace: Option<Duration>,
    /// When it last brought something, or was first asked after it had nothing to do.
    moved_at: Instant,
    /// When it last had a word of the task, or brought something.
    pub(super) heard_at: Instant,
    /// It is not asked before this.
    pub(super) rests_until: Option<Instant>,
    /// Requests that it had no slot for, in a row.
    refusals: u32,
    /// How often in a row it was too slow.
    strikes: u32,
}

/// Pieces that were asked for in one request, less those that have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The first piece as it was asked for: what the run is known by.
    pub(super) first: u32,
    pub(super) left: Range<u32>,
}

/// What is to be done with a supplier that brings nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its pieces are asked of others, and it is left alone for a while.
    Rest,
    Leave,
}

// === impl Supplier ===

impl Supplier {
    pub(super) fn new(now: Instant, relation: Relation) -> Self {
        Self {
            relation,
            holds: PieceSet::default(),
            runs: Vec::new(),
            pace: None,
            moved_at: now,
            heard_at: now,
            rests_until: None,
            refusals: 0,
            strikes: 0,
        }
    }

    pub(super) fn begin(&mut self, now: Instant, pieces: Range<u32>) {
        if self.runs.is_empty() {
            self.moved_at = now;
        }
        self.runs.push(Run {
            first: pieces.start,
            left: pieces,
        });
    }

    /// It has brought `piece`, which one of its runs was for.
    pub(super) fn brought(&mut self, now: Instant, piece: PieceIndex) {
        let Some(at) = self.runs.iter().position(|run| run.left.contains(&piece.0)) else {
            return;
        };
        let took = now.saturating_duration_since(self.moved_at);
        self.pace = Some(self.pace.map_or(took, |pace| (pace * 3 + took) / 4));
        self.moved_at = now;
        self.heard_at = now;
        self.refusals = 0;
        self.strikes = 0;
        // Pieces of one run come in order.
        let run = &mut self.runs[at];
        run.left.start = piece.0 + 1;
        if run.left.is_empty() {
            self.runs.remove(at);
        }
    }

    pub(super) fn excuse(&mut self, now: Instant) {
        self.moved_at = now;
    }

    /// Takes the run out that began with `first`.
    pub(super) fn end_run(&mut self, first: u32) -> Option<Run> {
        let at = self.runs.iter().position(|run| run.first == first)?;
        Some(self.runs.remove(at))
    }

    /// It had no slot free; tells whether that was once too often.
    pub(super) fn refused(&mut self, now: Instant, limits: &Limits) -> Verdict {
        let pause = limits.busy_pause * (1 << self.refusals.min(5));
        self.refusals += 1;
        self.rests_until = Some(now + pause);
        match self.refusals < limits.refusals_max {
            true => Verdict::Rest,
            false => Verdict::Leave,
        }
    }

    /// It brought nothing in the time it has; `spare` is the best pace of those who could as well.
    pub(super) fn overdue(
        &mut self,
        now: Instant,
        limits: &Limits,
        spare: Option<Duration>,
    ) -> Option<Verdict> {
        if self.runs.is_empty() {
            return None;
        }
        if self.moved_at + limits.piece_timeout <= now {
            return Some(Verdict::Leave);
        }
        let patience = self.patience(limits, spare?);
        if now < self.moved_at + patience {
            return None;
        }
        self.strikes += 1;
        self.rests_until = Some(now + patience);
        match self.strikes < limits.strikes_max {
            true => Some(Verdict::Rest),
            false => Some(Verdict::Leave),
        }
    }

    /// What [`Supplier::deadline`] is at the least, whatever others could.
    pub(super) fn deadline_min(&self, limits: &Limits) -> Option<Instant> {
        let least = limits.patience_min.min(limits.piece_timeout);
        (!self.runs.is_empty()).then(|| self.moved_at + least)
    }

    /// When [`Supplier::overdue`] is to be asked.
    pub(super) fn deadline(&self, limits: &Limits, spare: Option<Duration>) -> Option<Instant> {
        if self.runs.is_empty() {
            return None;
        }
        let hard = self.moved_at + limits.piece_timeout;
        let soft = spare.map(|spare| self.moved_at + self.patience(limits, spare));
        Some(soft.map_or(hard, |soft| hard.min(soft)))
    }

    /// How long it may bring nothing while others could, the best of them at the pace `spare`:
    /// adapts to what they have shown. `Duration::MAX` is the pace of those that showed nothing.
    fn patience(&self, limits: &Limits, spare: Duration) -> Duration {
        let pace = self.pace.unwrap_or(Duration::MAX).min(spare);
        pace.saturating_mul(8)
            .max(limits.patience_min)
            .min(limits.piece_timeout)
    }

    /// The time that a piece takes it, as far as it has shown that.
    pub(super) fn pace(&self) -> Option<Duration> {
        self.pace
    }

    /// How long one more piece would take, as far as is known.
    pub(super) fn expected(&self) -> Duration {
        let queued: u32 = self.runs.iter().map(|run| run.left.len() as u32).sum();
        self.pace.unwrap_or_default() * (queued + 1)
    }

    /// When a piece that it was asked for is late enough to be asked of another as well, where the
    /// best of all brings one in `best`.
    pub(super) fn hedge_at(&self, limits: &Limits, best: Option<Duration>) -> Instant {
        let pace = best.unwrap_or(limits.hedge_after);
        self.moved_at + (pace * 3).max(limits.hedge_after)
    }

    pub(super) fn has_room(&self, now: Instant, runs_max: usize) -> bool {
        self.runs.len() < runs_max && !self.is_resting(now)
    }

    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }
}
