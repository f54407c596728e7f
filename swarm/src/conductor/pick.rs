//! Pure: which piece is asked for next, and of whom.
//!
//! In order within a small window ahead of each reader, so that bytes flow; rarest first beyond it,
//! so that hosts have different pieces to give to each other. Among equally rare pieces each host
//! begins elsewhere, by its salt. When all that is wanted is on its way, what is late is asked of
//! somebody idle as well.

use std::{ops::Range, time::Instant};

use protocol::{HostId, Layout, PieceIndex, PieceSet};

use super::{Limits, interest::Interests, suppliers::Suppliers};

/// One look at everything that the choice depends on.
pub(super) struct Picker<'a> {
    pub(super) now: Instant,
    pub(super) limits: &'a Limits,
    pub(super) salt: u64,
    pub(super) layout: Layout,
    pub(super) had: &'a PieceSet,
    pub(super) suppliers: &'a Suppliers,
    /// What every reader wants, from where it reads.
    pub(super) wanted: Vec<Range<u32>>,
}

/// What to ask next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pick {
    Run(HostId, Range<u32>),
    /// This one piece, which somebody else was asked for already.
    Hedge(HostId, u32),
}

// === impl Picker ===

impl<'a> Picker<'a> {
    pub(super) fn new(
        now: Instant,
        (limits, salt, layout): (&'a Limits, u64, Layout),
        (had, suppliers): (&'a PieceSet, &'a Suppliers),
        interests: &Interests,
    ) -> Self {
        let count = layout
            .piece_count()
            .unwrap_or(protocol::piece_set::PIECES_MAX);
        let wanted = interests.pieces(layout, count).collect();
        Self {
            now,
            limits,
            salt,
            layout,
            had,
            suppliers,
            wanted,
        }
    }

    pub(super) fn next(&self) -> Option<Pick> {
        if !self.suppliers.has_room(self.now, self.limits) {
            return None;
        }
        let run = self.near().or_else(|| self.rarest());
        run.map(|(id, first)| self.run(id, first))
            .or_else(|| self.hedge())
    }

    /// From `first` on as much as fits into one request and is wanted.
    fn run(&self, id: HostId, first: u32) -> Pick {
        let length_max = (self.limits.run_bytes / self.layout.piece_len()).max(1) as u32;
        let wanted = self.wanted.iter().filter(|wanted| wanted.contains(&first));
        let wanted_end = wanted.map(|wanted| wanted.end).max().unwrap_or(first + 1);
        let end_max = wanted_end.min(first + length_max);
        let end = self.suppliers.run_end(&id, first..end_max, self.had);
        Pick::Run(id, first..end)
    }

    /// Whether everything that is wanted is here or on its way.
    pub(super) fn is_endgame(&self) -> bool {
        self.wanted
            .iter()
            .all(|wanted| wanted.end <= self.needed_at(wanted.start))
    }

    fn near(&self) -> Option<(HostId, u32)> {
        let window = (self.limits.near_bytes / self.layout.piece_len()).max(1) as u32;
        self.wanted.iter().find_map(|wanted| {
            let near = wanted.start..wanted.end.min(wanted.start.saturating_add(window));
            self.needed(near)
                .find_map(|piece| Some((self.best_for(piece)?, piece)))
        })
    }

    fn rarest(&self) -> Option<(HostId, u32)> {
        let open = self.suppliers.open_pieces(self.now, self.limits);
        let held = |wanted: &Range<u32>| wanted.start..wanted.end.min(self.suppliers.held_end());
        let needed = self
            .wanted
            .iter()
            .flat_map(|wanted| self.needed(held(wanted)))
            .filter(|piece| open.contains(PieceIndex(*piece)));
        let rarest = needed
            .min_by_key(|piece| (self.suppliers.rarity(*piece), self.order(*piece), *piece))?;
        Some((self.best_for(rarest)?, rarest))
    }

    fn hedge(&self) -> Option<Pick> {
        if !self.suppliers.may_hedge(self.limits) || !self.is_endgame() {
            return None;
        }
        let (id, piece) = self.suppliers.hedge(self.now, self.had, self.limits)?;
        Some(Pick::Hedge(id, piece))
    }

    fn best_for(&self, piece: u32) -> Option<HostId> {
        self.suppliers.best_for(self.now, piece, self.limits)
    }

    /// The place of `piece` among equally rare ones, another on every host (splitmix64's mixer).
    /// Pieces of one run keep together, so that a request brings several.
    fn order(&self, piece: u32) -> u64 {
        let run = u64::from(piece) * self.layout.piece_len() / self.limits.run_bytes.max(1);
        let mut mixed = run ^ self.salt;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn needed(&self, range: Range<u32>) -> impl Iterator<Item = u32> + '_ {
        let mut next = range.start;
        std::iter::from_fn(move || {
            next = self.needed_at(next);
            (next < range.end).then(|| {
                next += 1;
                next - 1
            })
        })
    }

    /// The first piece at or after `start` that is neither had nor in flight.
    fn needed_at(&self, start: u32) -> u32 {
        let mut next = self.had.first_missing(start);
        while self.suppliers.is_asked(next) {
            next = self.had.first_missing(next + 1);
        }
        next
    }
}
