//! What anybody may read, asked once for the whole cluster: of the seed that the ring names.

use std::time::Duration;

use protocol::{Digest, Host, HostId, Role, TaskId, ring};

use super::Swarm;
use crate::{
    metrics::PublicAnswer,
    peer,
    source::{Question, Told},
};

/// Seeds that are left in peace at once.
pub(super) const LEFT_MAX: u64 = 1024;
/// How long a seed that did not answer is left in peace.
pub(super) const LEFT_FOR: Duration = Duration::from_secs(10);

// === impl Swarm ===

impl Swarm {
    /// What the registry tells anybody who asks `question`, as the cluster knows it: asked no longer than
    /// `age_max` ago. `None` where this host has to ask for itself.
    pub async fn everybodys(&self, question: &Question, age_max: Duration) -> Option<Told> {
        let surroundings = &self.inner.surroundings;
        let seed = self.seed_for(question).await?;
        if seed.id == *surroundings.identity.id() {
            return self.tell_everybody(question, age_max).await;
        }
        let asked = surroundings
            .pieces
            .ask_public(&seed, question, age_max)
            .await;
        let answer = match &asked {
            Ok(Some(_)) => PublicAnswer::Told,
            Ok(None) => PublicAnswer::Nothing,
            Err(error) => {
                tracing::debug!(seed = %seed.id, ?question, %error, "asking the registry instead");
                self.inner.left.insert(seed.id.clone(), ()).await;
                PublicAnswer::Failed
            }
        };
        self.inner.metrics.public(answer);
        asked.ok().flatten()
    }

    /// What this host, a seed, tells others.
    pub(super) async fn tell_everybody(
        &self,
        question: &Question,
        age_max: Duration,
    ) -> Option<Told> {
        let surroundings = &self.inner.surroundings;
        let is_seed = surroundings.identity.roles().contains(Role::Seed);
        if !is_seed {
            return None;
        }
        surroundings.upstreams.public(question, age_max).await
    }

    /// The same seed for everybody who asks it; the next one while it does not answer.
    async fn seed_for(&self, question: &Question) -> Option<Host> {
        let seeds = &self.inner.surroundings.seeds;
        let mut at_hand: Vec<&HostId> = Vec::with_capacity(seeds.len());
        for seed in seeds.iter() {
            if self.inner.left.get(&seed.id).await.is_none() {
                at_hand.push(&seed.id);
            }
        }
        let key = TaskId(Digest::sha256_of(peer::public_path(question).as_bytes()));
        let seed = ring::responsible(key, at_hand)?;
        seeds.iter().find(|host| host.id == *seed).cloned()
    }
}
