//! Pure: decides who fetches what from whom.
//!
//! No socket, task, clock or lock in here. The driver feeds [`Event`]s in and carries
//! [`Command`]s out; time is always a parameter. What one event does to one task is a
//! [`turn`]'s business; this file finds the tasks that an event touches and keeps their timers.
//!
//! Invariant: no command is for a host that has no session.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use protocol::{
    Down, HostId, Origin, Proof, TaskId, Up, Want,
    scheduler::{Failure, Hello, Outcome, TASKS_PER_MESSAGE_MAX},
};

mod blames;
mod evaluator;
mod expiry;
mod failing;
mod filter;
mod hosts;
mod limits;
mod peer;
mod phase;
mod preheat;
mod reports;
mod siblings;
mod source;
mod spoiled;
mod starving;
mod status;
mod task;
mod telling;
mod turn;
mod view;

pub use evaluator::Score;
pub use filter::Refusal;
pub use hosts::HostState;
pub use limits::Limits;
pub use status::Explanation;

use expiry::Expiry;
use hosts::{HostKey, Hosts};
use preheat::Preheats;
use source::Loss;
use task::Task;
use turn::{Report, Turn};

/// The scheduler of one view.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    hosts: Hosts,
    tasks: BTreeMap<TaskId, Task>,
    timers: BTreeSet<(Instant, TaskId)>,
    commands: VecDeque<Command>,
    bans: VecDeque<HostId>,
    grants: u64,
    /// When the next host may be sent to the upstream by itself.
    alone_at: Option<Instant>,
    /// Tasks with a proof.
    proofs: usize,
    preheats: Preheats,
    expiry: Expiry,
}

/// What happened since the last call.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session opened. It replaces the one that the host had before.
    Joined(Hello),
    /// The session of this host is over.
    Left(HostId),
    /// The host said this.
    Said(HostId, Up),
}

/// What the driver must do now: tell `host`.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub host: HostId,
    pub down: Down,
}

// === impl Engine ===

impl Engine {
    /// The scheduler of a cluster whose view names `seeds`; without any, whoever joins as a seed
    /// is one.
    pub fn new(limits: Limits, seeds: Vec<HostId>) -> Self {
        Self {
            limits,
            hosts: Hosts::new(seeds),
            tasks: BTreeMap::new(),
            timers: BTreeSet::new(),
            commands: VecDeque::new(),
            bans: VecDeque::new(),
            grants: 0,
            alone_at: None,
            proofs: 0,
            preheats: Preheats::default(),
            expiry: Expiry::default(),
        }
    }

