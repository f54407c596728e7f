//! What follows when all hosts do what they are told.

use std::time::{Duration, Instant};

use proptest::{prelude::prop_assert, test_runner::TestCaseError};
use protocol::{Down, HostId, TaskId, Up, operator::PeerStatus, scheduler::Outcome};

use super::super::{Command, Engine, Event, tests::origin};

/// How often a living host says something.
const LOAD_INTERVAL: Duration = Duration::from_secs(3);

/// Hosts that do what they are told, from the end of a run on: who may fetch, or has a parent that has
/// it all, has it all a second later, and who is to warm a task registers.
pub(super) struct Truthful {
    engine: Engine,
    now: Instant,
    due: Vec<(Instant, Event)>,
    loads_at: Instant,
}

/// Nobody waits longer in the end: three fetchers may be waited for, and a seed that never begins.
const SETTLES_WITHIN: Duration = Duration::from_secs(300);

impl Truthful {
    pub(super) fn new(engine: Engine, now: Instant) -> Self {
        let mut this = Self {
            engine,
            now,
            due: Vec::new(),
            loads_at: now,
        };
        for task in this.engine.snapshot(now, usize::MAX).tasks {
            for peer in task.peers.iter().filter(|peer| peer.state == "at-source") {
                this.will_complete(&peer.host, task.task);
            }
            if let (Some(seed), "warming") = (task.source, task.phase.as_str()) {
                this.will_register(&seed, task.task);
            }
        }
        this
    }

    fn will_complete(&mut self, host: &HostId, task: TaskId) {
        let outcome = Outcome::Complete;
        self.will_say(host, Up::Finished { task, outcome });
    }

    fn will_register(&mut self, host: &HostId, task: TaskId) {
        let register = Up::Register {
            task,
            origin: origin(),
            wants: Vec::new(),
        };
        self.will_say(host, register);
    }

    fn will_say(&mut self, host: &HostId, up: Up) {
        let at = self.now + Duration::from_secs(1);
        self.due.push((at, Event::Said(host.clone(), up)));
    }

    fn hear(&mut self) {
        while let Some(Command { host, down }) = self.engine.poll_command() {
            match down {
                Down::BackToSource { task, .. } => self.will_complete(&host, task),
                Down::Warm { task, .. } => self.will_register(&host, task),
                Down::Parents { .. }
                | Down::Wait { .. }
                | Down::OnYourOwn { .. }
                | Down::Drop { .. } => {}
            }
        }
    }

    /// Everybody tells its load, and those who have a parent that has it all are soon done.
    fn tell_loads(&mut self) {
        self.loads_at = self.now + LOAD_INTERVAL;
        let snapshot = self.engine.snapshot(self.now, usize::MAX);
        for host in &snapshot.hosts {
            let (uploads, upload_rate) = (0, 0);
            self.will_say(
                &host.host.id,
                Up::Load {
                    uploads,
                    upload_rate,
                },
            );
        }
        for task in &snapshot.tasks {
            let has_all = |id: &HostId| {
                let mut peers = task.peers.iter();
                peers.any(|peer| peer.host == *id && peer.state == "complete")
            };
            for peer in &task.peers {
                if peer.parents.iter().any(has_all) {
                    self.will_complete(&peer.host, task.task);
                }
            }
        }
    }

    /// Lets time pass until nothing is to be said any more, or for long enough.
    pub(super) fn settle(&mut self) {
        let end = self.now + SETTLES_WITHIN;
        while self.now < end {
            self.hear();
            if self.loads_at <= self.now {
                self.tell_loads();
            }
            let said = self.due.iter().map(|(at, _)| *at);
            let others = self
                .engine
                .poll_timeout()
                .into_iter()
                .chain([self.loads_at]);
            let next = said.chain(others).min();
            self.now = next.map_or(end, |at| self.now.max(at));
            let (due, later) = std::mem::take(&mut self.due)
                .into_iter()
                .partition(|(at, _)| *at <= self.now);
            self.due = later;
            let due: Vec<(Instant, Event)> = due;
            for (_, event) in due {
                self.engine.handle(self.now, event);
            }
            self.engine.handle_timeout(self.now);
            assert!(self.engine.poll_timeout().is_none_or(|at| self.now < at));
        }
    }

    /// Everybody has it, or goes alone.
    pub(super) fn is_over(&self) -> Result<(), TestCaseError> {
        for task in self.engine.snapshot(self.now, usize::MAX).tasks {
            let has_it = |peer: &PeerStatus| peer.state == "complete";
            prop_assert!(task.peers.iter().all(has_it), "{task:?}");
        }
        Ok(())
    }
}
