//! Pure: who brings a task in from the source, for how long, and what follows when it does not.
//!
//! Invariant: a task has at most one fetcher. The grant moves only when the fetcher has failed,
//! has left, or has proved nothing in time; each grant has a greater epoch than all before it.

use std::{cmp::Reverse, time::Instant};

use protocol::{Candidate, Down, HostId, scheduler::Failure};

use super::{
    hosts::{HostKey, Hosts, RingSeed},
    peer::{Exclusion, Peer, PeerState, Supply},
    phase::Phase,
    turn::Turn,
};

/// Why a task has lost the host that was to bring it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It proved nothing in time.
    Silent,
    /// Its session is over.
    Gone,
    /// Nobody there wants the task any more.
    Left,
    Failed(Failure),
}

/// How many of the waiting are compared when one is to be the fetcher.
const FETCHERS_COMPARED_MAX: usize = 64;

/// `Wait` is repeated this often within the patience that it tells.
const RENEWALS_PER_PATIENCE: u32 = 3;

// === impl Turn ===

impl Turn<'_> {
    /// The clock has reached something that the task waited for.
    pub(super) fn tick(&mut self) {
        if self.task.phase.deadline().is_some_and(|at| at <= self.now) {
            match self.task.phase {
                Phase::Quiet => {}
                Phase::Settling { .. } => self.begin_source(None),
                Phase::Warming { seed, since, .. } if self.is_busy(seed, since) => {
                    let until = self.now + self.limits.proof;
                    self.task.phase = Phase::Warming { seed, since, until };
                }
                Phase::Warming { seed, .. } => self.source_lost(seed, Loss::Silent),
                Phase::Fetching { fetcher, .. } => self.source_lost(fetcher, Loss::Silent),
                Phase::Failed { .. } => {
                    self.task.phase = Phase::Quiet;
                    self.stirred = true;
                }
            }
        }
        if self.task.retry_at.is_some_and(|at| at <= self.now) {
            self.renew_waits();
            self.stirred = true;
        }
        if self.task.has_unfinished() && self.idle_at() <= self.now {
            self.forget_unfinished();
        }
    }

    /// When the timer is to look at the task next.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let idle = self.task.has_unfinished().then(|| self.idle_at());
        let deadlines = [
            self.task.phase.deadline(),
            self.task.retry_at,
            idle,
            self.forget_at(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// When nothing is worth remembering of a task in which nobody takes part; in the past for
    /// one of which nothing is.
    pub(super) fn forget_at(&self) -> Option<Instant> {
        if self.task.peer_count() != 0 {
            return None;
        }
        let failures = self.task.failed_fetchers.iter().map(|entry| entry.until);
        let memories = failures
            .chain(self.task.phase.deadline())
            .chain(self.task.spoiled.until());
        Some(memories.max().unwrap_or(self.now))
    }

    /// The fetcher lives; `new` pieces came.
    pub(super) fn prove(&mut self, new: u32) {
        if let Phase::Fetching {
            proof_until,
            moved_at,
            ..
        } = &mut self.task.phase
        {
            if new != 0 {
                *moved_at = self.now;
            }
            let moving_until = *moved_at + self.limits.stall;
            *proof_until = (self.now + self.limits.proof).min(moving_until);
        }
    }

    /// The task is in the swarm.
    pub(super) fn source_done(&mut self, host: HostKey) {
        self.forget_warming(host);
        if self.task.state(host) == Some(PeerState::AtSource)
            && let Some(signer) = self.name_of_peer(host)
        {
            self.task.signer = Some(signer);
        }
        self.task.phase = Phase::Quiet;
        self.task.wants = None;
        self.task.attempts = 0;
        self.task.failed_fetchers.clear();
        self.task.refused_until = None;
    }

    /// `host` will not bring the task in.
    pub(super) fn source_lost(&mut self, host: HostKey, loss: Loss) {
        self.forget_warming(host);
        self.task.phase = Phase::Quiet;
        self.stirred = true;
        // One that only fell silent may come back, and waits like everybody else.
        if self.task.state(host) == Some(PeerState::AtSource) {
            self.shed_children(host);
            self.task.set_waiting(self.now, host);
        }
        // It may have all that was wanted then.
        if loss == Loss::Left {
            if !self.task.has_waiting() {
                self.task.wants = None;
            }
            return;
        }
        let until = self.now + self.limits.failed_fetcher_memory;
        let entry = Exclusion { host, until };
        let max = self.limits.failed_fetchers_max;
        Exclusion::add(&mut self.task.failed_fetchers, entry, max);
        let is_seed = self.hosts.get(host).is_some_and(|record| record.is_seed);
        let failure = match loss {
            // One of those who want it has a credential, if anybody may have it: some registries say to
            // strangers that nothing is there.
            Loss::Failed(Failure::Refused | Failure::NotFound) if is_seed => {
                self.task.refused_until = Some(until);
                return;
            }
            Loss::Failed(failure @ Failure::NotFound) => return self.give_up(failure),
            Loss::Failed(failure) => failure,
            Loss::Silent | Loss::Gone | Loss::Left => Failure::Unavailable,
        };
        self.task.attempts += 1;
        if self.limits.attempts_max <= self.task.attempts {
            self.give_up(failure);
        }
    }

    /// Whether a seed that was told to warm the task at `since` lives, and may have others before it.
    fn is_busy(&self, seed: HostKey, since: Instant) -> bool {
        let record = self.hosts.get(seed);
        let is_heard = record.is_some_and(|record| record.is_heard(self.now, self.limits.proof));
        is_heard && self.now < since + self.limits.stall
    }

    /// Finds somebody to bring the task in, for `starved` if it was one: the seed of the ring, else
    /// one of the waiting.
    pub(super) fn begin_source(&mut self, starved: Option<HostKey>) {
        match self.seed_of_ring(starved) {
            Some(RingSeed::Here(seed)) => {
                return match self.task.state(seed) {
                    Some(PeerState::Waiting { .. } | PeerState::Fed) => self.grant(seed),
                    Some(PeerState::AtSource | PeerState::Complete) | None => self.warm(seed),
                };
            }
            // Looked at again with the waiting.
            Some(RingSeed::Expected) => {
                self.task.phase = Phase::Quiet;
                return;
            }
            None => {}
        }
        let may_settle = self.task.phase == Phase::Quiet
            && self.task.attempts == 0
            && !self.hosts.has_seeds()
            && !self.limits.settle.is_zero();
        if may_settle {
            self.task.phase = Phase::Settling {
                until: self.now + self.limits.settle,
            };
        } else if let Some(host) = self.fetcher_among_waiting() {
            self.grant(host);
        } else {
            self.task.phase = Phase::Quiet;
        }
    }

    /// The seed that everybody's ring names, those passed over that failed the task or, in this
    /// session, were of no use to `starved`.
    fn seed_of_ring(&mut self, starved: Option<HostKey>) -> Option<RingSeed> {
        let (task, now) = (&*self.task, self.now);
        let silence = self.limits.host_silence;
        task.origin.as_ref()?;
        if task.refused_until.is_some_and(|until| now < until) {
            return None;
        }
        let starved = starved.and_then(|key| task.peer(key));
        let is_of_no_use = |key: HostKey| {
            starved.is_some_and(|starved| Exclusion::holds(&starved.excluded, key, now))
        };
        let can_fetch = |hosts: &Hosts, key: HostKey| match task.state(key) {
            Some(PeerState::Waiting { .. } | PeerState::Fed) | None => {
                !is_of_no_use(key)
                    && hosts.is_live(key, now, silence)
                    && !Exclusion::holds(&task.failed_fetchers, key, now)
                    && !hosts.is_banned(key, now)
            }
            Some(PeerState::AtSource | PeerState::Complete) => false,
        };
        let absence = self.limits.seed_absence;
        self.hosts.ring_seed(now, (task.id, absence), can_fetch)
    }

    /// The waiting peer that has most of it already; one that failed only if there is no other.
    fn fetcher_among_waiting(&self) -> Option<HostKey> {
        let failed = &self.task.failed_fetchers;
        let waiting = self.task.waiting().take(FETCHERS_COMPARED_MAX).enumerate();
        let best = waiting.max_by_key(|(place, key)| {
            let pieces = self.task.peer(*key).map_or(0, |peer| peer.pieces);
            (
                !self.hosts.is_banned(*key, self.now),
                self.hosts.is_live(*key, self.now, self.limits.host_silence),
                !Exclusion::holds(failed, *key, self.now),
                pieces,
                Reverse(*place),
            )
        });
        best.map(|(_, key)| key)
    }

    fn warm(&mut self, seed: HostKey) {
        let Some(origin) = self.task.origin.clone() else {
            return;
        };
        if let Some(record) = self.hosts.get_mut(seed) {
            record.warming.insert(self.task.id);
        }
        self.task.phase = Phase::Warming {
            seed,
            since: self.now,
            until: self.now + self.limits.proof,
        };
        let wants = self.task.wants.clone().unwrap_or_default();
        self.tell(seed, |task| Down::Warm {
            task,
            origin,
            wants,
        });
    }

    pub(super) fn grant(&mut self, host: HostKey) {
        self.forget_warming(host);
        // Those that had fed it are named to it as holders.
        for parent in self.parents(host) {
            self.unlink(parent, host);
        }
        *self.grants += 1;
        self.task.phase = Phase::Fetching {
            fetcher: host,
            epoch: *self.grants,
            since: self.now,
            proof_until: self.now + self.limits.proof,
            moved_at: self.now,
        };
        self.task.set_supplying(host, Supply::AtSource);
        self.task.set_rooted(host);
        self.stirred = true;
        self.tell_grant(host);
        if self.trusted_fetcher().is_some() {
            // Those who go on with the parents they have learn whose signature counts now.
            let fed = |key: &HostKey| self.task.state(*key) == Some(PeerState::Fed);
            self.outdated.extend(self.task.suppliers().filter(fed));
        }
    }

    /// Those who have most of the task, so that a new fetcher asks the source only for the rest;
    /// not those that were of no use to it.
    pub(super) fn holders(&self, fetcher: HostKey) -> Vec<Candidate> {
        let (task, now) = (&*self.task, self.now);
        let pieces = |peer: &Peer| match peer.state {
            PeerState::Complete => u32::MAX,
            PeerState::Waiting { .. } | PeerState::Fed | PeerState::AtSource => peer.pieces,
        };
        let excluded = task.peer(fetcher).map_or(&[][..], |peer| &peer.excluded);
        let is_of_use = |(key, peer): &(HostKey, &Peer)| {
            *key != fetcher
                && pieces(peer) != 0
                && !Exclusion::holds(excluded, *key, now)
                && !task.spoiled.is_dropped(now, peer.attempt)
                && self.hosts.is_live(*key, now, self.limits.host_silence)
                && !self.hosts.is_banned(*key, now)
        };
        let mut found: Vec<(Reverse<u32>, HostKey)> = task
            .peers()
            .filter(is_of_use)
            .take(self.limits.candidates_examined_max)
            .map(|(key, peer)| (Reverse(pieces(peer)), key))
            .collect();
        found.sort_unstable();
        let hosts = found.into_iter().filter_map(|(_, key)| self.hosts.get(key));
        hosts
            .take(self.limits.holders_max)
            .map(|record| Candidate {
                host: record.host.clone(),
            })
            .collect()
    }

    /// Whose signature counts for this task beside the seeds': that of the host with the grant,
    /// else of the one that last had it and brought the task in.
    pub(super) fn trusted_fetcher(&self) -> Option<HostId> {
        let fetcher = self.task.fetcher().and_then(|key| self.name_of_peer(key));
        fetcher.or_else(|| self.task.signer.clone())
    }

    /// The name of a host that is no seed.
    fn name_of_peer(&self, key: HostKey) -> Option<HostId> {
        let record = self.hosts.get(key).filter(|record| !record.is_seed)?;
        Some(record.host.id.clone())
    }

    pub(super) fn wait(&mut self, host: HostKey) {
        if let Some(PeerState::Waiting { .. }) = self.task.state(host) {
            self.task.set_waiting(self.now, host);
            self.tell_wait(host);
        }
    }

    /// Says `Wait` if it is due.
    pub(super) fn tell_wait(&mut self, host: HostKey) {
        let patience = self.limits.patience;
        match self.task.state(host) {
            Some(PeerState::Waiting { renew_at, .. }) if renew_at <= self.now => {
                let renew_at = self.now + patience / RENEWALS_PER_PATIENCE;
                self.task.set_renew_at(host, renew_at);
                self.tell(host, |task| Down::Wait { task, patience });
            }
            Some(
                PeerState::Waiting { .. }
                | PeerState::Fed
                | PeerState::AtSource
                | PeerState::Complete,
            )
            | None => {}
        }
    }

    fn idle_at(&self) -> Instant {
        self.task.touched_at + self.limits.task_idle
    }

    pub(super) fn forget_warming(&mut self, host: HostKey) {
        if let Some(record) = self.hosts.get_mut(host) {
            record.warming.remove(&self.task.id);
        }
    }
}
