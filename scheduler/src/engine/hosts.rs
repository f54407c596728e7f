//! Pure: the hosts that have a session, and what is known of each.
//!
//! Invariant: a [`HostKey`] names one session and is never used again, so nothing that was
//! remembered about a host that left can fall on another.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::{Duration, Instant},
};

use protocol::{
    Host, HostId, TaskId, ring,
    scheduler::{Hello, ParentFailure},
};

use super::{Limits, blames::Blames, reports::Reporter, view::View};

/// One session of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostKey(u32);

impl HostKey {
    pub(super) const MIN: Self = Self(0);
}

#[derive(Debug, Default)]
pub(super) struct Hosts {
    next: u32,
    by_key: BTreeMap<HostKey, HostRecord>,
    by_id: BTreeMap<HostId, HostKey>,
    seeds: BTreeSet<HostKey>,
    view: View,
    blames: Blames,
}

#[derive(Debug)]
pub(super) struct HostRecord {
    pub(super) host: Host,
    pub(super) is_seed: bool,
    pub(super) upload_slots: u32,
    pub(super) idc: Option<String>,
    pub(super) location: Option<String>,
    /// Tasks in which the host is a peer.
    pub(super) tasks: BTreeSet<TaskId>,
    /// Tasks it was told to warm and has not registered yet.
    pub(super) warming: BTreeSet<TaskId>,
    /// Children given to it, over all tasks.
    children: u32,
    /// Uploads it told of last.
    uploads: u32,
    /// The best rate of all its uploads together that it has shown lately, in bytes per second.
    rate: Option<u64>,
    served: u32,
    failed: u32,
    heard_at: Instant,
}

/// Whether a host with a session is still heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    Live,
    Silent,
}

/// Who is to bring a task in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RingSeed {
    Here(HostKey),
    /// It has no session, and not for long: it is waited for.
    Expected,
}

/// The share of the best rate that each message takes from it.
const RATE_FADES_BY: u64 = 16;

/// Outcomes that count for the success ratio; older ones fade by halves.
const OUTCOMES_MAX: u32 = 256;

// === impl Hosts ===

impl Hosts {
    /// Hosts of a cluster whose view names `seeds`; without any, those that join are the seeds.
    pub(super) fn new(seeds: Vec<HostId>) -> Self {
        Self {
            view: View::new(seeds),
            ..Self::default()
        }
    }

    pub(super) fn insert(&mut self, now: Instant, hello: Hello) -> HostKey {
        let key = HostKey(self.next);
        self.next = self.next.wrapping_add(1);
        self.by_id.insert(hello.host.id.clone(), key);
        if hello.is_seed {
            self.seeds.insert(key);
        }
        self.by_key.insert(key, HostRecord::new(now, hello));
        key
    }

    pub(super) fn remove(&mut self, now: Instant, id: &HostId) -> Option<(HostKey, HostRecord)> {
        let key = self.by_id.remove(id)?;
        if self.seeds.remove(&key) {
            self.view.left(now, id);
        }
        self.by_key.remove(&key).map(|record| (key, record))
    }

    pub(super) fn key(&self, id: &HostId) -> Option<HostKey> {
        self.by_id.get(id).copied()
    }

