//! Pure: decides which piece of one task is fetched next, and from whom.
//!
//! No socket, disk, clock or task in here. The driver feeds [`Event`]s in and carries
//! [`Action`]s out. Time is always a parameter.
//!
//! Invariants: a piece is needed, in flight, or had; a piece that is had stays so. A piece is in
//! flight once, but for a few that are late at the end. The source is asked only while the conductor
//! is at the source, and no two of its runs cover one piece.

mod interest;
mod limits;
mod message;
mod pick;
mod plan;
mod silence;
mod source;
mod supplier;
mod suppliers;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use protocol::{HostId, Layout, PieceIndex, PieceSet, Want, scheduler::ParentFailure};

use self::{
    interest::Interests,
    source::SourceRuns,
    supplier::Verdict,
    suppliers::{Ended, Suppliers},
};
pub use self::{
    interest::{Interest, ReaderId},
    limits::Limits,
    message::{Action, Event, RunId},
    supplier::Relation,
};

/// The download of one task by one peer.
#[derive(Debug)]
pub struct Conductor {
    limits: Limits,
    salt: u64,
    is_seed: bool,
    phase: Phase,
    layout: Option<Layout>,
    had: PieceSet,
    interests: Interests,
    suppliers: Suppliers,
    source: SourceRuns,
    sizing: Sizing,
    /// Since when something is wanted that nobody is about to bring.
    hungry_since: Option<Instant>,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing asked yet.
    New,
    /// Waiting for the scheduler's word, or for the fetcher to have something.
    Patient { until: Instant },
    /// Fetching from parents.
    Swarm,
    /// Until `adopt_until` those who hold a part of the task have time to say so.
    AtSource { adopt_until: Option<Instant> },
}

/// Whether the source was asked for the size of the body alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sizing {
    NotAsked,
    Asked,
    Over,
}

// === impl Conductor ===

impl Conductor {
    /// A download that has `had` already, from before. `salt` differs from host to host.
    pub fn new(limits: Limits, salt: u64, had: PieceSet) -> Self {
        Self {
            limits,
            salt,
            is_seed: false,
            phase: Phase::New,
            layout: None,
            had,
            interests: Interests::default(),
            suppliers: Suppliers::default(),
            source: SourceRuns::default(),
            sizing: Sizing::NotAsked,
            hungry_since: None,
            actions: VecDeque::new(),
        }
    }

    /// The download of a seed, which has for others what they want of it from the start.
    pub fn for_all(mut self) -> Self {
        self.is_seed = true;
        self
    }

