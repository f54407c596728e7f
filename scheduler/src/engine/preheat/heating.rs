//! Pure: one task of an order: one host begins with it, then the others are told.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use protocol::{
    Down, HostId, Origin, TaskId,
    operator::{PreheatFailure, PreheatState, Scope, TaskProgress},
    ring,
    scheduler::Failure,
};

use super::told::{Look, Told, is_final};
use crate::engine::{
    Command, HostState, Limits,
    hosts::{HostKey, HostRecord, Hosts},
    peer::PeerState,
    task::Task,
};

/// Hosts that are getting one task for an order at once; the next ones wait.
pub(super) const HOSTS_AT_ONCE: usize = 256;

/// Hosts among which one is chosen to begin where there is no seed.
const LEADERS_COMPARED_MAX: usize = 64;

/// Hosts that may fail to begin with a task before it is given up.
const LEADERS_MAX: usize = 3;

/// One task of an order.
#[derive(Debug)]
pub(super) struct Heating {
    task: TaskId,
    origin: Origin,
    scope: Scope,
    state: PreheatState,
    /// Hosts that were chosen to begin.
    leaders: Vec<HostKey>,
    /// The one of them that has not failed, and is counted already.
    leader: Option<HostKey>,
    /// Whether the swarm is known to be getting it.
    is_coming: bool,
    /// The last host that was looked at.
    cursor: Option<HostKey>,
    /// Hosts that came after the order are left out.
    end: HostKey,
    /// Hosts that were here when the order came.
    expected: u32,
    is_everybody_told: bool,
    under_way: BTreeMap<HostKey, Told>,
    held: u32,
    failed: u32,
    /// Why the last host failed.
    failure: Option<PreheatFailure>,
    total: Option<u32>,
}

/// What a step may read and say.
pub(super) struct Scene<'a> {
    pub(super) now: Instant,
    pub(super) limits: &'a Limits,
    pub(super) hosts: &'a Hosts,
    pub(super) tasks: &'a BTreeMap<TaskId, Task>,
    pub(super) commands: &'a mut VecDeque<Command>,
    pub(super) visits_left: usize,
}

// === impl Heating ===

impl Heating {
    /// A task for the hosts that came before the second of `there`, of which there are as many as
    /// its first tells.
    pub(super) fn new(
        (task, origin): (TaskId, Origin),
        scope: Scope,
        (expected, end): (u32, HostKey),
    ) -> Self {
        Self {
            task,
            origin,
            scope,
            state: PreheatState::Running,
            leaders: Vec::new(),
            leader: None,
            is_coming: false,
            cursor: None,
            end,
            expected,
            is_everybody_told: false,
            under_way: BTreeMap::new(),
            held: 0,
            failed: 0,
            failure: None,
            total: None,
        }
    }

    pub(super) fn state(&self) -> PreheatState {
        self.state
    }

    pub(super) fn task(&self) -> TaskId {
        self.task
    }

    /// The host could not get it.
    pub(super) fn failed(&mut self, now: Instant, host: HostKey, failure: Failure) {
        if let Some(told) = self.under_way.get_mut(&host) {
            *told = told.failed(now, PreheatFailure::Source(failure));
        }
    }

    pub(super) fn step(&mut self, scene: &mut Scene<'_>) {
        let task = scene.tasks.get(&self.task);
        self.total = task.and_then(|task| task.total).or(self.total);
        self.look(scene, task);
        self.is_coming |= task.is_some_and(is_coming);
        if self.state != PreheatState::Running {
            return;
        }
        match self.scope {
            Scope::Seeds if self.held == 0 && self.under_way.is_empty() => self.lead(scene, task),
            Scope::AllHosts if self.is_coming => self.tell_more(scene, task),
            Scope::AllHosts if self.under_way.is_empty() => self.lead(scene, task),
            Scope::Seeds | Scope::AllHosts => {}
        }
        let is_over = match self.scope {
            Scope::Seeds => self.held != 0,
            Scope::AllHosts => self.is_everybody_told && self.under_way.is_empty(),
        };
        if is_over {
            self.state = match self.failure {
                Some(failure) if self.failed != 0 => PreheatState::Failed(failure),
                Some(_) | None if self.held != 0 => PreheatState::Done,
                Some(_) | None => PreheatState::Failed(PreheatFailure::NoHost),
            };
        }
    }

    /// Looks what has become of those who were told. Nobody waits for a host that has gone.
    fn look(&mut self, scene: &mut Scene<'_>, task: Option<&Task>) {
        for (host, told) in std::mem::take(&mut self.under_way) {
            let Some(record) = scene.hosts.get(host) else {
                continue;
            };
            let part = task.and_then(|task| Some((task.state(host)?, task.peer(host)?.pieces)));
            match told.look(scene.now, part) {
                Look::Same(told) => {
                    self.under_way.insert(host, told);
                }
                Look::Again(told) => {
                    self.under_way.insert(host, told);
                    scene.commands.push_back(self.command(record));
                }
                Look::Held => self.held += 1,
                Look::Failed(why) => self.lose(host, why),
            }
        }
    }

