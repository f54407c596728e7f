//! Pure: what the conductor is told, and what it has its driver do.

use std::{ops::Range, time::Duration};

use protocol::{HostId, Layout, PieceIndex, PieceSet, scheduler::ParentFailure};

use super::{Interest, ReaderId, Relation};

/// What happened since the last call.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    ReaderJoined(ReaderId, Interest),
    ReaderMoved(ReaderId, u64),
    ReaderLeft(ReaderId),
    /// Another host wants this from here.
    FollowerWants(ReaderId, Interest),
    /// The task was registered; an answer is awaited.
    Asked,
    /// The scheduler says who may have it, and what each is to this host.
    Candidates(Vec<(HostId, Relation)>),
    /// The scheduler says that somebody is about to have it.
    Wait(Duration),
    /// This host goes to the source: told to, or because nobody can tell it anything. Those that
    /// are named hold a part of the task: only the rest is asked of the source.
    AtSource(Vec<HostId>),
    /// Another host is to ask the source from now on.
    GrantLost,
    /// The layout is known: from the source or from the first supplier.
    Begun(Layout),
    /// Another attempt has begun in place of one of which nothing is here: what suppliers said that
    /// they hold was of the old one.
    Anew,
    /// These pieces are proven to be what the supplier says it holds.
    Holds(HostId, PieceSet),
    SupplierFailed(HostId, ParentFailure),
    /// The supplier has no slot for the run that began with this piece.
    RunRefused(HostId, u32),
    /// The supplier brought a piece, and it is what was signed.
    Brought(HostId, PieceIndex),
    /// This host itself takes no more at the moment: no supplier is slow for it.
    Throttled,
    /// The source brought a piece.
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
    /// Ask a supplier for a run of pieces.
    Fetch {
        supplier: HostId,
        relation: Relation,
        pieces: Range<u32>,
    },
    /// Nobody waits any more for the run that began with this piece.
    Cancel { supplier: HostId, first: u32 },
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
    /// Nobody answers: ask somebody else, or go to the source.
    AskElsewhere,
}

/// One request to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u32);
