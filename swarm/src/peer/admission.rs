//! Pure: which requests for pieces get an upload slot, and why the others get none.
//!
//! Nobody waits for a slot: whoever is refused asks another host or comes back. Fairness therefore
//! cannot be made by a queue; it is made by headroom. A host may hold no more slots than are left
//! over for others, and within that no task more than is left over for the host's other tasks. So
//! whoever holds nothing yet finds a slot while there is one of its kind, `n` hosts that want all
//! they can get settle at one part in `n + 1` each, and what modest hosts leave goes to hungry ones.
//!
//! Invariants, whatever the order of events: never more slots in use than there are; siblings leave
//! the reserve to children; large tasks leave their share to small ones; what was given is free
//! again once it is released.

use std::{cmp::min, collections::HashMap};

use protocol::{HostId, TaskId};

use super::request::Asker;

/// One part in this many of the slots is for children only.
const RESERVE_PART: u32 = 4;

/// One part in this many of the slots is for small tasks only.
const SMALL_PART: u32 = 8;

/// Whether a task is had with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TaskSize {
    /// Its content is one piece.
    Small,
    Large,
}

/// A request for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) asker: Asker,
    pub(super) host: HostId,
    pub(super) task: TaskId,
    pub(super) size: TaskSize,
}

/// Why a request got no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Every slot is in use.
    Full,
    /// The slots that are free are kept for children, or for small tasks.
    Reserved,
    /// The host holds its fair share.
    HostShare,
    /// The task has its fair share of what the host may hold.
    TaskShare,
}

/// The upload slots of this host and who holds them.
#[derive(Debug)]
pub(super) struct Admission {
    slots: u32,
    reserve: u32,
    small_share: u32,
    in_use: InUse,
    /// Whoever holds a slot, and so never more than there are slots. A host that is child and
    /// sibling at once is two: as a sibling it takes nothing from itself as a child.
    holders: HashMap<(Asker, HostId), Holder>,
}

#[derive(Debug, Default)]
struct InUse {
    total: u32,
    large: u32,
    siblings: u32,
    large_siblings: u32,
}

#[derive(Debug, Default)]
struct Holder {
    total: u32,
    by_task: HashMap<TaskId, u32>,
}

// === impl Admission ===

impl Admission {
    pub(super) fn new(slots: u32) -> Self {
        // Of the shares that are kept, something is left for everybody: a quarter and an eighth
        // are less than the whole, and a single slot is reserved for nobody.
        let reserve = min(slots.div_ceil(RESERVE_PART), slots.saturating_sub(1));
        Self {
            slots,
            reserve,
            small_share: slots / SMALL_PART,
            in_use: InUse::default(),
            holders: HashMap::new(),
        }
    }

    /// Slots in use.
    pub(super) fn in_use(&self) -> u32 {
        self.in_use.total
    }

    /// Whether nobody at all can get a slot now.
    pub(super) fn is_full(&self) -> bool {
        self.slots <= self.in_use.total
    }

    /// Gives a slot to `ask`, to be given back by [`Admission::release`].
    pub(super) fn admit(&mut self, ask: &Ask) -> Result<(), Refusal> {
        if let Some(refusal) = self.refusal(ask) {
            return Err(refusal);
        }
        self.in_use.add(ask);
        let holder = self
            .holders
            .entry((ask.asker, ask.host.clone()))
            .or_default();
        holder.total += 1;
        *holder.by_task.entry(ask.task).or_default() += 1;
        Ok(())
    }

    /// Takes back what was given to `ask`.
    pub(super) fn release(&mut self, ask: &Ask) {
        let key = (ask.asker, ask.host.clone());
        let Some(holder) = self.holders.get_mut(&key) else {
            return;
        };
        let Some(of_task) = holder.by_task.get_mut(&ask.task) else {
            return;
        };
        *of_task -= 1;
        holder.total -= 1;
        if *of_task == 0 {
            holder.by_task.remove(&ask.task);
        }
        if holder.total == 0 {
            self.holders.remove(&key);
        }
        self.in_use.remove(ask);
    }

    fn refusal(&self, ask: &Ask) -> Option<Refusal> {
        if self.is_full() {
            return Some(Refusal::Full);
        }
        let room = self.room_for(ask.asker, ask.size);
        if room == 0 {
            return Some(Refusal::Reserved);
        }
        let holder = self.holders.get(&(ask.asker, ask.host.clone()))?;
        let of_task = holder.by_task.get(&ask.task).copied().unwrap_or_default();
        if room <= holder.total {
            return Some(Refusal::HostShare);
        }
        (room - holder.total <= of_task).then_some(Refusal::TaskShare)
    }

    /// Slots that are free for requests of this kind. Large siblings are held to the rest of both
    /// shares, so that neither is ever used up by what it is not kept for.
    fn room_for(&self, asker: Asker, size: TaskSize) -> u32 {
        let InUse {
            total,
            large,
            siblings,
            large_siblings,
        } = self.in_use;
        let free = self.slots.saturating_sub(total);
        let for_large = (self.slots - self.small_share).saturating_sub(large);
        let for_siblings = (self.slots - self.reserve).saturating_sub(siblings);
        match (asker, size) {
            (Asker::Child, TaskSize::Small) => free,
            (Asker::Child, TaskSize::Large) => min(free, for_large),
            (Asker::Sibling, TaskSize::Small) => min(free, for_siblings),
            (Asker::Sibling, TaskSize::Large) => {
                let shared = self.slots.saturating_sub(self.reserve + self.small_share);
                let for_both = shared.saturating_sub(large_siblings);
                min(min(free, for_both), min(for_large, for_siblings))
            }
        }
    }
}

// === impl InUse ===

impl InUse {
    fn add(&mut self, ask: &Ask) {
        for count in self.counts_of(ask).into_iter().flatten() {
            *count += 1;
        }
    }

    fn remove(&mut self, ask: &Ask) {
        for count in self.counts_of(ask).into_iter().flatten() {
            *count -= 1;
        }
    }

    fn counts_of(&mut self, ask: &Ask) -> [Option<&mut u32>; 4] {
        let (is_sibling, is_large) = (ask.asker == Asker::Sibling, ask.size == TaskSize::Large);
        [
            Some(&mut self.total),
            is_large.then_some(&mut self.large),
            is_sibling.then_some(&mut self.siblings),
            (is_sibling && is_large).then_some(&mut self.large_siblings),
        ]
    }
}

#[cfg(test)]
mod tests;
