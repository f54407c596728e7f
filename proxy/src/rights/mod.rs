//! Who may read what, as its registry has said: decisions by registry, repository, credential and
//! digest, learned from what the registry gives, else by one HEAD that all who ask at once share.
//!
//! Invariant: nothing that is not known to be everybody's is looked for in the cache, here or on other
//! hosts, before the registry of the request has let this very caller see it in this very repository.
//! So a refusal takes the same way whether a content is held or not.

mod decision;
pub(crate) mod listed;
mod look;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::FutureExt as _;
use moka::future::Cache;
use protocol::{Digest, RegistryName, Repository, TaskId, Visibility};
use swarm::source::{Access, Credential, Fingerprint, Patience, Redirects, SourceError};

pub use self::decision::{GRACE_MAX, RightTimes};
use self::{
    decision::{Decision, Verdict},
    look::{Seen, look},
};
use crate::{
    answer::Ask,
    blob::{Named, head},
    error::Refusal,
    flights::Flights,
    metrics::RightAnswer,
    route::Target,
    serve::Proxy,
    upstream,
};

/// What is known of who may read what.
#[derive(Debug)]
pub(crate) struct Rights {
    decisions: Cache<Key, Decision>,
    questions: Flights<(Key, Patience), Result<Seen, Arc<SourceError>>>,
    /// How often all was forgotten: an answer that was asked for before that is not remembered.
    epoch: AtomicU64,
    clock: fn() -> SystemTime,
}

/// A reader and a content in its repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    registry: RegistryName,
    repository: Repository,
    digest: Digest,
    reader: Reader,
}

/// For whom a decision holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reader {
    /// Without any credential.
    Anybody,
    /// By what this node itself has: its login, its certificate. Whoever asks this node may use it.
    Node,
    Bearer(Fingerprint),
}

/// The registry lets the caller read, and what was learned of the content with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) size: Option<u64>,
    /// The registry itself would give the content, and has told all that it tells by HEAD.
    pub(crate) is_told: bool,
}

/// Why there is no right to read.
#[derive(Debug)]
pub(crate) struct Unproven {
    pub(crate) refusal: Refusal,
    /// The registry said neither yes nor no: what is everybody's may be given all the same.
    pub(crate) is_undecided: bool,
}

/// Decisions kept at once; the least used go first.
const DECISIONS_MAX: u64 = 32_768;

// === impl Rights ===

impl Rights {
    pub(crate) fn new(clock: fn() -> SystemTime) -> Self {
        Self {
            decisions: Cache::new(DECISIONS_MAX),
            questions: Flights::default(),
            epoch: AtomicU64::new(0),
            clock,
        }
    }

    /// The registry let `credential` see `digest` in the repository of `target`.
    async fn allow(
        &self,
        times: &RightTimes,
        (target, digest): (&Target, Digest),
        (access, age): (Access, Duration),
        credential: Option<&Credential>,
    ) {
        let reader = match access {
            Access::Anonymous => Reader::Anybody,
            Access::Caller => Reader::of(credential),
        };
        let stands_for = match reader {
            Reader::Anybody => times.public,
            Reader::Node => times.allow,
            Reader::Bearer(_) => {
                let expires_at = credential.and_then(Credential::expires_at);
                times.allowed_for(expires_at, (self.clock)())
            }
        };
        let allowed = Decision::Allowed {
            until: now() + stands_for.saturating_sub(age),
            is_listed: false,
        };
        self.decisions
            .insert(key(target, digest, reader), allowed)
            .await;
    }

    /// The registry gave the manifest `digest`: who may read it may read what it vouches for.
    pub(crate) async fn learn(
        &self,
        target: &Target,
        digest: Digest,
        (document, media_type): (&[u8], &str),
        credential: Option<&Credential>,
    ) {
        for reader in Reader::all(credential) {
            let vouching = key(target, digest, reader);
            let Some(Decision::Allowed {
                until,
                is_listed: false,
            }) = self.decisions.get(&vouching).await
            else {
                continue;
            };
            for digest in listed::listed(document, media_type) {
                let key = key(target, digest, reader);
                let allowed = Decision::Allowed {
                    until,
                    is_listed: false,
                };
                self.decisions.insert(key, allowed).await;
            }
            let is_listed = true;
            let allowed = Decision::Allowed { until, is_listed };
            self.decisions.insert(vouching, allowed).await;
        }
    }

    /// What is decided about this caller already.
    async fn verdict(
        &self,
        grace: Duration,
        (target, digest): (&Target, Digest),
        own: Reader,
    ) -> Verdict {
        let now = now();
        let judge = async |reader| {
            let decision = self.decisions.get(&key(target, digest, reader)).await;
            Decision::judge(decision.as_ref(), now, grace)
        };
        let mut verdict = judge(own).await;
        for others in [Reader::Anybody, Reader::Node] {
            verdict = match judge(others).await {
                // A refusal of those who show something else is none of this caller.
                Verdict::Denied(_) => verdict,
                theirs => verdict.or(theirs),
            };
        }
        verdict
    }

