//! Pure: what can be asked of a running engine: who is here, what goes on, why this parent.
//!
//! Plain data, cut at a number that the caller names. It changes nothing.

use std::time::Instant;

use protocol::{
    HostId, TaskId,
    operator::{
        self, Child, HostStatus, Judged, PeerStatus, Question, ScorePart, Snapshot, TaskStatus,
        Verdict,
    },
};

use super::{
    Engine, HostState, Refusal, Score,
    evaluator::{
        WEIGHT_AFFINITY, WEIGHT_CAPACITY, WEIGHT_PIECES, WEIGHT_SEED, WEIGHT_SUCCESS,
        WEIGHT_THROUGHPUT,
    },
    filter::Filter,
    hosts::{HostKey, Hosts},
    peer::{Peer, PeerState},
    task::Task,
};

/// Why a host would be, or not be, a parent of another for a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub candidate: HostId,
    pub verdict: Result<Score, Refusal>,
}

// === impl Engine ===

impl Engine {
    /// The whole in numbers, and the first `listed_max` hosts, tasks, and peers over all tasks.
    pub fn snapshot(&self, now: Instant, listed_max: usize) -> Snapshot {
        let silence = self.limits.host_silence;
        let hosts = self
            .hosts
            .iter()
            .take(listed_max)
            .map(|(_, record)| HostStatus {
                host: record.host.clone(),
                is_live: record.state(now, silence) == HostState::Live,
                is_seed: record.is_seed,
                upload_slots: record.upload_slots,
                children: record.children(),
                tasks: record.tasks.len() as u64,
            });
        let mut peers_left = listed_max;
        let tasks = self.tasks.values().take(listed_max).map(|task| {
            let status = task_status(&self.hosts, task, peers_left);
            peers_left -= status.peers.len();
            status
        });
        Snapshot {
            host_count: self.hosts.len(),
            task_count: self.tasks.len(),
            peer_count: self
                .hosts
                .iter()
                .map(|(_, record)| record.tasks.len())
                .sum(),
            hosts: hosts.collect(),
            tasks: tasks.collect(),
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

    /// [`Engine::explain`] for one child of the question's task, or for all that are getting it.
    pub fn answer(&self, now: Instant, question: &Question) -> Vec<operator::Explanation> {
        let children: Vec<HostId> = match &question.child {
            Child::Host(id) => vec![id.clone()],
            Child::EveryRunning => self.running(question.task, question.listed_max),
        };
        let mut left = question.listed_max;
        let mut answer = Vec::new();
        for child in children.into_iter().filter(|child| self.has_host(child)) {
            if left == 0 {
                break;
            }
            let explained = self.explain(now, question.task, &child, left);
            left -= explained.len();
            answer.push(self.explanation(question.task, child, explained));
        }
        answer
    }

    fn running(&self, task: TaskId, max: usize) -> Vec<HostId> {
        let is_running = |(_, peer): &(HostKey, &Peer)| peer.state != PeerState::Complete;
        let name = |(key, _)| self.hosts.get(key).map(|record| record.host.id.clone());
        let peers = self.tasks.get(&task).into_iter().flat_map(Task::peers);
        peers
            .filter(is_running)
            .filter_map(name)
            .take(max)
            .collect()
    }

    fn explanation(
        &self,
        task: TaskId,
        child: HostId,
        explained: Vec<Explanation>,
    ) -> operator::Explanation {
        let key = self.hosts.key(&child);
        let task = self.tasks.get(&task);
        let peer = task.zip(key).and_then(|(task, key)| task.peer(key));
        let is_parent = |candidate: &HostId| {
            let parents = peer.map_or(&[][..], |peer| &peer.parents);
            self.hosts
                .key(candidate)
                .is_some_and(|key| parents.contains(&key))
        };
        let judged = |Explanation { candidate, verdict }| Judged {
            is_parent: is_parent(&candidate),
            candidate,
            verdict: match verdict {
                Ok(score) => Verdict::Scored(parts(score)),
                Err(refusal) => Verdict::Refused(name_of(refusal).to_owned()),
            },
        };
        operator::Explanation {
            child,
            state: peer.map(|peer| peer.state.name().to_owned()),
            candidates: explained.into_iter().map(judged).collect(),
        }
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
        state: peer.state.name().to_owned(),
        pieces: peer.pieces,
        parents: peer.parents.iter().copied().filter_map(name).collect(),
        siblings: peer.siblings.iter().copied().filter_map(name).collect(),
    };
    let peers = task
        .peers()
        .filter_map(|(key, peer)| Some(status(peer, name(key)?)));
    TaskStatus {
        task: task.id,
        phase: task.phase.name().to_owned(),
        source: task.source_host().and_then(name),
        pieces: task.total,
        peers: peers.take(listed_max).collect(),
    }
}

/// A score as it is shown: every part of it, with what it is worth.
fn parts(score: Score) -> Vec<ScorePart> {
    let Score {
        pieces,
        capacity,
        throughput,
        success,
        seed,
        affinity,
    } = score;
    let parts = [
        ("pieces", WEIGHT_PIECES, pieces),
        ("capacity", WEIGHT_CAPACITY, capacity),
        ("throughput", WEIGHT_THROUGHPUT, throughput),
        ("affinity", WEIGHT_AFFINITY, affinity),
        ("success", WEIGHT_SUCCESS, success),
        ("seed", WEIGHT_SEED, seed),
    ];
    let part = |(name, weight, value): (&str, f64, f64)| ScorePart {
        name: name.to_owned(),
        weight,
        value,
    };
    parts.into_iter().map(part).collect()
}

/// A rule as it is shown.
fn name_of(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Itself => "itself",
        Refusal::NotAlive => "not-alive",
        Refusal::Banned => "banned",
        Refusal::NothingToGive => "nothing-to-give",
        Refusal::FailedForChild => "failed-for-child",
        Refusal::ServesNobody => "serves-nobody",
        Refusal::Cycle => "cycle",
        Refusal::TooDeep => "too-deep",
        Refusal::NoFreeSlot => "no-free-slot",
    }
}