    pub(super) fn get(&self, key: HostKey) -> Option<&HostRecord> {
        self.by_key.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: HostKey) -> Option<&mut HostRecord> {
        self.by_key.get_mut(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (HostKey, &HostRecord)> {
        self.by_key.iter().map(|(key, record)| (*key, record))
    }

    /// The hosts after `after` that came before `end`, longest here first.
    pub(super) fn between(
        &self,
        after: Option<HostKey>,
        end: HostKey,
    ) -> impl Iterator<Item = (HostKey, &HostRecord)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let from = self.by_key.range((start, Bound::Unbounded));
        from.map(|(key, record)| (*key, record))
            .take_while(move |(key, _)| *key < end)
    }

    /// The key of the host that comes next.
    pub(super) fn next_key(&self) -> HostKey {
        HostKey(self.next)
    }

    pub(super) fn seeds(&self) -> impl Iterator<Item = (HostKey, &HostRecord)> {
        let record = |key: &HostKey| self.get(*key).map(|record| (*key, record));
        self.seeds.iter().filter_map(record)
    }

    pub(super) fn has_seeds(&self) -> bool {
        !self.seeds.is_empty() || !self.view.is_empty()
    }

    /// The seeds of the view that are here.
    pub(super) fn named_seeds(&self) -> impl Iterator<Item = (HostKey, &HostRecord)> {
        let is_named =
            |record: &HostRecord| self.view.is_empty() || self.view.names(&record.host.id);
        self.seeds().filter(move |(_, record)| is_named(record))
    }

    /// The seed that everybody's ring names for `task`, of those that `can_fetch`: its session, or
    /// that it is expected back.
    pub(super) fn ring_seed(
        &mut self,
        now: Instant,
        (task, absence): (TaskId, Duration),
        can_fetch: impl Fn(&Self, HostKey) -> bool,
    ) -> Option<RingSeed> {
        self.view.begin(now);
        let joined = self.named_seeds().filter(|(key, _)| can_fetch(self, *key));
        let joined: Vec<&HostId> = joined.map(|(_, record)| &record.host.id).collect();
        let away = self.view.expected(now, absence);
        let away = away.filter(|id| !self.by_id.contains_key(*id));
        let id = ring::responsible(task, joined.into_iter().chain(away))?;
        Some(match self.key(id) {
            Some(key) => RingSeed::Here(key),
            None => RingSeed::Expected,
        })
    }

    /// `reporter` says that `liar` lied; tells whether the cluster bans it for that.
    pub(super) fn blame(
        &mut self,
        now: Instant,
        limits: &Limits,
        reporter: HostKey,
        liar: HostKey,
    ) -> bool {
        let (Some(reporter), Some(liar)) = (self.by_key.get(&reporter), self.by_key.get(&liar))
        else {
            return false;
        };
        let reporter = Reporter {
            id: &reporter.host.id,
            is_believed: reporter.is_seed,
        };
        self.blames.blame(now, limits, reporter, &liar.host.id)
    }

    /// Whether it has a session and has said something in the last `silence`.
    pub(super) fn is_live(&self, key: HostKey, now: Instant, silence: Duration) -> bool {
        self.get(key)
            .is_some_and(|record| record.is_heard(now, silence))
    }

    pub(super) fn is_banned(&self, key: HostKey, now: Instant) -> bool {
        self.get(key)
            .is_some_and(|record| self.blames.is_banned(&record.host.id, now))
    }

    /// Those who have said nothing for `time`.
    pub(super) fn silent(&self, now: Instant, time: Duration) -> Vec<HostId> {
        let is_silent = |record: &&HostRecord| !record.is_heard(now, time);
        let silent = self.by_key.values().filter(is_silent);
        silent.map(|record| record.host.id.clone()).collect()
    }

    /// When the one was heard that has said nothing for longest.
    pub(super) fn longest_silent(&self) -> Option<Instant> {
        self.by_key.values().map(|record| record.heard_at).min()
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}

// === impl HostRecord ===

impl HostRecord {
    fn new(now: Instant, hello: Hello) -> Self {
        Self {
            host: hello.host,
            is_seed: hello.is_seed,
            upload_slots: hello.upload_slots,
            idc: hello.idc,
            location: hello.location,
            tasks: BTreeSet::new(),
            warming: BTreeSet::new(),
            children: 0,
            uploads: 0,
            rate: None,
            served: 0,
            failed: 0,
            heard_at: now,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Whether it has said something in the last `time`.
    pub(super) fn is_heard(&self, now: Instant, time: Duration) -> bool {
        now < self.heard_at + time
    }

    pub(super) fn loaded(&mut self, uploads: u32, upload_rate: u64) {
        self.uploads = uploads;
        // What it can do shows only while it is asked for much: the best counts, and fades.
        if upload_rate != 0 {
            let faded = self.rate.map_or(0, |rate| rate - rate / RATE_FADES_BY);
            self.rate = Some(faded.max(upload_rate));
        }
    }

    pub(super) fn rate(&self) -> Option<u64> {
        self.rate
    }

    pub(super) fn state(&self, now: Instant, silence: Duration) -> HostState {
        match self.is_heard(now, silence) {
            true => HostState::Live,
            false => HostState::Silent,
        }
    }

    pub(super) fn take_slot(&mut self) {
        self.children += 1;
    }

    pub(super) fn release_slot(&mut self) {
        self.children = self.children.saturating_sub(1);
    }

    /// Children given to it. The host may be busier, with siblings that nobody gave to it.
    pub(super) fn children(&self) -> u32 {
        self.children
    }

    pub(super) fn free_slots(&self) -> u32 {
        self.upload_slots
            .saturating_sub(self.children.max(self.uploads))
    }

    /// Whether it can be a second, third or fourth parent: those take no more than half of the
    /// slots, so that the other half is left for peers that have nobody yet.
    pub(super) fn has_spare_slots(&self) -> bool {
        self.upload_slots < self.free_slots().saturating_mul(2)
    }

    pub(super) fn served(&mut self) {
        self.served += 1;
        self.fade();
    }

    /// Counts against the parent only what speaks of its quality.
    pub(super) fn failed(&mut self, reason: ParentFailure) {
        match reason {
            ParentFailure::Unreachable | ParentFailure::Slow | ParentFailure::Lied => {
                self.failed += 1;
                self.fade();
            }
            ParentFailure::Gone | ParentFailure::Busy => {}
        }
    }

    /// From 0 to 1; 1 for a host of which nothing is known.
    pub(super) fn success_ratio(&self) -> f64 {
        let served = f64::from(self.served + 1);
        served / (served + f64::from(self.failed))
    }

    fn fade(&mut self) {
        if OUTCOMES_MAX < self.served + self.failed {
            self.served /= 2;
            self.failed /= 2;
        }
    }
}
