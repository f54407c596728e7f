//! Pure: which fetches the state of a download makes possible, at suppliers and at the source.

use std::{ops::Range, time::Instant};

use protocol::{Layout, PieceIndex, piece_set::PIECES_MAX};

use super::{
    Action, Conductor, Phase, Sizing,
    pick::{Pick, Picker},
};

impl Conductor {
    pub(super) fn plan(&mut self, now: Instant) {
        let is_at_source = matches!(self.phase, Phase::AtSource { .. });
        self.interests.is_for_all = self.is_seed || is_at_source;
        self.plan_suppliers(now);
        self.note_hunger(now);
        if let Phase::AtSource { adopt_until } = self.phase {
            let is_adopting =
                adopt_until.is_some_and(|until| now < until && !self.suppliers.have_all_told());
            if !is_adopting {
                self.plan_source();
            }
        }
    }

    fn plan_suppliers(&mut self, now: Instant) {
        while let Some(picked) = self.picker(now).and_then(|picker| picker.next()) {
            let (supplier, pieces) = match picked {
                Pick::Run(supplier, pieces) => (supplier, pieces),
                Pick::Hedge(supplier, piece) => (supplier, piece..piece + 1),
            };
            let Some(relation) = self.suppliers.begin(now, &supplier, pieces.clone()) else {
                return;
            };
            self.actions.push_back(Action::Fetch {
                supplier,
                relation,
                pieces,
            });
        }
    }

    /// `None` while there is nothing to pick from.
    pub(super) fn picker(&self, now: Instant) -> Option<Picker<'_>> {
        let layout = self.layout.filter(|_| !self.suppliers.is_empty())?;
        Some(Picker::new(
            now,
            (&self.limits, self.salt, layout),
            (&self.had, &self.suppliers),
            &self.interests,
        ))
    }

    /// One past the last piece there may be.
    fn count(&self, layout: Layout) -> u32 {
        layout.piece_count().unwrap_or(PIECES_MAX)
    }

    fn plan_source(&mut self) {
        for run in self.source.take_done(&self.had) {
            self.actions.push_back(Action::StopSource(run));
        }
        // Before the source has answered, the layout that it will have is not known.
        let Some(layout) = self.layout else {
            if self.interests.is_empty() || !self.source.is_empty() || self.sizing == Sizing::Asked
            {
                return;
            }
            if self.interests.are_parts() && self.sizing == Sizing::NotAsked {
                self.sizing = Sizing::Asked;
                self.actions.push_back(Action::LearnSize);
            } else {
                let run = self.source.begin(0, PIECES_MAX);
                self.actions.push_back(Action::StartSource {
                    run,
                    first: 0,
                    end: None,
                });
            }
            return;
        };
        let count = self.count(layout);
        let soon = (self.limits.soon_bytes / layout.piece_len()) as u32;
        let wanted: Vec<_> = self.interests.pieces(layout, count).collect();
        for wanted in wanted {
            let first = self.lacking(wanted.clone());
            if first >= wanted.end || self.source.reaches(first, soon) {
                continue;
            }
            if self.source.len() >= self.limits.source_runs {
                return;
            }
            let end = self.source.gap_end(first, self.next_had(first, wanted.end));
            // A run to the end of the body ends by itself, and leaves its connection in order.
            let to_end = end >= count;
            let run = self
                .source
                .begin(first, if to_end { PIECES_MAX } else { end });
            self.actions.push_back(Action::StartSource {
                run,
                first,
                end: (!to_end).then_some(end),
            });
        }
    }

    /// The first piece of `wanted` that neither is here nor can be had from a supplier, or its end.
    fn lacking(&self, wanted: Range<u32>) -> u32 {
        let mut first = self.had.first_missing(wanted.start);
        while first < wanted.end && self.suppliers.rarity(first) != 0 {
            first = self.had.first_missing(first + 1);
        }
        first
    }

    /// The first piece after `first` that is here or can be had from a supplier, or `end`.
    fn next_had(&self, first: u32, end: u32) -> u32 {
        if self.had.is_empty() && self.suppliers.held_end() <= first {
            return end;
        }
        let is_had = |index: &u32| {
            self.had.contains(PieceIndex(*index)) || self.suppliers.rarity(*index) != 0
        };
        (first..end).find(is_had).unwrap_or(end)
    }
}
