//! Pure: the hosts that one task can be had from, and which piece is in flight where.
//!
//! Invariant: a piece is in flight at one supplier at most, or at two where the second was asked
//! as a hedge. How rare a piece is counts the suppliers that hold it.

mod late;

use std::{collections::BTreeMap, ops::Range, time::Instant};

use protocol::{HostId, PieceIndex, PieceSet};

use super::{
    Limits, Relation,
    supplier::{Run, Supplier, Verdict},
};

#[derive(Debug, Default)]
pub(super) struct Suppliers {
    by_id: BTreeMap<HostId, Supplier>,
    asked: PieceSet,
    hedged: PieceSet,
    rarity: Vec<u16>,
}

/// One that would bring a piece this many times sooner is waited for.
const FAR_BETTER: u32 = 4;

/// A run that nobody is to wait for any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) supplier: HostId,
    pub(super) first: u32,
}

// === impl Ended ===

impl Ended {
    fn of(supplier: &HostId, run: &Run) -> Self {
        Self {
            supplier: supplier.clone(),
            first: run.first,
        }
    }
}

// === impl Suppliers ===

impl Suppliers {
    /// Adds a supplier; tells whether it is new. One that is known becomes a parent if it is one.
    pub(super) fn join(
        &mut self,
        now: Instant,
        id: &HostId,
        relation: Relation,
        max: usize,
    ) -> bool {
        if let Some(supplier) = self.by_id.get_mut(id) {
            supplier.relation = supplier.relation.max(relation);
            return false;
        }
        if relation == Relation::Sibling && max <= self.by_id.len() {
            return false;
        }
        self.by_id.insert(id.clone(), Supplier::new(now, relation));
        true
    }

