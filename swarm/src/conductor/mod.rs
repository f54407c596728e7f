//! Pure: decides which piece of one task is fetched next, and from whom.
//!
//! No socket, disk, clock or task in here. The driver feeds [`Event`]s in and carries
//! [`Action`]s out. Time is always a parameter.
//!
//! Invariants: a piece is needed, in flight, or had; a piece that is had stays so. The source is
//! asked only while the conductor is at the source, and no two of its runs cover one piece.

mod interest;
mod limits;
mod parents;
mod source;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use protocol::{
    HostId, Layout, PieceIndex, PieceSet, piece_set::PIECES_MAX, scheduler::ParentFailure,
};

use self::{interest::Interests, parents::Parents, source::SourceRuns};
pub use self::{
    interest::{Interest, ReaderId},
    limits::Limits,
};

/// The download of one task by one peer.
#[derive(Debug)]
pub struct Conductor {
    limits: Limits,
    phase: Phase,
    layout: Option<Layout>,
    had: PieceSet,
    interests: Interests,
    parents: Parents,
    source: SourceRuns,
    sizing: Sizing,
    actions: VecDeque<Action>,
}

/// What happened since the last call.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    ReaderJoined(ReaderId, Interest),
    ReaderMoved(ReaderId, u64),
    ReaderLeft(ReaderId),
    /// The task was registered; an answer is awaited.
    Asked,
    /// The scheduler says who may have it.
    Candidates(Vec<HostId>),
    /// The scheduler says that somebody is about to have it.
    Wait(Duration),
    /// This host goes to the source: told to, or because nobody can tell it anything.
    AtSource,
    /// The layout is known: from the source or from the first parent.
    Begun(Layout),
    /// These pieces are proven to be what the parent says it holds.
    ParentHolds(HostId, PieceSet),
    ParentFailed(HostId, ParentFailure),
    Had(PieceIndex),
    /// A piece that was had turned out to be unreadable.
    Lost(PieceIndex),
    /// A run ended: `next` is the first piece that it did not bring.
    SourceRunEnded(RunId),
    /// The body that began with no size has ended.
    Ended(Layout),
    /// The source was asked for the size, and told it or not.
    Sized(Option<Layout>),
}

/// What the driver must do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Follow what this host says it holds.
    Follow(HostId),
    /// Stop following, and tell the scheduler why.
    Leave(HostId, ParentFailure),
    /// Ask a parent for the pieces from the first up to, not including, the second.
    Fetch {
        parent: HostId,
        first: u32,
        end: u32,
    },
    /// Ask the source for the pieces from `first`; `None` is to the end of the body.
    StartSource {
        run: RunId,
        first: u32,
        end: Option<u32>,
    },
    /// The run has brought all that is needed of it.
    StopSource(RunId),
    /// Ask the source how large the body is: every reader begins inside of it.
    LearnSize,
    /// Nobody answers: go on without the scheduler.
    GoToSource,
}

