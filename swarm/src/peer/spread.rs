//! Pure: to which child a piece that nobody else may have is told first.
//!
//! The uplink of a host that brings a task in is the way for every piece of it. A child that is told
//! of a piece gives it to its siblings; to tell all of them at once would send it as often as there
//! are children. So each group of pieces goes to one child, and the others are told of it only when
//! that child did not come for it, or a while after it did, by when they should have it from others.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use protocol::{Layout, PieceIndex};

/// Bytes of the pieces that go to the same child.
const GROUP_BYTES: u64 = 1 << 20;

/// A task of fewer groups than this goes piece by piece.
const GROUPS_MIN: u64 = 32;

/// A task up to this size goes to all children at once.
const SIZE_MIN: u64 = 1 << 20;

/// How long a child may take to come for what it was told of, and the others to have from each other
/// what it was given: so many times as long as it takes here from the word to the last byte, within
/// these bounds.
const PATIENCE_TIMES: u32 = 4;
const PATIENCE_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// One stream's part in a spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChildKey(u64);

/// Who was told of what first, of one task.
#[derive(Debug, Default)]
pub(super) struct Spread {
    next: u64,
    /// Groups that each child was told of.
    children: BTreeMap<ChildKey, u32>,
    groups: HashMap<u32, Group>,
    /// The smoothed time from telling a child of a group to having given it.
    pace: Duration,
}

#[derive(Debug)]
struct Group {
    to: ChildKey,
    told_at: Instant,
    stage: GroupStage,
}

/// How far a group has come on its way to the first child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupStage {
    Told,
    /// Somebody has come for it, and is being given it.
    Asked,
    Sent {
        at: Instant,
    },
}

/// Whether a child is told of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// Not before this.
    At(Instant),
}

// === impl Spread ===

impl Spread {
    pub(super) fn join(&mut self) -> ChildKey {
        let key = ChildKey(self.next);
        self.next += 1;
        self.children.insert(key, 0);
        key
    }

    /// What `child` was told of and did not come for is told to the others when they look again.
    pub(super) fn leave(&mut self, child: ChildKey) {
        self.children.remove(&child);
        self.groups
            .retain(|_, group| group.to != child || matches!(group.stage, GroupStage::Sent { .. }));
    }

