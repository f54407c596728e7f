//! What the scheduler of this process knows: hosts, tasks, and who gets pieces from whom.

use std::fmt;

use protocol::operator::{HostStatus, PeerStatus, Snapshot, TaskStatus};
use serde::{Deserialize, Serialize};

/// The scheduler role of a node; what is listed is cut, the counts are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SchedulerView {
    host_count: usize,
    task_count: usize,
    peer_count: usize,
    hosts: Vec<HostView>,
    tasks: Vec<TaskView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HostView {
    id: String,
    address: String,
    is_live: bool,
    is_seed: bool,
    upload_slots: u32,
    children: u32,
    tasks: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TaskView {
    task: String,
    phase: String,
    source: Option<String>,
    pieces: Option<u32>,
    peers: Vec<PeerView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PeerView {
    host: String,
    state: String,
    pieces: u32,
    parents: Vec<String>,
}

/// Hosts and tasks that a person is shown; the rest is in the numbers, and in JSON.
const SHOWN_MAX: usize = 20;

impl From<Snapshot> for SchedulerView {
    fn from(told: Snapshot) -> Self {
        Self {
            host_count: told.host_count,
            task_count: told.task_count,
            peer_count: told.peer_count,
            hosts: told.hosts.into_iter().map(HostView::from).collect(),
            tasks: told.tasks.into_iter().map(TaskView::from).collect(),
        }
    }
}

impl From<HostStatus> for HostView {
    fn from(told: HostStatus) -> Self {
        Self {
            id: told.host.id.to_string(),
            address: told.host.address.to_string(),
            is_live: told.is_live,
            is_seed: told.is_seed,
            upload_slots: told.upload_slots,
            children: told.children,
            tasks: told.tasks,
        }
    }
}

impl From<TaskStatus> for TaskView {
    fn from(told: TaskStatus) -> Self {
        Self {
            task: told.task.to_string(),
            phase: told.phase,
            source: told.source.map(|id| id.to_string()),
            pieces: told.pieces,
            peers: told.peers.into_iter().map(PeerView::from).collect(),
        }
    }
}

impl From<PeerStatus> for PeerView {
    fn from(told: PeerStatus) -> Self {
        Self {
            host: told.host.to_string(),
            state: told.state,
            pieces: told.pieces,
            parents: told.parents.iter().map(ToString::to_string).collect(),
        }
    }
}

impl fmt::Display for SchedulerView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hosts, tasks, peers) = (self.host_count, self.task_count, self.peer_count);
        write!(f, "scheduling {hosts} hosts, {tasks} tasks, {peers} peers")?;
        for host in self.hosts.iter().take(SHOWN_MAX) {
            let seed = if host.is_seed { "seed" } else { "" };
            let silent = if host.is_live { "" } else { ", silent" };
            let HostView {
                id,
                address,
                children,
                upload_slots,
                tasks,
                ..
            } = host;
            write!(
                f,
                "\n  {id:<24} {address:<24} {seed:<4} {children}/{upload_slots} children, {tasks} tasks{silent}"
            )?;
        }
        // Those that everybody holds are in the numbers.
        let is_moving = |task: &&TaskView| task.peers.iter().any(|peer| peer.state != "complete");
        for task in self.tasks.iter().filter(is_moving).take(SHOWN_MAX) {
            write!(f, "\n  {} {}", task.task, task.phase)?;
            for PeerView {
                host,
                state,
                pieces,
                parents,
            } in &task.peers
            {
                let total = task
                    .pieces
                    .map_or("?".to_owned(), |total| total.to_string());
                let parents = parents.join(", ");
                write!(f, "\n    {host:<24} {state:<9} {pieces}/{total} {parents}")?;
            }
        }
        Ok(())
    }
}
