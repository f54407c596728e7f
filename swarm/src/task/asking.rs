//! What the driver asks of the scheduler, and what it makes of the answers.

use protocol::{Candidate, Down, HostId, Up, ring};

use super::driver::{Driver, clock};
use crate::conductor::{Event, Relation};

impl Driver {
    /// Asks the scheduler, else the seed that the ring names, else the source.
    pub(super) async fn ask(&mut self) {
        let origin = self.wish.origin.clone();
        if self.report.register(&origin).await {
            return self.plan(Event::Asked);
        }
        if !self.ask_seed() {
            self.plan(Event::AtSource(Vec::new()));
        }
    }

    /// Asks the seed that the ring names; tells whether there is one beside this host.
    fn ask_seed(&mut self) -> bool {
        let seed = ring::responsible(self.wish.task, self.host.seeds.iter().map(|seed| &seed.id));
        let seed = self.host.seeds.iter().find(|host| Some(&host.id) == seed);
        match seed {
            Some(seed) if seed.id != *self.host.identity.id() => {
                let candidate = (seed.id.clone(), Relation::Parent);
                self.candidates.insert(seed.id.clone(), seed.clone());
                self.plan(Event::Candidates(vec![candidate]));
                true
            }
            Some(_) | None => false,
        }
    }

    /// The task may have another scheduler, or one that has forgotten: what is had counts as new.
    /// With none, whoever waited for its word asks the seed.
    pub(super) async fn register_again(&mut self) {
        if self.report.is_silent() {
            return;
        }
        let origin = self.wish.origin.clone();
        if !self.report.register(&origin).await {
            if self.conductor.is_orphan() {
                self.ask_seed();
            }
            return;
        }
        for piece in self.attempt.held().iter() {
            self.report.has(clock(), piece);
        }
    }

    /// Schedulers that disagree all send the task to this seed; each hears how it goes.
    pub(super) async fn ordered(&mut self, scheduler: HostId) {
        let progress = Up::Progress {
            task: self.wish.task,
            attempt: self.attempt.id(),
            total: self.attempt.piece_count(),
            new: self.attempt.held().clone(),
        };
        let origin = self.wish.origin.clone();
        self.report.also_tell(scheduler, origin, progress).await;
    }

    pub(super) async fn told(&mut self, down: Down) {
        match down {
            Down::Parents {
                parents,
                siblings,
                fetcher,
                proof,
                ..
            } => {
                self.attempt.grant_to(fetcher);
                let parents = self.known(parents);
                let holders = parents.clone();
                let siblings = self.known(siblings);
                let related =
                    |ids: Vec<HostId>, relation| ids.into_iter().map(move |id| (id, relation));
                let parents = related(parents, Relation::Parent);
                let candidates = parents.chain(related(siblings, Relation::Sibling));
                self.plan(Event::Candidates(candidates.collect()));
                if let Some(proof) = proof {
                    self.parents_hold(holders, &proof).await;
                }
            }
            Down::Wait { patience, .. } => self.plan(Event::Wait(patience)),
            Down::BackToSource { holders, .. } => {
                self.is_granted = true;
                let holders = self.known(holders);
                self.plan(Event::AtSource(holders));
            }
            Down::OnYourOwn { reason, .. } => {
                tracing::debug!(task = %self.wish.task, ?reason, "nobody can fetch it for all");
                self.report.go_silent();
                self.plan(Event::AtSource(Vec::new()));
            }
            Down::Drop { attempt, .. } => self.drop_attempt(attempt),
            // A seed's order to begin, which reaches the driver as [`Driver::ordered`].
            Down::Warm { .. } => {}
        }
    }

    /// Notes where the candidates are reached; those that lied to this host are left out.
    fn known(&mut self, candidates: Vec<Candidate>) -> Vec<HostId> {
        let (own, now) = (self.host.identity.id(), clock());
        let mut ids = Vec::with_capacity(candidates.len());
        for Candidate { host } in candidates {
            if host.id != *own && !self.host.bans.is_banned(now, &host.id) {
                ids.push(host.id.clone());
                self.candidates.insert(host.id.clone(), host);
            }
        }
        ids
    }
}