    /// When `child` is told of `piece`, which this host holds.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        child: ChildKey,
        (layout, piece): (&Layout, PieceIndex),
    ) -> Turn {
        let is_small = layout.size().is_some_and(|size| size <= SIZE_MIN);
        if is_small || self.children.len() < 2 {
            return Turn::Now;
        }
        let index = group_of(layout, piece);
        if !self.groups.contains_key(&index) {
            let Some(to) = self.least_told() else {
                return Turn::Now;
            };
            *self.children.entry(to).or_default() += 1;
            let group = Group {
                to,
                told_at: now,
                stage: GroupStage::Told,
            };
            self.groups.insert(index, group);
        }
        let group = &self.groups[&index];
        let (patience_min, patience_max) = PATIENCE_BOUNDS;
        let patience = (self.pace * PATIENCE_TIMES).clamp(patience_min, patience_max);
        let at = match group.stage {
            GroupStage::Told => group.told_at + patience,
            // It is on its way; only one that never arrives is told to the others.
            GroupStage::Asked => group.told_at + patience_max,
            GroupStage::Sent { at } => at + patience,
        };
        match group.to == child || at <= now {
            true => Turn::Now,
            false => Turn::At(at),
        }
    }

    /// Somebody came for `piece`.
    pub(super) fn asked(&mut self, layout: &Layout, piece: PieceIndex) {
        if let Some(group) = self.groups.get_mut(&group_of(layout, piece))
            && group.stage == GroupStage::Told
        {
            group.stage = GroupStage::Asked;
        }
    }

    /// Somebody was given `piece`, as far as is known here.
    pub(super) fn sent(&mut self, now: Instant, layout: &Layout, piece: PieceIndex) {
        if let Some(group) = self.groups.get_mut(&group_of(layout, piece))
            && group.stage == GroupStage::Asked
        {
            group.stage = GroupStage::Sent { at: now };
            let took = now.saturating_duration_since(group.told_at);
            self.pace = (self.pace * 7 + took) / 8;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    fn least_told(&self) -> Option<ChildKey> {
        let least = self.children.iter().min_by_key(|(_, told)| **told);
        least.map(|(key, _)| *key)
    }
}

fn group_of(layout: &Layout, piece: PieceIndex) -> u32 {
    let is_short = layout
        .size()
        .is_some_and(|size| size < GROUPS_MIN * GROUP_BYTES);
    match is_short {
        true => piece.0,
        false => (u64::from(piece.0) * layout.piece_len() / GROUP_BYTES) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 64 << 20;

    /// Which of the two children are told of the first pieces of each of `groups` groups at `now`.
    fn told(spread: &mut Spread, now: Instant, children: [ChildKey; 2], groups: u32) -> String {
        let layout = Layout::for_size(Some(LARGE));
        let mut told = String::new();
        for group in 0..groups {
            for (name, child) in ["a", "b"].into_iter().zip(children) {
                let piece = PieceIndex(group * 4);
                if spread.turn(now, child, (&layout, piece)) == Turn::Now {
                    told += name;
                }
            }
            told += " ";
        }
        told.trim_end().to_owned()
    }

    #[expect(clippy::disallowed_methods, reason = "any origin will do")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn two() -> (Spread, [ChildKey; 2]) {
        let mut spread = Spread::default();
        let children = [spread.join(), spread.join()];
        (spread, children)
    }

    #[test]
    fn each_group_goes_to_one_child_in_turn() {
        let (mut spread, children) = two();
        assert_eq!(told(&mut spread, epoch(), children, 4), "a b a b");
    }

    #[test]
    fn an_only_child_and_a_small_task_wait_for_nobody() {
        let mut spread = Spread::default();
        let only = spread.join();
        let large = Layout::for_size(Some(LARGE));
        let turn = spread.turn(epoch(), only, (&large, PieceIndex(9)));
        assert_eq!(turn, Turn::Now);
        let other = spread.join();
        let small = Layout::for_size(Some(SIZE_MIN));
        for child in [only, other] {
            assert_eq!(
                spread.turn(epoch(), child, (&small, PieceIndex(1))),
                Turn::Now
            );
        }
    }

    #[test]
    fn what_a_child_does_not_come_for_is_told_to_all() {
        let (mut spread, children) = two();
        let now = epoch();
        let layout = Layout::for_size(Some(LARGE));
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(told(&mut spread, now, children, 2), "a b");
        spread.asked(&layout, PieceIndex(0));
        assert_eq!(told(&mut spread, after(1), children, 2), "a ab");
        spread.sent(after(2), &layout, PieceIndex(0));
        assert_eq!(told(&mut spread, after(2), children, 2), "a ab");
        assert_eq!(told(&mut spread, after(3), children, 2), "ab ab");
    }

    #[test]
    fn who_sends_slowly_gives_the_children_longer() {
        let (mut spread, children) = two();
        let (now, layout) = (epoch(), Layout::for_size(Some(LARGE)));
        for group in 0..20 {
            let piece = PieceIndex(group * 4);
            spread.turn(now, children[0], (&layout, piece));
            spread.asked(&layout, piece);
            spread.sent(now + Duration::from_secs(2), &layout, piece);
        }
        let later = now + Duration::from_secs(4);
        assert_eq!(told(&mut spread, later, children, 2), "a b");
        let much_later = now + Duration::from_secs(30);
        assert_eq!(told(&mut spread, much_later, children, 2), "ab ab");
    }

    #[test]
    fn a_short_task_goes_piece_by_piece() {
        let (mut spread, [a, b]) = two();
        let layout = Layout::for_size(Some(6 << 20));
        let turns: Vec<bool> = (0..4)
            .map(|piece| spread.turn(epoch(), a, (&layout, PieceIndex(piece))) == Turn::Now)
            .collect();
        assert_eq!(turns, [true, false, true, false]);
        assert_eq!(spread.turn(epoch(), b, (&layout, PieceIndex(1))), Turn::Now);
    }

    #[test]
    fn what_a_child_that_left_was_told_of_goes_to_another() {
        let mut spread = Spread::default();
        let children = [spread.join(), spread.join()];
        let third = spread.join();
        let now = epoch();
        assert_eq!(told(&mut spread, now, children, 2), "a b");
        spread.leave(third);
        spread.leave(children[0]);
        spread.join();
        let layout = Layout::for_size(Some(LARGE));
        spread.turn(now, children[1], (&layout, PieceIndex(0)));
        assert_ne!(spread.groups[&0].to, children[0]);
    }
}
