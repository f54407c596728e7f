//! Pure: the seeds that the view names, and since when those without a session are away.
//!
//! Everybody's ring goes over the same names. A scheduler that has just begun knows of no session
//! yet; it gives a seed time to come before it names the next, so that a restart makes no second
//! fetcher.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use protocol::HostId;

#[derive(Debug, Default)]
pub(super) struct View {
    /// Since when each has been without a session, as far as it is; `None` before the first look.
    seeds: BTreeMap<HostId, Option<Instant>>,
}

// === impl View ===

impl View {
    pub(super) fn new(seeds: Vec<HostId>) -> Self {
        Self {
            seeds: seeds.into_iter().map(|id| (id, None)).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seeds.is_empty()
    }

    pub(super) fn names(&self, id: &HostId) -> bool {
        self.seeds.contains_key(id)
    }

    /// The time from which those who never came are away.
    pub(super) fn begin(&mut self, now: Instant) {
        for since in self.seeds.values_mut() {
            since.get_or_insert(now);
        }
    }

    pub(super) fn left(&mut self, now: Instant, id: &HostId) {
        if let Some(since) = self.seeds.get_mut(id) {
            *since = Some(now);
        }
    }

    /// Those that are away for less than `absence`, or are here.
    pub(super) fn expected(
        &self,
        now: Instant,
        absence: Duration,
    ) -> impl Iterator<Item = &HostId> {
        let is_expected = move |since: &Option<Instant>| since.is_none_or(|at| now < at + absence);
        let seeds = self.seeds.iter();
        seeds.filter_map(move |(id, since)| is_expected(since).then_some(id))
    }
}
