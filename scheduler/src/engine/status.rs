//! Pure: what can be asked of a running engine: who is here, what goes on, why this parent.
//!
//! Plain data, cut at a number that the caller names. It changes nothing.

use std::time::Instant;

use protocol::{Host, HostId, TaskId};

use super::{
    Engine, HostState, Refusal, Score, filter::Filter, hosts::Hosts, peer::Peer, task::Task,
};

/// The state of an engine at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    pub host_count: usize,
    pub task_count: usize,
    pub peer_count: usize,
    /// The first hosts, by when they came.
    pub hosts: Vec<HostStatus>,
    /// The first tasks, by digest.
    pub tasks: Vec<TaskStatus>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct HostStatus {
    pub host: Host,
    pub state: HostState,
    pub is_seed: bool,
    pub upload_slots: u32,
    /// Children that were given to it.
    pub children: u32,
    /// Tasks in which it takes part.
    pub tasks: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TaskStatus {
    pub task: TaskId,
    /// `quiet`, `settling`, `warming`, `fetching` or `failed`.
    pub phase: &'static str,
    /// The host that brings it in, or is to.
    pub source: Option<HostId>,
    pub pieces: Option<u32>,
    /// The first peers, by when their hosts came.
    pub peers: Vec<PeerStatus>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    pub host: HostId,
    /// `waiting`, `fed`, `at-source` or `complete`.
    pub state: &'static str,
    pub pieces: u32,
    pub parents: Vec<HostId>,
    pub siblings: Vec<HostId>,
}

/// Why a host would be, or not be, a parent of another for a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub candidate: HostId,
    pub verdict: Result<Score, Refusal>,
}

// === impl Engine ===

impl Engine {
    /// The whole in numbers, and the first `listed_max` hosts, tasks and peers of each task.
    pub fn snapshot(&self, now: Instant, listed_max: usize) -> Snapshot {
        let silence = self.limits.host_silence;
        let hosts = self
            .hosts
            .iter()
            .take(listed_max)
            .map(|(_, record)| HostStatus {
                host: record.host.clone(),
                state: record.state(now, silence),
                is_seed: record.is_seed,
                upload_slots: record.upload_slots,
                children: record.children(),
                tasks: record.tasks.len(),
            });
        let tasks = self.tasks.values().take(listed_max);
        Snapshot {
            host_count: self.hosts.len(),
            task_count: self.tasks.len(),
            peer_count: self
                .hosts
                .iter()
                .map(|(_, record)| record.tasks.len())
                .sum(),
            hosts: hosts.collect(),
            tasks: tasks
                .map(|task| task_status(&self.hosts, task, listed_max))
                .collect(),
        }
    }

    /// Every host that takes part in `task`, and how it stands as a parent of `child`: the score
    /// by its parts, or the rule that refuses it. At most `listed_max` of them.
    pub fn explain(
        &self,
        now: Instant,
        task: TaskId,
        child: &HostId,
        listed_max: usize,
    ) -> Vec<Explanation> {
        let Some((task, child)) = self.tasks.get(&task).zip(self.hosts.key(child)) else {
            return Vec::new();
        };
        let filter = Filter::new(now, &self.limits, &self.hosts, task, child);
        let explain = |(key, record): (_, &super::hosts::HostRecord)| Explanation {
            candidate: record.host.id.clone(),
            verdict: filter.judge(key),
        };
        let known = task
            .peers()
            .filter_map(|(key, _)| Some((key, self.hosts.get(key)?)));
        known.take(listed_max).map(explain).collect()
    }

    /// How many hosts and tasks there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.hosts.len(), self.tasks.len())
    }
}

fn task_status(hosts: &Hosts, task: &Task, listed_max: usize) -> TaskStatus {
    let name = |key| hosts.get(key).map(|record| record.host.id.clone());
    let status = |peer: &Peer, host| PeerStatus {
        host,
        state: peer.state.name(),
        pieces: peer.pieces,
        parents: peer.parents.iter().copied().filter_map(name).collect(),
        siblings: peer.siblings.iter().copied().filter_map(name).collect(),
    };
    let peers = task
        .peers()
        .filter_map(|(key, peer)| Some(status(peer, name(key)?)));
    TaskStatus {
        task: task.id,
        phase: task.phase.name(),
        source: task.source_host().and_then(name),
        pieces: task.total,
        peers: peers.take(listed_max).collect(),
    }
}
