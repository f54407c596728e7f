//! What the driver asks of the scheduler, and what it makes of the answers.

use protocol::{Candidate, Down, ring};

use super::driver::{Driver, NOBODY, clock};
use crate::conductor::{Event, Interest};

impl Driver {
    /// Asks the scheduler, else the seed that the ring names, else the source.
    pub(super) async fn ask(&mut self) {
        let origin = self.wish.origin.clone();
        if self.report.register(&origin).await {
            return self.plan(Event::Asked);
        }
        let seed = ring::responsible(self.wish.task, self.host.seeds.iter().map(|seed| &seed.id));
        let seed = self.host.seeds.iter().find(|host| Some(&host.id) == seed);
        match seed {
            Some(seed) if seed.id != *self.host.identity.id() => {
                self.candidates.insert(seed.id.clone(), seed.clone());
                self.plan(Event::Candidates(vec![seed.id.clone()]));
            }
            Some(_) | None => self.plan(Event::AtSource),
        }
    }

    /// The scheduler may have forgotten: what is had counts as new.
    pub(super) async fn register_again(&mut self) {
        let origin = self.wish.origin.clone();
        self.report.register(&origin).await;
        for piece in self.attempt.held().iter() {
            self.report.has(clock(), piece);
        }
    }

    pub(super) fn told(&mut self, down: Down) {
        match down {
            Down::Parents {
                parents, fetcher, ..
            } => {
                self.attempt.grant_to(fetcher);
                let own = self.host.identity.id();
                let others = parents
                    .into_iter()
                    .filter(|candidate| candidate.host.id != *own);
                let ids = others.map(|Candidate { host }| {
                    let id = host.id.clone();
                    self.candidates.insert(id.clone(), host);
                    id
                });
                let ids: Vec<_> = ids.collect();
                self.plan(Event::Candidates(ids));
            }
            Down::Wait { patience, .. } => self.plan(Event::Wait(patience)),
            Down::BackToSource { .. } => self.plan(Event::AtSource),
            Down::OnYourOwn { reason, .. } => {
                tracing::debug!(task = %self.wish.task, ?reason, "nobody can fetch it for all");
                self.report.go_silent();
                self.plan(Event::AtSource);
            }
            // A seed's order to begin; this task has begun.
            Down::Warm { .. } => {
                self.plan(Event::ReaderJoined(NOBODY, Interest::ToEnd { offset: 0 }))
            }
        }
    }
}
