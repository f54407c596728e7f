//! The session between a host and a scheduler: what each side says, and the trait that opens it.
//!
//! One session carries all tasks of one host. Both directions are bounded; a full queue makes the
//! sender wait. The scheduler may forget everything at any moment: a host that opens a new session
//! announces itself and what it holds, and registers again what it is still fetching.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    batch::SignedBatch,
    content::{AttemptId, Origin, TaskId},
    host::{Host, HostId},
    piece_set::PieceSet,
    want::Want,
};

/// Messages that wait in one direction of a session before the sender waits.
pub const SESSION_QUEUE: usize = 256;

/// Tasks named in one [`Up::Announce`] or [`Up::Held`].
pub const TASKS_PER_MESSAGE_MAX: usize = 1024;

/// Candidate parents in one [`Down::Parents`].
pub const CANDIDATES_MAX: usize = 16;

/// Siblings in one [`Down::Parents`].
pub const SIBLINGS_MAX: usize = 32;

/// A scheduler, in this process or another.
#[async_trait::async_trait]
pub trait Scheduler: Send + Sync + std::fmt::Debug {
    /// Opens the session of the host that `hello` describes. Ends when either side drops its half.
    async fn open(&self, hello: Hello) -> Result<Session, SessionError>;
}

/// What a host says of itself when a session opens. A remote scheduler checks `host.id` against
/// the certificate of the connection and takes the roles from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub host: Host,
    pub is_seed: bool,
    /// How many children this host serves at once.
    pub upload_slots: u32,
    pub idc: Option<String>,
    pub location: Option<String>,
}

/// The host's half of an open session.
#[derive(Debug)]
pub struct Session {
    pub up: mpsc::Sender<Up>,
    pub down: mpsc::Receiver<Down>,
}

/// From a host to its scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Up {
    /// Tasks that the host holds whole: after the session opened, and when one is complete.
    Held { tasks: Vec<TaskId> },
    /// Tasks that the host holds no more.
    Dropped { tasks: Vec<TaskId> },
    /// The host wants `task`, or no more of it than `wants` where that names something, and asks
    /// what to do.
    Register {
        task: TaskId,
        origin: Origin,
        wants: Vec<Want>,
    },
    /// Pieces that came since the last report. Sent in batches, and at least every
    /// [`PROGRESS_INTERVAL`] while a fetcher is working, as proof that it lives.
    Progress {
        task: TaskId,
        attempt: AttemptId,
        total: Option<u32>,
        new: PieceSet,
    },
    /// `parent` could not be used and is to be replaced.
    ParentFailed {
        task: TaskId,
        parent: HostId,
        reason: ParentFailure,
    },
    /// What proves a content of one piece that the host holds, for the scheduler to hand on with
    /// the parents: their children need not ask first what they hold.
    Proves(Arc<Proof>),
    /// The host's download is over.
    Finished { task: TaskId, outcome: Outcome },
    /// What the host is doing; sent every few seconds. `upload_rate` is the bytes per second that
    /// it gave to other hosts since the last such message.
    Load { uploads: u32, upload_rate: u64 },
}

/// From a scheduler to a host.
#[derive(Debug, Clone, PartialEq)]
pub enum Down {
    /// Fetch from these. The parents, best first, have a way to a source; the siblings are equals
    /// who exchange what they have. Adds to what was told before, and takes nothing back.
    Parents {
        task: TaskId,
        parents: Vec<Candidate>,
        siblings: Vec<Candidate>,
        fetcher: Option<HostId>,
        /// Where the content has one piece and every parent holds it.
        proof: Option<Arc<Proof>>,
    },
    /// Somebody is about to have it. Ask the scheduler no more; go to the source yourself only
    /// when nothing was heard of this task for `patience`.
    Wait { task: TaskId, patience: Duration },
    /// The host is the fetcher: go to the source for what `holders` do not have. `epoch` rises
    /// with every grant of the task.
    BackToSource {
        task: TaskId,
        epoch: u64,
        holders: Vec<Candidate>,
    },
    /// Begin to have this task, or no more of it than `wants` where that names something: to a seed
    /// where somebody wants it, to any host for a preheat.
    Warm {
        task: TaskId,
        origin: Origin,
        wants: Vec<Want>,
    },
    /// Nobody else could get it for all: each host asks the upstream for itself, by its own
    /// credential, and shares nothing.
    OnYourOwn { task: TaskId, reason: Failure },
    /// The whole of this attempt did not match its digest: what is had of it is worth nothing.
    Drop { task: TaskId, attempt: AttemptId },
}

/// All that a child needs to know of a content of one piece. Nobody is believed who hands it on:
/// the child checks the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub batch: SignedBatch,
    pub media_type: Option<String>,
}

/// A host to fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub host: Host,
}

/// Why a parent could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParentFailure {
    /// No connection, or it broke.
    Unreachable,
    /// Connected, but slower than the timeout allows.
    Slow,
    /// It says that it does not have the task.
    Gone,
    /// It has no slot free.
    Busy,
    /// It sent bytes that do not match a signed digest, or a batch that does not hold.
    Lied,
}

/// How a download ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All pieces are held and the digest of the whole holds.
    Complete,
    /// Nobody here wants it any more.
    Left,
    Failed(Failure),
}

/// Why a fetcher could not get a task from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The upstream wants a credential that the fetcher does not have.
    Refused,
    /// The upstream does not have it.
    NotFound,
    /// The upstream cannot be reached, is failing, or limits.
    Unavailable,
    /// The whole did not match its digest.
    Corrupt,
    /// The fetcher has no room or is broken.
    Local,
}

/// Why no session could be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("the scheduler cannot be reached: {0}")]
    Unreachable(String),
    #[error("the scheduler refuses this host: {0}")]
    Refused(String),
}

/// A fetcher that says nothing for three of these is taken for dead.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// What a scheduler's driver receives for each session: the other half of [`Session`].
#[derive(Debug)]
pub struct SessionEnd {
    pub hello: Hello,
    pub up: mpsc::Receiver<Up>,
    pub down: mpsc::Sender<Down>,
}

// === impl Proof ===

impl Proof {
    /// A proof, if `batch` is the whole word on a content of one piece.
    pub fn new(batch: SignedBatch, media_type: Option<String>) -> Option<Self> {
        let is_whole =
            batch.batch.layout.piece_count() == Some(1) && batch.batch.digests.len() == 1;
        is_whole.then_some(Self { batch, media_type })
    }
}

// === impl Session ===

impl Session {
    /// Both halves of a new session.
    pub fn pair(hello: Hello) -> (Self, SessionEnd) {
        let (up_sender, up_receiver) = mpsc::channel(SESSION_QUEUE);
        let (down_sender, down_receiver) = mpsc::channel(SESSION_QUEUE);
        let host_half = Self {
            up: up_sender,
            down: down_receiver,
        };
        (
            host_half,
            SessionEnd {
                hello,
                up: up_receiver,
                down: down_sender,
            },
        )
    }
}

// === impl Down ===

impl Down {
    /// The task that the message speaks of.
    pub fn task(&self) -> TaskId {
        match self {
            Self::Parents { task, .. }
            | Self::Wait { task, .. }
            | Self::BackToSource { task, .. }
            | Self::Warm { task, .. }
            | Self::OnYourOwn { task, .. }
            | Self::Drop { task, .. } => *task,
        }
    }
}