/// One request to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing asked yet.
    New,
    /// Waiting for the scheduler's word, or for the fetcher to have something.
    Patient {
        until: Instant,
    },
    /// Fetching from parents.
    Swarm,
    AtSource,
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
    /// A download that has `had` already, from before.
    pub fn new(limits: Limits, had: PieceSet) -> Self {
        Self {
            limits,
            phase: Phase::New,
            layout: None,
            had,
            interests: Interests::default(),
            parents: Parents::default(),
            source: SourceRuns::default(),
            sizing: Sizing::NotAsked,
            actions: VecDeque::new(),
        }
    }

    /// Records `event`, then plans the fetches it makes possible.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::ReaderJoined(reader, interest) => self.interests.join(reader, interest),
            Event::ReaderMoved(reader, offset) => self.interests.moved(reader, offset),
            Event::ReaderLeft(reader) => self.interests.leave(reader),
            Event::Asked => self.be_patient(now, self.limits.answer_timeout),
            Event::Wait(patience) => self.be_patient(now, patience),
            Event::Candidates(candidates) => self.candidates(now, candidates),
            Event::AtSource => self.phase = Phase::AtSource,
            Event::Begun(layout) | Event::Ended(layout) => self.layout = Some(layout),
            Event::ParentHolds(parent, pieces) => self.parents.holds(now, &parent, &pieces),
            Event::ParentFailed(parent, failure) => self.parent_failed(now, parent, failure),
            Event::Had(piece) => self.had(now, piece),
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
        for parent in self.parents.overdue(now) {
            self.parent_failed(now, parent, ParentFailure::Slow);
        }
        if let Phase::Patient { until } = self.phase
            && until <= now
        {
            self.phase = Phase::AtSource;
            self.actions.push_back(Action::GoToSource);
        }
        self.plan(now);
    }

    /// The next thing to do. Call until it returns `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Conductor::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let patience = match self.phase {
            Phase::Patient { until } => Some(until),
            Phase::New | Phase::Swarm | Phase::AtSource => None,
        };
        [patience, self.parents.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether every piece is here.
    pub fn is_whole(&self) -> bool {
        let count = self.layout.and_then(|layout| layout.piece_count());
        count.is_some_and(|count| self.had.len() >= count)
    }

    /// Whether nobody on this host wants anything of it now.
    pub fn is_unwanted(&self) -> bool {
        self.interests.is_empty()
    }

    /// Whether no parent is left.
    pub fn is_orphan(&self) -> bool {
        self.parents.is_empty()
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
            Phase::AtSource => {}
            Phase::Swarm if !self.parents.is_empty() => {}
            Phase::New | Phase::Patient { .. } | Phase::Swarm => {
                self.phase = Phase::Patient {
                    until: now + patience,
                };
            }
        }
    }

    fn candidates(&mut self, now: Instant, candidates: Vec<HostId>) {
        if self.phase == Phase::AtSource {
            return;
        }
        let deadline = now + self.limits.piece_timeout;
        for candidate in candidates {
            if self.parents.join(candidate.clone(), deadline) {
                self.actions.push_back(Action::Follow(candidate));
            }
        }
        self.phase = match self.parents.is_empty() {
            true => Phase::Patient {
                until: now + self.limits.answer_timeout,
            },
            false => Phase::Swarm,
        };
    }

    fn parent_failed(&mut self, now: Instant, parent: HostId, failure: ParentFailure) {
        if !self.parents.leave(&parent) {
            return;
        }
        self.actions.push_back(Action::Leave(parent, failure));
        if self.parents.is_empty() && self.phase == Phase::Swarm {
            self.phase = Phase::Patient {
                until: now + self.limits.answer_timeout,
            };
        }
    }

    fn had(&mut self, now: Instant, piece: PieceIndex) {
        self.had.insert(piece);
        self.parents.arrived(piece, now + self.limits.piece_timeout);
        self.source.arrived(piece);
    }

    fn plan(&mut self, now: Instant) {
        match self.phase {
            Phase::AtSource => self.plan_source(),
            Phase::Swarm => self.plan_parents(now),
            Phase::New | Phase::Patient { .. } => {}
        }
    }

    fn plan_parents(&mut self, now: Instant) {
        let Some(layout) = self.layout else { return };
        let run_max = (self.limits.run_bytes / layout.piece_len()).max(1) as u32;
        let deadline = now + self.limits.piece_timeout;
        while let Some((parent, first)) = self.choose_fetch(layout) {
            let end = self.parents.run_end(&parent, first, run_max, &self.had);
            self.parents.begin(&parent, first..end, deadline);
            self.actions.push_back(Action::Fetch { parent, first, end });
        }
    }

    /// The most urgent piece that some parent with room can bring, and the least busy such parent.
    fn choose_fetch(&self, layout: Layout) -> Option<(HostId, u32)> {
        if !self.parents.has_room(self.limits.runs_per_parent) {
            return None;
        }
        let count = self.count(layout);
        self.interests.pieces(layout, count).find_map(|wanted| {
            let mut next = self.needed_at(wanted.start);
            while next < wanted.end {
                if let Some(parent) = self
                    .parents
                    .best_for(PieceIndex(next), self.limits.runs_per_parent)
                {
                    return Some((parent, next));
                }
                next = self.needed_at(next + 1);
            }
            None
        })
    }

    /// The first piece at or after `start` that is neither had nor in flight.
    fn needed_at(&self, start: u32) -> u32 {
        let mut next = self.had.first_missing(start);
        while self.parents.in_flight(PieceIndex(next)) {
            next = self.had.first_missing(next + 1);
        }
        next
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
            if self.interests.all_inside() && self.sizing == Sizing::NotAsked {
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
            let first = self.had.first_missing(wanted.start);
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

    /// The first piece after `first` that is had already, or `end`.
    fn next_had(&self, first: u32, end: u32) -> u32 {
        if self.had.is_empty() {
            return end;
        }
        (first..end)
            .find(|index| self.had.contains(PieceIndex(*index)))
            .unwrap_or(end)
    }
}