    /// Removes a supplier; what it was asked for is needed again.
    pub(super) fn leave(&mut self, id: &HostId) -> bool {
        let Some(supplier) = self.by_id.remove(id) else {
            return false;
        };
        for run in &supplier.runs {
            self.release(run);
        }
        for piece in supplier.holds.iter() {
            self.rarity[piece.0 as usize] -= 1;
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn parents(&self) -> impl Iterator<Item = &HostId> {
        let parents = self
            .by_id
            .iter()
            .filter(|(_, supplier)| supplier.relation == Relation::Parent);
        parents.map(|(id, _)| id)
    }

    pub(super) fn has_parent(&self) -> bool {
        self.by_id
            .values()
            .any(|supplier| supplier.relation == Relation::Parent)
    }

    /// The parents that are asked for nothing, and when each had its last word.
    pub(super) fn idle_parents(&self) -> impl Iterator<Item = (&HostId, Instant)> {
        let idle = self.by_id.iter().filter(|(_, supplier)| {
            supplier.relation == Relation::Parent && supplier.runs.is_empty()
        });
        idle.map(|(id, supplier)| (id, supplier.heard_at))
    }

    /// Whether everybody has said something of what it holds.
    pub(super) fn have_all_told(&self) -> bool {
        self.by_id
            .values()
            .all(|supplier| !supplier.holds.is_empty())
    }

    pub(super) fn holds(&mut self, now: Instant, id: &HostId, pieces: &PieceSet) {
        let Some(supplier) = self.by_id.get_mut(id) else {
            return;
        };
        supplier.heard_at = now;
        for piece in pieces.iter() {
            if supplier.holds.insert(piece) {
                let index = piece.0 as usize;
                if self.rarity.len() <= index {
                    self.rarity.resize(index + 1, 0);
                }
                self.rarity[index] += 1;
            }
        }
    }

    /// Nobody is known to hold anything, and nothing is asked of anybody any more.
    pub(super) fn begin_anew(&mut self, now: Instant) -> Vec<Ended> {
        let mut over = Vec::new();
        for (id, supplier) in &mut self.by_id {
            over.extend(supplier.runs.iter().map(|run| Ended::of(id, run)));
            *supplier = Supplier::new(now, supplier.relation);
        }
        self.asked = PieceSet::default();
        self.hedged = PieceSet::default();
        self.rarity.clear();
        over
    }

    /// How many suppliers hold `piece`.
    pub(super) fn rarity(&self, piece: u32) -> u16 {
        self.rarity.get(piece as usize).copied().unwrap_or(0)
    }

    /// One past the last piece that anybody holds.
    pub(super) fn held_end(&self) -> u32 {
        self.rarity.len() as u32
    }

    /// Notes that `id` is asked for `pieces`; tells what it is to this host.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        id: &HostId,
        pieces: Range<u32>,
    ) -> Option<Relation> {
        let supplier = self.by_id.get_mut(id)?;
        for piece in pieces.clone().map(PieceIndex) {
            if !self.asked.insert(piece) {
                self.hedged.insert(piece);
            }
        }
        supplier.begin(now, pieces);
        Some(supplier.relation)
    }

    /// `piece` is here, brought by `by` or by the source. The runs that were for it, and for nothing
    /// else that is not `had`, are over.
    pub(super) fn arrived(
        &mut self,
        now: Instant,
        (by, piece): (Option<&HostId>, PieceIndex),
        had: &PieceSet,
    ) -> Vec<Ended> {
        if let Some(supplier) = by.and_then(|id| self.by_id.get_mut(id)) {
            supplier.brought(now, piece);
        }
        let was_hedged = self.hedged.remove(piece);
        let was_asked = self.asked.remove(piece);
        if !(was_hedged || was_asked && by.is_none()) {
            return Vec::new();
        }
        let mut over = Vec::new();
        for (id, supplier) in &mut self.by_id {
            let needless =
                |run: &Run| run.left.contains(&piece.0) && had.contains_all(run.left.clone());
            if let Some(at) = supplier.runs.iter().position(needless) {
                over.push(Ended::of(id, &supplier.runs.remove(at)));
            }
        }
        over
    }

    /// The supplier had no slot for the run that began with `first`.
    pub(super) fn refused(
        &mut self,
        now: Instant,
        id: &HostId,
        first: u32,
        limits: &Limits,
    ) -> Option<Verdict> {
        let supplier = self.by_id.get_mut(id)?;
        let run = supplier.end_run(first)?;
        let verdict = supplier.refused(now, limits);
        self.release(&run);
        Some(verdict)
    }

    /// Whoever brought nothing so far begins anew.
    pub(super) fn excuse(&mut self, now: Instant) {
        for supplier in self.by_id.values_mut() {
            supplier.excuse(now);
        }
    }

    pub(super) fn is_asked(&self, piece: u32) -> bool {
        self.asked.contains(PieceIndex(piece))
    }

    /// Whether one more run may be begun somewhere.
    pub(super) fn has_room(&self, now: Instant, limits: &Limits) -> bool {
        let runs: usize = self
            .by_id
            .values()
            .map(|supplier| supplier.runs.len())
            .sum();
        let each = self.runs_each(limits);
        runs < limits.runs_max
            && self
                .by_id
                .values()
                .any(|supplier| supplier.has_room(now, each))
    }

    /// Who is to bring `piece`: of those with room that hold it, the one that will have it soonest;
    /// a sibling before a parent, whose uplink is the way for what nobody else has.
    pub(super) fn best_for(&self, now: Instant, piece: u32, limits: &Limits) -> Option<HostId> {
        let each = self.runs_each(limits);
        let able = |supplier: &Supplier| {
            supplier.has_room(now, each) && supplier.holds.contains(PieceIndex(piece))
        };
        let able = self.by_id.iter().filter(|(_, supplier)| able(supplier));
        let (id, chosen) = able.min_by_key(|(_, supplier)| {
            (supplier.expected(), supplier.runs.len(), supplier.relation)
        })?;
        // Rather a while later from one that is busy than much later from one that is slow.
        let is_far_better = |other: &Supplier| {
            other.pace().is_some()
                && !other.is_resting(now)
                && other.holds.contains(PieceIndex(piece))
                && other.expected() * FAR_BETTER < chosen.expected()
        };
        (!self.by_id.values().any(is_far_better)).then(|| id.clone())
    }

    /// The pieces that some supplier with room holds.
    pub(super) fn open_pieces(&self, now: Instant, limits: &Limits) -> PieceSet {
        let each = self.runs_each(limits);
        let mut open = PieceSet::default();
        for supplier in self.by_id.values() {
            if supplier.has_room(now, each) {
                open.union(&supplier.holds);
            }
        }
        open
    }

    /// Where a run over `pieces` ends: at what the supplier lacks, or is had, or asked already.
    pub(super) fn run_end(&self, id: &HostId, pieces: Range<u32>, had: &PieceSet) -> u32 {
        let fits = |supplier: &Supplier, index: u32| {
            let piece = PieceIndex(index);
            supplier.holds.contains(piece) && !had.contains(piece) && !self.asked.contains(piece)
        };
        let lacks = |supplier: &Supplier| {
            (pieces.start + 1..pieces.end).find(|index| !fits(supplier, *index))
        };
        let supplier = self.by_id.get(id);
        supplier.and_then(lacks).unwrap_or(pieces.end)
    }

    /// What one run may take of the whole: few suppliers get several, many get one each.
    fn runs_each(&self, limits: &Limits) -> usize {
        (limits.runs_max / self.by_id.len().max(1)).clamp(1, limits.runs_per_supplier)
    }

    fn release(&mut self, run: &Run) {
        for piece in run.left.clone().map(PieceIndex) {
            if !self.hedged.remove(piece) {
                self.asked.remove(piece);
            }
        }
    }
}