    /// A host that was to begin has its second chance with the others.
    fn lose(&mut self, host: HostKey, why: PreheatFailure) {
        self.failure = Some(why);
        if self.is_coming && self.scope == Scope::AllHosts {
            self.failed += 1;
        } else if is_final(why) {
            self.state = PreheatState::Failed(why);
        } else if self.leader == Some(host) {
            self.leader = None;
        }
    }

    /// Tells one host to begin, another one each time.
    fn lead(&mut self, scene: &mut Scene<'_>, task: Option<&Task>) {
        let may_lead = self.leaders.len() < LEADERS_MAX;
        let Some(leader) = self.choose_leader(scene).filter(|_| may_lead) else {
            let failure = self.failure.unwrap_or(PreheatFailure::NoHost);
            self.state = PreheatState::Failed(failure);
            return;
        };
        self.leaders.push(leader);
        self.leader = Some(leader);
        self.tell(scene, task, leader);
    }

    /// The seed that the ring names, those passed over that have failed. Where there is no seed
    /// and every host is to have the task, one of these.
    fn choose_leader(&self, scene: &Scene<'_>) -> Option<HostKey> {
        let can_lead = |(key, record): &(HostKey, &HostRecord)| {
            !self.leaders.contains(key)
                && !scene.hosts.is_banned(*key, scene.now)
                && is_live(scene.now, scene.limits, record)
        };
        let named = |(_, record): (HostKey, &'_ HostRecord)| record.host.id.clone();
        let seeds: Vec<HostId> = scene
            .hosts
            .named_seeds()
            .filter(can_lead)
            .map(named)
            .collect();
        let ids = match self.scope {
            Scope::AllHosts if seeds.is_empty() => {
                let others = scene.hosts.iter().filter(can_lead);
                others.take(LEADERS_COMPARED_MAX).map(named).collect()
            }
            Scope::AllHosts | Scope::Seeds => seeds,
        };
        scene.hosts.key(ring::responsible(self.task, &ids)?)
    }

    /// Tells as many as may be getting the task at once.
    fn tell_more(&mut self, scene: &mut Scene<'_>, task: Option<&Task>) {
        while self.under_way.len() < HOSTS_AT_ONCE && scene.visits_left != 0 {
            let Some((host, record)) = scene.hosts.between(self.cursor, self.end).next() else {
                self.is_everybody_told = true;
                return;
            };
            scene.visits_left -= 1;
            self.cursor = Some(host);
            if is_live(scene.now, scene.limits, record) && self.leader != Some(host) {
                self.tell(scene, task, host);
            }
        }
    }

    fn tell(&mut self, scene: &mut Scene<'_>, task: Option<&Task>, host: HostKey) {
        let Some(record) = scene.hosts.get(host) else {
            return;
        };
        if task.and_then(|task| task.state(host)) == Some(PeerState::Complete) {
            self.held += 1;
            return;
        }
        self.under_way.insert(host, Told::first(scene.now));
        scene.commands.push_back(self.command(record));
    }

    fn command(&self, record: &HostRecord) -> Command {
        Command {
            host: record.host.id.clone(),
            down: Down::Warm {
                task: self.task,
                origin: self.origin.clone(),
                wants: Vec::new(),
            },
        }
    }

    pub(super) fn progress(&self) -> TaskProgress {
        let known = self.held + self.failed + self.under_way.len() as u32;
        let wanted = match self.scope {
            Scope::AllHosts if self.is_everybody_told => known,
            Scope::AllHosts | Scope::Seeds => self.expected,
        };
        let getting = self.under_way.values().map(|told| told.pieces());
        let whole = u64::from(self.held) * u64::from(self.total.unwrap_or(0));
        TaskProgress {
            task: self.task,
            wanted,
            held: self.held,
            pieces: whole + getting.map(u64::from).sum::<u64>(),
            total: self.total,
            state: self.state,
        }
    }
}

/// Whether the source has given something of the task.
fn is_coming(task: &Task) -> bool {
    let has_some = |host| match (task.state(host), task.peer(host)) {
        (Some(PeerState::Complete), _) => true,
        (_, Some(peer)) => peer.pieces != 0,
        (_, None) => false,
    };
    task.suppliers().any(has_some)
}

pub(super) fn is_live(now: Instant, limits: &Limits, record: &HostRecord) -> bool {
    match record.state(now, limits.host_silence) {
        HostState::Live => true,
        HostState::Silent => false,
    }
}