    /// Records `event` and answers everybody whom it moves.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Joined(hello) => self.join(now, hello),
            Event::Left(id) => self.leave(now, &id),
            Event::Said(id, up) => {
                if let Some(key) = self.hosts.key(&id) {
                    self.hear(now, key, up);
                }
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.turn(now, id, |turn| turn.tick());
        }
        if self.preheat_due().is_some_and(|at| at <= now) {
            self.step_preheats(now);
        }
        self.expire(now);
    }

    /// The next thing to tell. Call until it returns `None`.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The next host that is banned from now on. Call until it returns `None`.
    pub fn poll_ban(&mut self) -> Option<HostId> {
        self.bans.pop_front()
    }

    /// When to call [`Engine::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let others = [self.preheat_due(), self.expiry_due()];
        timer.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Whether the host has a session here; one that was not taken, for want of room, has none.
    pub fn has_host(&self, id: &HostId) -> bool {
        self.hosts.key(id).is_some()
    }

    fn join(&mut self, now: Instant, hello: Hello) {
        self.leave(now, &hello.host.id);
        if self.hosts.len() < self.limits.hosts_max {
            self.hosts.insert(now, hello);
            self.watch_silence(now);
        }
    }

    fn leave(&mut self, now: Instant, id: &HostId) {
        let Some((key, record)) = self.hosts.remove(now, id) else {
            return;
        };
        self.commands.retain(|command| command.host != *id);
        for task in record.tasks.union(&record.warming) {
            self.turn(now, *task, |turn| turn.leave(key, Loss::Gone));
        }
    }

    fn hear(&mut self, now: Instant, key: HostKey, up: Up) {
        if let Some(host) = self.hosts.get_mut(key) {
            host.heard(now);
            if let Up::Load {
                uploads,
                upload_rate,
            } = up
            {
                host.loaded(uploads, upload_rate);
            }
        }
        match up {
            Up::Load { .. } => {}
            Up::Held { tasks } => {
                for task in tasks.into_iter().take(TASKS_PER_MESSAGE_MAX) {
                    if self.make_task(now, task) {
                        self.heard(now, task, |turn| turn.complete(key));
                    }
                }
            }
            Up::Dropped { tasks } => {
                for task in tasks.into_iter().take(TASKS_PER_MESSAGE_MAX) {
                    self.heard(now, task, |turn| turn.dropped(key));
                }
            }
            Up::Register {
                task,
                origin,
                wants,
            } => {
                self.register(now, key, (task, origin, wants));
            }
            Up::Progress {
                task,
                attempt,
                total,
                new,
            } => {
                let report = Report {
                    attempt,
                    total,
                    new: new.len(),
                };
                self.heard(now, task, |turn| turn.progress(key, report));
            }
            Up::ParentFailed {
                task,
                parent,
                reason,
            } => {
                let parent = self.hosts.key(&parent);
                self.heard(now, task, |turn| match parent {
                    Some(parent) => turn.parent_failed(key, parent, reason),
                    None => turn.orphaned(key),
                });
            }
            Up::Proves(proof) => self.keep_proof(key, proof),
            Up::Finished { task, outcome } => {
                if let Outcome::Failed(failure) = outcome {
                    self.preheat_failed(now, task, key, failure);
                }
                self.heard(now, task, |turn| turn.finished(key, outcome));
            }
        }
    }

    fn register(
        &mut self,
        now: Instant,
        key: HostKey,
        (task, origin, wants): (TaskId, Origin, Vec<Want>),
    ) {
        if self.make_task(now, task) {
            self.heard(now, task, |turn| {
                turn.task.want(wants);
                turn.register(key, origin);
            });
        } else if let Some(host) = self.hosts.get(key) {
            let down = Down::OnYourOwn {
                task,
                reason: Failure::Local,
            };
            self.commands.push_back(Command {
                host: host.host.id.clone(),
                down,
            });
        }
    }

    /// Keeps what a host that takes part says proves its task. Whoever is given it checks it.
    fn keep_proof(&mut self, key: HostKey, proof: Arc<Proof>) {
        let Some(task) = self.tasks.get_mut(&proof.batch.batch.task) else {
            return;
        };
        let is_known = task.proof.is_some();
        let has_room = is_known || self.proofs < self.limits.proofs_max;
        if has_room && task.peer(key).is_some() {
            task.proof = Some(proof);
            self.proofs += usize::from(!is_known);
        }
    }

    /// Sees to it that the task is known; tells whether there was room.
    fn make_task(&mut self, now: Instant, id: TaskId) -> bool {
        let has_room = self.tasks.len() < self.limits.tasks_max;
        if has_room {
            self.tasks.entry(id).or_insert_with(|| Task::new(now, id));
        }
        has_room || self.tasks.contains_key(&id)
    }

    /// A turn that a host has caused.
    fn heard(&mut self, now: Instant, id: TaskId, act: impl FnOnce(&mut Turn<'_>)) {
        self.turn(now, id, |turn| {
            turn.task.touched_at = now;
            act(turn);
        });
    }

    /// Lets `act` have its turn at the task, then sets the task's timer or forgets the task.
    fn turn(&mut self, now: Instant, id: TaskId, act: impl FnOnce(&mut Turn<'_>)) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let was = task.wake_at;
        let mut turn = Turn {
            now,
            limits: &self.limits,
            hosts: &mut self.hosts,
            task,
            commands: &mut self.commands,
            grants: &mut self.grants,
            alone_at: &mut self.alone_at,
            affected: Vec::new(),
            outdated: BTreeSet::new(),
            lonely: Vec::new(),
            banned: Vec::new(),
            stirred: false,
        };
        act(&mut turn);
        turn.settle();
        let banned = std::mem::take(&mut turn.banned);
        let is_over = turn.forget_at().is_some_and(|at| at <= now);
        let wake = turn.wake_at();
        task.wake_at = wake;
        if is_over {
            if let Some(at) = was {
                self.timers.remove(&(at, id));
            }
            let forgotten = self.tasks.remove(&id);
            self.proofs -= usize::from(forgotten.is_some_and(|task| task.proof.is_some()));
        } else if was != wake {
            if let Some(at) = was {
                self.timers.remove(&(at, id));
            }
            if let Some(at) = wake {
                self.timers.insert((at, id));
            }
        }
        for host in banned {
            self.shut_out(now, host);
        }
    }

    /// Takes a banned host out of everything that others get from it.
    fn shut_out(&mut self, now: Instant, host: HostKey) {
        let Some(record) = self.hosts.get(host) else {
            return;
        };
        self.bans.push_back(record.host.id.clone());
        for task in record
            .tasks
            .union(&record.warming)
            .copied()
            .collect::<Vec<_>>()
        {
            self.turn(now, task, |turn| turn.shut_out(host));
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod properties;
