//! What a parent tells its children: which pieces of which attempt it holds, and the signed
//! digests that prove them. One stream per pair of hosts carries all their tasks.

use tokio::sync::mpsc;

use crate::{
    batch::SignedBatch,
    content::{AttemptId, Origin, TaskId},
    host::{Host, HostId},
    layout::Layout,
    piece_set::PieceSet,
    right::Right,
    scheduler::SessionError,
    want::Want,
};

/// Messages that wait in one direction of a stream before the sender waits.
pub const STREAM_QUEUE: usize = 256;

/// From a child to a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Subscribe(TaskId),
    /// As `Subscribe`; a seed that does not have the task begins to, with what the child wants. How a child with no scheduler
    /// asks the seed that the ring names.
    Bring {
        task: TaskId,
        origin: Origin,
    },
    /// What the child reads of a task that it follows, in place of what it said before. Who brings
    /// the task in from the source brings that.
    Wants {
        task: TaskId,
        wants: Vec<Want>,
    },
    /// A right by which a seed may fetch the task, where its registry wants to know who asks. It has no
    /// answer.
    Lend {
        task: TaskId,
        origin: Origin,
        right: Right,
    },
    Unsubscribe(TaskId),
}

/// From a parent to a child, about a task that the child subscribed to. The first answer is
/// [`Tell::Begins`] or [`Tell::Gone`]; a parent that is about to have the task may be silent until
/// its source answers. A new `Begins` for the same task replaces the attempt before.
#[derive(Debug, Clone, PartialEq)]
pub enum Tell {
    /// The attempt, its layout and media type. What it says is proven by the batches alone.
    Begins {
        task: TaskId,
        attempt: AttemptId,
        layout: Layout,
        media_type: Option<String>,
    },
    /// Digests, signed by the one who fetched them from the source. Always before `Holds` names
    /// one of their pieces.
    Batch(SignedBatch),
    /// Pieces that the parent holds since the last message. They may be asked for now.
    Holds {
        task: TaskId,
        attempt: AttemptId,
        new: PieceSet,
    },
    /// The body that began with no size has ended.
    Ended {
        task: TaskId,
        attempt: AttemptId,
        size: u64,
    },
    /// The parent does not have the task, has dropped this attempt, or may not share it.
    Gone { task: TaskId },
}

/// The child's half of a stream.
#[derive(Debug)]
pub struct Subscription {
    pub ask: mpsc::Sender<Ask>,
    pub tell: mpsc::Receiver<Tell>,
}

/// The parent's half of a stream; `child` is who the certificate of the connection names.
#[derive(Debug)]
pub struct Subscriber {
    pub child: HostId,
    pub ask: mpsc::Receiver<Ask>,
    pub tell: mpsc::Sender<Tell>,
}

/// How a child opens a stream to a parent.
#[async_trait::async_trait]
pub trait Availability: Send + Sync + std::fmt::Debug {
    /// Opens the one stream to `parent`. Ends when either side drops its half.
    async fn open(&self, parent: &Host) -> Result<Subscription, SessionError>;
}

/// How the parent's gRPC service hands a new stream to the peer server.
#[async_trait::async_trait]
pub trait Subscribers: Send + Sync + std::fmt::Debug {
    async fn accept(&self, subscriber: Subscriber);
}

// === impl Ask ===

impl Ask {
    pub fn task(&self) -> TaskId {
        match self {
            Self::Subscribe(task)
            | Self::Bring { task, .. }
            | Self::Wants { task, .. }
            | Self::Lend { task, .. }
            | Self::Unsubscribe(task) => *task,
        }
    }
}

// === impl Subscription ===

impl Subscription {
    /// Both halves of a new stream.
    pub fn pair(child: HostId) -> (Self, Subscriber) {
        let (ask_sender, ask_receiver) = mpsc::channel(STREAM_QUEUE);
        let (tell_sender, tell_receiver) = mpsc::channel(STREAM_QUEUE);
        let child_half = Self {
            ask: ask_sender,
            tell: tell_receiver,
        };
        (
            child_half,
            Subscriber {
                child,
                ask: ask_receiver,
                tell: tell_sender,
            },
        )
    }
}
