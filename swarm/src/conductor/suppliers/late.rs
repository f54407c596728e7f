//! Pure: suppliers that bring nothing in their time, and who is asked in their place.

use std::time::{Duration, Instant};

use protocol::{HostId, PieceIndex, PieceSet};

use super::{
    super::{
        Limits,
        supplier::{Supplier, Verdict},
    },
    Ended, Suppliers,
};

impl Suppliers {
    /// The suppliers that brought nothing in their time, and what becomes of each. The runs of
    /// those that rest are over.
    pub(in crate::conductor) fn overdue(
        &mut self,
        now: Instant,
        limits: &Limits,
    ) -> (Vec<HostId>, Vec<Ended>) {
        let (mut leave, mut over) = (Vec::new(), Vec::new());
        let ids: Vec<HostId> = self.by_id.keys().cloned().collect();
        for id in ids {
            let spare = self.spare(now, &id);
            let Some(supplier) = self.by_id.get_mut(&id) else {
                continue;
            };
            match supplier.overdue(now, limits, spare) {
                None => {}
                Some(Verdict::Leave) => leave.push(id),
                Some(Verdict::Rest) => {
                    for run in std::mem::take(&mut supplier.runs) {
                        self.release(&run);
                        over.push(Ended::of(&id, &run));
                    }
                }
            }
        }
        (leave, over)
    }

    /// When the first of them is overdue or has rested.
    pub(in crate::conductor) fn next_deadline(
        &self,
        now: Instant,
        limits: &Limits,
    ) -> Option<Instant> {
        let rests = self
            .by_id
            .values()
            .filter_map(|supplier| supplier.rests_until.filter(|until| now < *until));
        let mut next = rests.min();
        for (id, supplier) in &self.by_id {
            // What others could bring is not looked at where it changes nothing.
            let earliest = supplier.deadline_min(limits);
            if earliest.is_none_or(|at| next.is_some_and(|next| next <= at)) {
                continue;
            }
            let deadline = supplier.deadline(limits, self.spare(now, id));
            next = next.into_iter().chain(deadline).min();
        }
        next
    }

    /// Whether one more piece may be asked of two.
    pub(in crate::conductor) fn may_hedge(&self, limits: &Limits) -> bool {
        1 < self.by_id.len()
            && !self.asked.is_empty()
            && (self.hedged.len() as usize) < limits.hedges_max
    }

    /// A piece that is late, and an idle supplier that could bring it as well.
    pub(in crate::conductor) fn hedge(
        &self,
        now: Instant,
        had: &PieceSet,
        limits: &Limits,
    ) -> Option<(HostId, u32)> {
        let best = self.best_pace();
        let late = self
            .by_id
            .iter()
            .filter(|(_, supplier)| supplier.hedge_at(limits, best) <= now);
        let pieces = late.flat_map(|(id, supplier)| {
            let left = supplier.runs.iter().flat_map(|run| run.left.clone());
            left.map(move |piece| (id, piece))
        });
        // Of a run that is late, others may have brought some.
        let mut open = pieces.filter(|(_, piece)| {
            let piece = PieceIndex(*piece);
            !self.hedged.contains(piece) && !had.contains(piece)
        });
        open.find_map(|(owner, piece)| {
            let other = self.by_id.iter().find(|(id, supplier)| {
                *id != owner
                    && supplier.runs.is_empty()
                    && !supplier.is_resting(now)
                    && supplier.holds.contains(PieceIndex(piece))
            });
            other.map(|(id, _)| (id.clone(), piece))
        })
    }

    /// When the next piece is late enough to be hedged.
    pub(in crate::conductor) fn next_hedge(
        &self,
        now: Instant,
        limits: &Limits,
    ) -> Option<Instant> {
        let busy = self
            .by_id
            .values()
            .filter(|supplier| !supplier.runs.is_empty());
        let best = self.best_pace();
        busy.map(|supplier| supplier.hedge_at(limits, best))
            .filter(|at| now < *at)
            .min()
    }

    /// The best pace of the others that hold what `id` is asked for next; `Duration::MAX` where
    /// those have not shown any, and `None` where there is nobody.
    fn spare(&self, now: Instant, id: &HostId) -> Option<Duration> {
        let run = self.by_id.get(id)?.runs.first()?;
        let piece = PieceIndex(run.left.start);
        let others = self.by_id.iter().filter(|(other, supplier)| {
            *other != id && !supplier.is_resting(now) && supplier.holds.contains(piece)
        });
        let paces = others.map(|(_, supplier)| supplier.pace().unwrap_or(Duration::MAX));
        paces.min()
    }

    fn best_pace(&self) -> Option<Duration> {
        self.by_id.values().filter_map(Supplier::pace).min()
    }
}