    /// What the node has may be another login now, or none.
    pub(crate) fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.questions.forget(|_| true);
        self.decisions.invalidate_all();
    }

    /// In which time between two reloads this is.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    async fn deny(&self, key: Key, refusal: &Refusal, stands_for: Duration) {
        let denied = Decision::Denied {
            until: now() + stands_for,
            refusal: Arc::new(refusal.clone()),
        };
        self.decisions.insert(key, denied).await;
    }
}

// === impl Reader ===

impl Reader {
    /// Who somebody is that shows `credential`, or nothing.
    fn of(credential: Option<&Credential>) -> Self {
        credential.map_or(Self::Node, |credential| {
            Self::Bearer(credential.fingerprint())
        })
    }

    /// As whom a caller may read.
    fn all(credential: Option<&Credential>) -> impl Iterator<Item = Self> {
        let own = credential.map(|credential| Self::Bearer(credential.fingerprint()));
        [Self::Anybody, Self::Node].into_iter().chain(own)
    }
}

// === impl Proxy ===

impl Proxy {
    /// Whether this caller may read `named` in the repository of `target`: as was decided, else as the
    /// registry says now.
    pub(crate) async fn may_read(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
    ) -> Result<Proven, Unproven> {
        let own = Reader::of(ask.credential.as_ref());
        let verdict = self.verdict(target, named, own).await;
        let is_lapsed = match verdict {
            Verdict::Allowed => {
                self.metrics.right(RightAnswer::Known);
                return Ok(Proven::default());
            }
            Verdict::Denied(refusal) => {
                self.metrics.right(RightAnswer::Refused);
                return Err(Unproven {
                    refusal: Refusal::clone(&refusal),
                    is_undecided: false,
                });
            }
            Verdict::Lapsed => true,
            Verdict::Unknown => false,
        };
        let question = (key(target, named.digest, own), ask.patience());
        let request = head(ask, target, named, Redirects::Stop);
        let source = Arc::clone(&self.upstream);
        let patience = ask.patience();
        let engine = Arc::clone(&self.engine);
        let task = TaskId(named.digest);
        let age_max = self.everybodys_age_max();
        let asked = self.rights.questions.join(&question, || {
            async move {
                if let Some(told) = source.everybodys(&request, age_max).await {
                    // What is held as private here takes more than the word of another host.
                    let held = engine.held(task).await;
                    if held.is_none_or(|held| held.visibility == Visibility::Public) {
                        return Ok(Seen::of_everybodys(&told));
                    }
                }
                look(source, request, patience).await.map_err(Arc::new)
            }
            .boxed()
        });
        match asked.await {
            Ok(seen) => {
                self.metrics.right(RightAnswer::Asked);
                let right = (seen.access, seen.age);
                self.saw(ask, target, named, right).await;
                Ok(Proven {
                    size: seen.size,
                    is_told: seen.is_told,
                })
            }
            Err(error) if is_lapsed && upstream::is_outage(&error) => {
                self.metrics.right(RightAnswer::Grace);
                Ok(Proven::default())
            }
            Err(error) => Err(self.unproven(ask, target, named, &error).await),
        }
    }

    /// The registry let this caller see `named`, with this right, so long ago.
    pub(crate) async fn saw(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
        right: (Access, Duration),
    ) {
        if ask.epoch != self.rights.epoch() {
            return;
        }
        let credential = ask.credential.as_ref();
        let times = &self.config().rights;
        self.rights
            .allow(times, (target, named.digest), right, credential)
            .await;
    }

    /// The refusal that `error` of the registry is, remembered where it says no to this caller.
    pub(crate) async fn unproven(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
        error: &SourceError,
    ) -> Unproven {
        self.metrics.right(RightAnswer::Refused);
        let refusal = upstream::content_refusal(error, named.missing());
        if matches!(error, SourceError::Refused(_)) {
            let own = Reader::of(ask.credential.as_ref());
            let stands_for = self.config().rights.deny;
            let key = key(target, named.digest, own);
            self.rights.deny(key, &refusal, stands_for).await;
        }
        let is_undecided = upstream::is_undecided(error);
        Unproven {
            refusal,
            is_undecided,
        }
    }

    /// The refusal of a moment ago, where this caller was refused then.
    pub(crate) async fn refused_lately(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
    ) -> Option<Refusal> {
        let own = Reader::of(ask.credential.as_ref());
        match self.verdict(target, named, own).await {
            Verdict::Denied(refusal) => Some(Refusal::clone(&refusal)),
            Verdict::Allowed | Verdict::Lapsed | Verdict::Unknown => None,
        }
    }

    /// How old the word of another host may be that everybody may read something.
    pub(crate) fn everybodys_age_max(&self) -> Duration {
        let config = self.config();
        config.tags.ttl.min(config.rights.public)
    }

    async fn verdict(&self, target: &Target, named: Named, own: Reader) -> Verdict {
        let grace = self.config().rights.grace;
        let content = (target, named.digest);
        self.rights.verdict(grace, content, own).await
    }
}

fn key(target: &Target, digest: Digest, reader: Reader) -> Key {
    Key {
        registry: target.registry.clone(),
        repository: target.repository.clone(),
        digest,
        reader,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where decisions meet the clock"
)]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
