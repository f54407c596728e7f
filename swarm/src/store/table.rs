//! Which tasks are open. The caller's handle is what spares a task from eviction.
//!
//! Invariant: a handle is only ever cloned out of the table, so under its lock a task that nobody
//! else holds stays so. Idle tasks stay open up to a bound, so that hot ones need no parsing.

use std::{collections::HashMap, sync::Arc};

use protocol::content::TaskId;

use super::task::StoredTask;

/// Idle tasks that stay open; two descriptors each.
pub(super) const IDLE_OPEN_MAX: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Table {
    open: HashMap<TaskId, Open>,
    /// Counts look-ups, to tell which were last.
    lookups: u64,
}

#[derive(Debug)]
struct Open {
    handle: Arc<StoredTask>,
    looked_up: u64,
}

// === impl Table ===

impl Table {
    pub(super) fn get(&mut self, task: TaskId) -> Option<Arc<StoredTask>> {
        self.lookups += 1;
        let open = self.open.get_mut(&task)?;
        open.looked_up = self.lookups;
        Some(Arc::clone(&open.handle))
    }

    pub(super) fn insert(&mut self, handle: Arc<StoredTask>) {
        self.lookups += 1;
        self.open.insert(
            handle.task(),
            Open {
                handle,
                looked_up: self.lookups,
            },
        );
    }

    pub(super) fn take(&mut self, task: TaskId) -> Option<Arc<StoredTask>> {
        self.open.remove(&task).map(|open| open.handle)
    }

    pub(super) fn in_use(&self, task: TaskId) -> bool {
        self.open.get(&task).is_some_and(Open::in_use)
    }

    /// Takes out the idle tasks over the bound, those that were looked up longest ago.
    pub(super) fn take_surplus(&mut self) -> Vec<Arc<StoredTask>> {
        if self.open.len() <= IDLE_OPEN_MAX {
            return Vec::new();
        }
        let mut idle: Vec<(u64, TaskId)> = self
            .open
            .iter()
            .filter(|(_, open)| !open.in_use())
            .map(|(task, open)| (open.looked_up, *task))
            .collect();
        idle.sort_unstable();
        let surplus = idle.len().saturating_sub(IDLE_OPEN_MAX);
        idle.iter()
            .take(surplus)
            .filter_map(|(_, task)| self.take(*task))
            .collect()
    }

    /// Takes out the idle tasks that were promised more room than they took.
    pub(super) fn take_idle_incomplete(&mut self) -> Vec<Arc<StoredTask>> {
        let idle: Vec<TaskId> = self
            .open
            .iter()
            .filter(|(_, open)| !open.in_use() && !open.handle.is_complete())
            .map(|(task, _)| *task)
            .collect();
        idle.into_iter()
            .filter_map(|task| self.take(task))
            .collect()
    }

    /// Takes out `task` if nobody else has it.
    pub(super) fn take_idle(&mut self, task: TaskId) -> Option<Arc<StoredTask>> {
        if self.in_use(task) {
            return None;
        }
        self.take(task)
    }
}

// === impl Open ===

impl Open {
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.handle) > 1
    }
}
