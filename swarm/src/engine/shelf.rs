//! What other services of this host, and other hosts, see of the engine.

use std::time::Duration;

use protocol::{
    Down, HostId, Origin, Right, Role, TaskId, Up, Want,
    scheduler::{Failure, Outcome},
};

use super::{Swarm, Wanting, WarmOrder, opening::for_others};
use crate::{
    conductor::Event,
    reader::InterestGuard,
    session::Inbox,
    source::{Credential, Question, Told},
    task::{Message, Shared, Shelf},
};

#[async_trait::async_trait]
impl Shelf for Swarm {
    async fn follow(&self, task: TaskId) -> Option<Shared> {
        let active = {
            let tasks = self.flights();
            tasks.get(&task).map(|flight| {
                // Another host waits for it.
                flight.demand.raise();
                flight.active.progress.clone()
            })
        };
        let progress = match active {
            Some(progress) => progress,
            None => self.shareable(task).await?,
        };
        Some(Shared { progress })
    }

    async fn bring(&self, task: TaskId, origin: Origin) -> Option<Shared> {
        let identity = &self.inner.surroundings.identity;
        if !identity.roles().contains(Role::Seed) {
            return None;
        }
        // Another host waits for it, and says of what.
        let begun = self.join_or_start(&for_others(task, origin), Wanting::Reader);
        let (active, _) = begun.ok()?;
        Some(Shared {
            progress: active.progress,
        })
    }

    async fn lend(&self, task: TaskId, origin: Origin, right: Right) {
        let surroundings = &self.inner.surroundings;
        if surroundings.identity.roles().contains(Role::Seed)
            && let Some(credential) = Credential::of_right(&right)
        {
            surroundings.lent.put(task, origin, credential).await;
        }
    }

    async fn public(&self, question: &Question, age_max: Duration) -> Option<Told> {
        self.tell_everybody(question, age_max).await
    }

    async fn want(&self, task: TaskId, wants: Vec<Want>) -> Vec<InterestGuard> {
        // What is held whole is there, whoever wants what of it.
        let Some(inbox) = self.inbox_of(task) else {
            return Vec::new();
        };
        self.interests(&inbox, wants, Event::FollowerWants).await
    }
}

#[async_trait::async_trait]
impl Inbox for Swarm {
    async fn tasks_held(&self) -> Vec<TaskId> {
        let store = self.inner.surroundings.store.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let complete = store.list().filter(|entry| entry.complete);
            complete.map(|entry| entry.task).collect()
        });
        listed.await.unwrap_or_default()
    }

    async fn sessions_changed(&self) {
        let inboxes: Vec<_> = {
            let tasks = self.flights();
            tasks
                .values()
                .map(|flight| flight.active.inbox.clone())
                .collect()
        };
        for inbox in inboxes {
            // A driver that is ending needs no session.
            let _ = inbox.send(Message::SessionsChanged).await;
        }
    }

    async fn told(&self, scheduler: &HostId, down: Down) {
        match down {
            Down::Warm {
                task,
                origin,
                wants,
            } => {
                let by = scheduler.clone();
                let order = WarmOrder {
                    task,
                    origin,
                    wants,
                    by,
                };
                if self.inner.warm.try_send(order).is_err() {
                    tracing::warn!(%task, "too many orders to warm; this one is refused");
                    let outcome = Outcome::Failed(Failure::Local);
                    let refused = Up::Finished { task, outcome };
                    // A scheduler that does not hear it notices that nothing comes.
                    let sessions = &self.inner.surroundings.sessions;
                    let _ = sessions.send_to(scheduler, refused).await;
                }
            }
            down => {
                // The download may have ended while the answer was on its way.
                if let Some(inbox) = self.inbox_of(down.task()) {
                    let _ = inbox.send(Message::Scheduler(down)).await;
                }
            }
        }
    }
}
