//! What the driver asks of the scheduler, and what it makes of the answers.

use std::time::Duration;

use protocol::{Candidate, Down, HostId, Up, ring};

use super::{
    Message,
    driver::{Driver, clock},
};
use crate::conductor::{Event, Relation};

/// Hosts beside the seed that are asked where no scheduler answers.
const KNOWN_MAX: usize = 8;

/// The longest that a host waits before it asks the upstream for want of anybody else.
const FALLBACK_JITTER: Duration = Duration::from_secs(1);

impl Driver {
    /// Asks the scheduler, else the seed that the ring names, else the source.
    pub(super) async fn ask(&mut self) {
        self.lend().await;
        let origin = self.wish.origin.clone();
        match self.report.register(&origin, self.wants()).await {
            true => self.plan(Event::Asked),
            false => self.ask_elsewhere(),
        }
    }

    /// Lends the seed of the task the right to read it, where its registry has let this host's client in
    /// and nobody else: straight, so that no scheduler sees it.
    async fn lend(&self) {
        let Some(credential) = &self.wish.credential else {
            return;
        };
        let seeds = self.host.seeds.iter();
        let own = self.host.identity.id();
        let seed = ring::responsible(self.wish.task, seeds.map(|seed| &seed.id));
        let Some(seed) = seed.filter(|seed| *seed != own) else {
            return;
        };
        let host = self.host.seeds.iter().find(|host| host.id == *seed);
        let right = self.host.upstreams.lendable(&self.wish.origin, credential);
        if let (Some(host), Some(right)) = (host, right.await) {
            let origin = self.wish.origin.clone();
            self.host.hub.lend(host, self.wish.task, origin, right);
        }
    }

    /// No scheduler answers: asks the seed that the ring names, the next one where that was asked
    /// in vain, and in the end the source.
    pub(super) fn ask_elsewhere(&mut self) {
        if self.ask_seed() || self.is_falling_through {
            return;
        }
        tracing::info!(task = %self.wish.task, "nobody answered in time; asking the upstream");
        self.is_falling_through = true;
        if self.host.seeds.is_empty() && !self.host.sessions.are_named() {
            return self.plan(Event::AtSource(Vec::new()));
        }
        // Whatever is wrong, all hosts of the cluster notice it at the same moment.
        let (pause, own) = (FALLBACK_JITTER.mul_f64(rand::random()), self.own.clone());
        self.jobs.spawn(async move {
            tokio::time::sleep(pause).await;
            // A driver that is gone goes nowhere.
            let _ = own.send(Message::NobodyElse).await;
        });
    }

    pub(super) fn nobody_else(&mut self) {
        if self.is_falling_through {
            self.plan(Event::AtSource(Vec::new()));
        }
    }

    /// Asks the first seed of the ring that was not asked yet, and with it the hosts that this one
    /// exchanges something with already; tells whether there is such a seed beside this host.
    fn ask_seed(&mut self) -> bool {
        let seeds = self.host.seeds.iter();
        let untried: Vec<_> = seeds
            .filter(|seed| !self.asked_seeds.contains(&seed.id))
            .cloned()
            .collect();
        let seed = ring::responsible(self.wish.task, untried.iter().map(|seed| &seed.id)).cloned();
        let own = self.host.identity.id();
        let Some(seed) = seed.filter(|seed| seed != own) else {
            return false;
        };
        let known = self.host.hub.parents(KNOWN_MAX);
        let known = known.into_iter().filter(|host| host.id != seed);
        let known: Vec<_> = known.map(|host| Candidate { host }).collect();
        let siblings = self.known(known);
        self.candidates
            .extend(untried.into_iter().map(|host| (host.id.clone(), host)));
        self.asked_seeds.push(seed.clone());
        let related = siblings.into_iter().map(|id| (id, Relation::Sibling));
        let candidates = related.chain([(seed, Relation::Parent)]);
        self.plan(Event::Candidates(candidates.collect()));
        true
    }

    /// The task may have another scheduler, or one that has forgotten: what is had counts as new.
    /// With none, whoever waited for its word asks the seed.
    pub(super) async fn register_again(&mut self) {
        if self.report.is_silent() {
            return;
        }
        let origin = self.wish.origin.clone();
        if !self.report.register(&origin, self.wants()).await {
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
        let wants = self.wants();
        self.report
            .also_tell(scheduler, (origin, wants), progress)
            .await;
    }

    pub(super) async fn told(&mut self, down: Down) {
        self.asked_seeds.clear();
        self.is_falling_through = false;
        match down {
            Down::Parents {
                parents,
                siblings,
                fetcher,
                proof,
                ..
            } => {
                self.attempt.grant_to(fetcher);
                if std::mem::take(&mut self.is_granted) {
                    // It was silent for too long: another host has the grant, or has had it.
                    self.plan(Event::GrantLost);
                }
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