    /// Records `event`, then plans the fetches it makes possible.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::ReaderJoined(reader, interest) => self.interests.join(reader, interest),
            Event::ReaderMoved(reader, offset) => self.interests.moved(reader, offset),
            Event::ReaderLeft(reader) => self.interests.leave(reader),
            Event::FollowerWants(reader, interest) => self.interests.follow(reader, interest),
            Event::Asked => self.be_patient(now, self.limits.answer_timeout),
            Event::Wait(patience) => self.be_patient(now, patience),
            Event::Candidates(candidates) => self.candidates(now, candidates),
            Event::AtSource(holders) => self.go_to_source(now, holders),
            Event::GrantLost => self.leave_source(now),
            Event::Begun(layout) | Event::Ended(layout) => self.layout = Some(layout),
            Event::Anew => {
                let over = self.suppliers.begin_anew(now);
                self.cancel(over);
            }
            Event::Holds(supplier, pieces) => self.suppliers.holds(now, &supplier, &pieces),
            Event::SupplierFailed(supplier, failure) => {
                self.supplier_failed(now, supplier, failure);
            }
            Event::RunRefused(supplier, first) => self.run_refused(now, supplier, first),
            Event::Brought(supplier, piece) => self.had(now, Some(&supplier), piece),
            Event::Throttled => self.suppliers.excuse(now),
            Event::Had(piece) => self.had(now, None, piece),
            Event::Lost(piece) => {
                self.had.remove(piece);
            }
            Event::Sized(layout) => {
                self.sizing = Sizing::Over;
                self.layout = self.layout.or(layout);
            }
            Event::SourceRunEnded(run) => self.source.ended(run),
        }
        self.plan(now);
    }

    /// Gives up on whoever has been silent for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (leave, over) = self.suppliers.overdue(now, &self.limits);
        self.cancel(over);
        for supplier in leave.into_iter().chain(self.silent(now)) {
            self.supplier_failed(now, supplier, ParentFailure::Slow);
        }
        if let Phase::Patient { until } = self.phase
            && until <= now
        {
            self.phase = Phase::Patient {
                until: now + self.limits.answer_timeout,
            };
            self.actions.push_back(Action::AskElsewhere);
        }
        self.plan(now);
    }

    /// The next thing to do. Call until it returns `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Conductor::handle_timeout`]: later than `now`, or at once where it is late.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let own = match self.phase {
            Phase::Patient { until } => Some(until),
            Phase::AtSource { adopt_until } => adopt_until.filter(|until| now < *until),
            Phase::New | Phase::Swarm => None,
        };
        let hedge = || self.suppliers.next_hedge(now, &self.limits);
        let is_endgame = || self.picker(now).is_some_and(|picker| picker.is_endgame());
        let hedge = match self.suppliers.may_hedge(&self.limits) && is_endgame() {
            true => hedge(),
            false => None,
        };
        let overdue = self.suppliers.next_deadline(now, &self.limits);
        [own, overdue, hedge, self.next_silence()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether every piece is here.
    pub fn is_whole(&self) -> bool {
        let count = self.layout.and_then(|layout| layout.piece_count());
        count.is_some_and(|count| self.had.len() >= count)
    }

    /// Whether so much is here that the rest is worth having although nobody reads it.
    pub fn is_nearly_whole(&self) -> bool {
        let count = self.layout.and_then(|layout| layout.piece_count());
        count.is_some_and(|count| {
            let enough = u64::from(count) * u64::from(self.limits.keep_from_percent);
            enough <= u64::from(self.had.len()) * 100
        })
    }

    /// Whether nobody wants anything of it from this host now.
    pub fn is_unwanted(&self) -> bool {
        self.interests.is_empty()
    }

    /// What is wanted of it on this host.
    pub fn wants(&self) -> Vec<Want> {
        self.interests.wants()
    }

    /// The hosts that have a way to the source.
    pub fn parents(&self) -> impl Iterator<Item = &HostId> {
        self.suppliers.parents()
    }

    /// Whether nobody is left to have it from.
    pub fn is_orphan(&self) -> bool {
        self.suppliers.is_empty()
    }

    pub fn layout(&self) -> Option<Layout> {
        self.layout
    }

    pub fn pieces_had(&self) -> &PieceSet {
        &self.had
    }

    fn be_patient(&mut self, now: Instant, patience: Duration) {
        match self.phase {
            // Whoever is at the source or has parents goes on; patience is for the others.
            Phase::AtSource { .. } => {}
            Phase::Swarm if self.suppliers.has_parent() => {}
            Phase::New | Phase::Patient { .. } | Phase::Swarm => {
                self.phase = Phase::Patient {
                    until: now + patience,
                };
            }
        }
    }

    fn candidates(&mut self, now: Instant, candidates: Vec<(HostId, Relation)>) {
        if let Phase::AtSource { .. } = self.phase {
            return;
        }
        for (candidate, relation) in candidates {
            self.join(now, candidate, relation);
        }
        self.phase = match self.suppliers.has_parent() {
            true => Phase::Swarm,
            false => Phase::Patient {
                until: now + self.limits.answer_timeout,
            },
        };
    }

    fn go_to_source(&mut self, now: Instant, holders: Vec<HostId>) {
        for holder in holders {
            self.join(now, holder, Relation::Sibling);
        }
        let has_holders = !self.suppliers.is_empty();
        self.phase = Phase::AtSource {
            adopt_until: has_holders.then(|| now + self.limits.adoption),
        };
    }

    fn leave_source(&mut self, now: Instant) {
        for run in self.source.take_all() {
            self.actions.push_back(Action::StopSource(run));
        }
        self.phase = Phase::Patient {
            until: now + self.limits.answer_timeout,
        };
    }

    fn join(&mut self, now: Instant, supplier: HostId, relation: Relation) {
        let max = self.limits.suppliers_max;
        if self.suppliers.join(now, &supplier, relation, max) {
            self.actions.push_back(Action::Follow(supplier));
        }
    }

    fn supplier_failed(&mut self, now: Instant, supplier: HostId, failure: ParentFailure) {
        if !self.suppliers.leave(&supplier) {
            return;
        }
        self.actions.push_back(Action::Leave(supplier, failure));
        if !self.suppliers.has_parent() && self.phase == Phase::Swarm {
            self.phase = Phase::Patient {
                until: now + self.limits.answer_timeout,
            };
        }
    }

    fn run_refused(&mut self, now: Instant, supplier: HostId, first: u32) {
        match self.suppliers.refused(now, &supplier, first, &self.limits) {
            Some(Verdict::Leave) => self.supplier_failed(now, supplier, ParentFailure::Busy),
            Some(Verdict::Rest) | None => {}
        }
    }

    fn had(&mut self, now: Instant, by: Option<&HostId>, piece: PieceIndex) {
        self.had.insert(piece);
        let over = self.suppliers.arrived(now, (by, piece), &self.had);
        self.cancel(over);
        self.source.arrived(piece);
        // While siblings bring something, there is no need to leave the swarm.
        if let (Phase::Patient { until }, Some(_)) = (&mut self.phase, by) {
            *until = (*until).max(now + self.limits.answer_timeout);
        }
    }

    fn cancel(&mut self, over: Vec<Ended>) {
        for Ended { supplier, first } in over {
            self.actions.push_back(Action::Cancel { supplier, first });
        }
    }
}
