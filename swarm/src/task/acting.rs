//! Carries out what the conductor decides: one job for each request that it wants made.

use protocol::{HostId, PieceIndex, Up, scheduler::ParentFailure};

use super::{
    Message,
    driver::{Driver, clock},
    parent_run::{self, ParentRun},
    source_run::SourceRun,
};
use crate::{
    conductor::{Action, Relation, RunId},
    peer::Asker,
    sizing,
};

impl Driver {
    pub(super) async fn carry_out(&mut self) {
        while let Some(action) = self.conductor.poll_action() {
            match action {
                Action::Follow(parent) => self.follow(parent),
                Action::Leave(parent, failure) => self.leave(parent, failure).await,
                Action::Fetch {
                    supplier,
                    relation,
                    pieces,
                } => self.fetch(supplier, relation, pieces),
                Action::Cancel { supplier, first } => self.cancel(&supplier, first),
                Action::StartSource { run, first, end } => self.start_source(run, first, end),
                Action::StopSource(run) => {
                    if let Some(job) = self.at_source.remove(&run) {
                        job.abort();
                    }
                }
                Action::LearnSize => self.learn_size(),
                Action::AskElsewhere => self.ask_elsewhere(),
            }
        }
    }

    fn follow(&mut self, parent: HostId) {
        let Some(host) = self.candidates.get(&parent) else {
            return;
        };
        // Where no scheduler answers nobody else makes a seed begin.
        let (hub, task) = (&self.host.hub, self.wish.task);
        let tells = match self.asked_seeds.contains(&parent) {
            false => hub.subscribe(host, task),
            true => hub.bring(host, task, self.wish.origin.clone()),
        };
        let job = self
            .jobs
            .spawn(parent_run::follow(parent.clone(), tells, self.own.clone()));
        self.at_parents.entry(parent).or_default().push((None, job));
    }

    async fn leave(&mut self, parent: HostId, reason: ParentFailure) {
        self.offers.remove(&parent);
        self.told.forget(&parent);
        for (_, job) in self.at_parents.remove(&parent).into_iter().flatten() {
            job.abort();
        }
        if reason == ParentFailure::Lied {
            tracing::warn!(task = %self.wish.task, %parent, "what it gave does not match its signature; not asked again for a while");
            self.host.bans.ban(clock(), &parent);
        }
        tracing::debug!(task = %self.wish.task, %parent, ?reason, "parent left");
        let failed = Up::ParentFailed {
            task: self.wish.task,
            parent,
            reason,
        };
        self.report.send(failed).await;
        // With no scheduler nobody will name another parent.
        if !self.report.is_registered() && self.conductor.is_orphan() {
            self.ask_elsewhere();
        }
    }

    fn cancel(&mut self, supplier: &HostId, first: u32) {
        let Some(jobs) = self.at_parents.get_mut(supplier) else {
            return;
        };
        if let Some(at) = jobs.iter().position(|(run, _)| *run == Some(first)) {
            jobs.swap_remove(at).1.abort();
        }
    }

    fn fetch(&mut self, parent: HostId, relation: Relation, pieces: std::ops::Range<u32>) {
        let (Some(host), Some(place)) = (self.candidates.get(&parent), self.attempt.place()) else {
            return;
        };
        let run = ParentRun {
            parent: host.clone(),
            task: self.wish.task,
            attempt: self.attempt.id(),
            layout: place.layout,
            digests: self.attempt.digests_of(pieces.clone()),
            pieces: pieces.clone(),
            asker: match relation {
                Relation::Parent => Asker::Child,
                Relation::Sibling => Asker::Sibling,
            },
            file: place.file,
        };
        let job = self
            .jobs
            .spawn(run.go(self.host.pieces.clone(), self.own.clone()));
        let jobs = self.at_parents.entry(parent).or_default();
        jobs.retain(|(_, job)| !job.is_finished());
        jobs.push((Some(pieces.start), job));
    }

    fn start_source(&mut self, run: RunId, first: u32, end: Option<u32>) {
        // Before the source has answered, only its word on the size tells where pieces begin.
        let layout = self.attempt.layout().or(self.conductor.layout());
        let start = |index| layout.map_or(0, |layout| layout.bytes_of(PieceIndex(index)).start);
        let source_run = SourceRun {
            run,
            task: self.wish.task,
            origin: self.wish.origin.clone(),
            credential: self.wish.credential.clone(),
            lent: self.is_seed().then(|| self.host.lent.clone()),
            start: start(first),
            end: end.map(start),
        };
        let job = self
            .jobs
            .spawn(source_run.go(self.host.upstreams.clone(), self.own.clone()));
        self.at_source.insert(run, job);
    }

    fn learn_size(&mut self) {
        let (upstreams, wish, own) = (
            self.host.upstreams.clone(),
            self.wish.clone(),
            self.own.clone(),
        );
        self.jobs.spawn(async move {
            // What is wrong at the source shows, with its true error, when the body is asked for.
            let size = sizing::learn(&upstreams, &wish).await.ok().flatten();
            let _ = own.send(Message::Sized(size)).await;
        });
    }
}
