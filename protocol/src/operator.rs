//! What a person asks of a scheduler: to warm tasks before the rush, what goes on, and why.
//!
//! Every host of the cluster may ask. Each answer is cut at a number that the asker names, which
//! is itself bounded. The names of states and rules in here are for people to read: a scheduler of
//! the next version may have one more of them.

use tokio::sync::mpsc;

use crate::{
    content::{Origin, TaskId},
    host::{Host, HostId},
    scheduler::{Failure, SessionError},
};

/// Tasks in one [`PreheatOrder`]; an order for more is refused.
pub const TASKS_PER_ORDER_MAX: usize = 1024;

/// The most hosts, tasks and peers, or the most candidates, that one answer lists.
pub const LISTED_MAX: usize = 2048;

/// The longest name of a state, a rule or a part of a score, in bytes.
pub const LABEL_LEN_MAX: usize = 64;

/// Parts of one score.
pub const SCORE_PARTS_MAX: usize = 16;

/// Messages of a preheat that wait for whoever follows it. A full queue holds up nobody: each
/// message tells all, so that the next one replaces those that had no room.
pub const PROGRESS_QUEUE: usize = 4;

/// A scheduler, in this process or another, as an operator sees it.
#[async_trait::async_trait]
pub trait Operator: Send + Sync + std::fmt::Debug {
    /// Warms the tasks of `order`. The stream ends after the message in which every task is over;
    /// one that ends before has lost its scheduler. To drop it is to give no further orders.
    async fn preheat(
        &self,
        order: PreheatOrder,
    ) -> Result<mpsc::Receiver<PreheatProgress>, SessionError>;

    /// Who is here and what goes on: numbers, and the first `listed_max` of each kind.
    async fn snapshot(&self, listed_max: usize) -> Result<Snapshot, SessionError>;

    /// Why the peers of a task have the parents that they have.
    async fn explain(&self, question: Question) -> Result<Vec<Explanation>, SessionError>;
}

/// Tasks that are to be had, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreheatOrder {
    pub tasks: Vec<(TaskId, Origin)>,
    pub scope: Scope,
}

/// Which hosts are to have a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The seed that the ring names for the task.
    Seeds,
    /// Every host that has a session when the order comes and does not leave; a seed first.
    AllHosts,
}

/// Where a preheat stands: all of its tasks, in the order of the order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PreheatProgress {
    pub tasks: Vec<TaskProgress>,
}

/// Where the preheat of one task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskProgress {
    pub task: TaskId,
    /// Hosts that are to have it.
    pub wanted: u32,
    /// Those of them that have it.
    pub held: u32,
    /// Pieces had, over all of these hosts.
    pub pieces: u64,
    /// Pieces of the task, once known.
    pub total: Option<u32>,
    pub state: PreheatState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreheatState {
    Running,
    /// Everybody who is to have it has it.
    Done,
    /// Nothing more is tried; some hosts may have it.
    Failed(PreheatFailure),
}

/// Why a task was not warmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PreheatFailure {
    /// There is no host that could have it: no seed, or nobody at all.
    NoHost,
    /// A host was told and did not get on with it.
    Stuck,
    /// The source did not give it.
    Source(Failure),
}

/// The state of a scheduler at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub host_count: usize,
    pub task_count: usize,
    pub peer_count: usize,
    /// The first hosts, by when they came.
    pub hosts: Vec<HostStatus>,
    /// The first tasks, by digest.
    pub tasks: Vec<TaskStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostStatus {
    pub host: Host,
    /// Whether it was heard of late.
    pub is_live: bool,
    pub is_seed: bool,
    pub upload_slots: u32,
    /// Children that were given to it.
    pub children: u32,
    /// Tasks in which it takes part.
    pub tasks: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    pub task: TaskId,
    /// As in `quiet`, `settling`, `warming`, `fetching` or `failed`.
    pub phase: String,
    /// The host that brings it in, or is to.
    pub source: Option<HostId>,
    pub pieces: Option<u32>,
    /// The first peers, by when their hosts came; over all tasks no more than are listed.
    pub peers: Vec<PeerStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    pub host: HostId,
    /// As in `waiting`, `fed`, `at-source` or `complete`.
    pub state: String,
    pub pieces: u32,
    pub parents: Vec<HostId>,
    pub siblings: Vec<HostId>,
}

/// Whose parents in which task are to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub task: TaskId,
    pub child: Child,
    /// Candidates listed, over all children.
    pub listed_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Child {
    /// One with a session here, whether or not it takes part in the task.
    Host(HostId),
    /// All that are getting the task.
    EveryRunning,
}

/// Why one host has the parents that it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub child: HostId,
    /// As in [`PeerStatus`]; `None` for a host that takes no part in the task.
    pub state: Option<String>,
    pub candidates: Vec<Judged>,
}

/// How one host stands as a parent of the child.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub candidate: HostId,
    /// Whether it is a parent of the child already.
    pub is_parent: bool,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It could be one, and how good a one is the sum of these.
    Scored(Vec<ScorePart>),
    /// It cannot be one, by the rule of this name.
    Refused(String),
}

/// One part of a score.
#[derive(Debug, Clone, PartialEq)]
pub struct ScorePart {
    pub name: String,
    /// What the part is worth in the sum.
    pub weight: f64,
    /// From 0 to 1.
    pub value: f64,
}

// === impl PreheatProgress ===

impl PreheatProgress {
    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        self.tasks.iter().all(|task| match task.state {
            PreheatState::Running => false,
            PreheatState::Done | PreheatState::Failed(_) => true,
        })
    }
}

// === impl Verdict ===

impl Verdict {
    /// The weighted sum, if it has a score.
    pub fn score(&self) -> Option<f64> {
        match self {
            Self::Scored(parts) => Some(parts.iter().map(|part| part.weight * part.value).sum()),
            Self::Refused(_) => None,
        }
    }
}
