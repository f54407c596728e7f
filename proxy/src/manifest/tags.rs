//! What a tag stands for: asked of the upstream by HEAD, at most once per `tag_ttl` and once for all
//! concurrent callers; when the upstream says nothing, the last answer it gave.
//!
//! An answer that was given to anybody is shared and kept on disk. One that took a caller's
//! credential is for that credential alone, and in memory alone.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use moka::future::Cache;
use swarm::source::{Access, Credential, Fingerprint, Patience, SourceError};

use super::{
    freshness::{Freshness, TagTimes, UNKNOWN_TTL},
    question::Question,
    shelf::{Resolution, Shelf, TagName},
};
use crate::{
    config::Config,
    engine::Upstream,
    flights::{Flight, Flights},
    metrics::TagAnswer,
    upstream,
};

/// Resolves tags.
#[derive(Debug)]
pub(crate) struct Tags {
    shelf: Shelf,
    /// Answers that took a credential.
    private: Cache<Caller, Resolution>,
    /// Errors of the last seconds: tags that are not there, upstreams that fail.
    failed: Cache<Asking, (SystemTime, Arc<SourceError>)>,
    flights: Flights<Asking, Told>,
    /// How many writes there were: an answer that was asked for before one may be of before it.
    written: AtomicU64,
    /// When tags were written lately: what other hosts were told before is not what they are.
    written_at: Cache<TagName, SystemTime>,
    rules: Mutex<Rules>,
    clock: fn() -> SystemTime,
}

/// What a reload may change.
#[derive(Debug, Clone, Copy)]
struct Rules {
    times: TagTimes,
    manifest_len_max: usize,
}

/// An answer for a tag.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) resolution: Resolution,
    pub(crate) answer: TagAnswer,
    /// With which right the registry told it, just now or within the ttl.
    pub(crate) access: Access,
}

/// What somebody wants to know it for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Pull(Patience),
    /// An order, which means what the tag stands for now.
    Order,
}

/// A tag and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Caller {
    tag: TagName,
    fingerprint: Option<Fingerprint>,
}

/// A question for a tag. Those who wait longer have one of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asking {
    caller: Caller,
    patience: Patience,
}

type Told = Result<(Resolution, Access), Arc<SourceError>>;

/// Answers for single callers kept at once.
const PRIVATE_MAX: u64 = 10_000;

/// How long answers for single callers are kept at most.
const PRIVATE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

// === impl Rules ===

impl Rules {
    fn of(config: &Config) -> Self {
        Self {
            times: config.tags,
            manifest_len_max: config.manifest_len_max,
        }
    }
}

// === impl Tags ===

impl Tags {
    pub(crate) async fn open(config: &Config, clock: fn() -> SystemTime) -> io::Result<Self> {
        Ok(Self {
            shelf: Shelf::open(&config.tags_dir, config.tags_max).await?,
            private: Cache::builder()
                .max_capacity(PRIVATE_MAX)
                .time_to_live(PRIVATE_LIFE)
                .support_invalidation_closures()
                .build(),
            failed: Cache::builder()
                .max_capacity(PRIVATE_MAX)
                .time_to_live(UNKNOWN_TTL)
                .support_invalidation_closures()
                .build(),
            flights: Flights::default(),
            written: AtomicU64::new(0),
            written_at: Cache::builder()
                .max_capacity(PRIVATE_MAX)
                .time_to_live(PRIVATE_LIFE)
                .build(),
            rules: Mutex::new(Rules::of(config)),
            clock,
        })
    }

    /// Goes by the times of `config` from now on.
    pub(crate) fn reload(&self, config: &Config) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Rules::of(config);
    }

    fn rules(&self) -> Rules {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `tag` stands for, as far as this caller may know.
    pub(crate) async fn resolve(
        &self,
        source: &Arc<dyn Upstream>,
        tag: TagName,
        credential: Option<&Credential>,
        purpose: Purpose,
    ) -> Result<Resolved, Arc<SourceError>> {
        let now = (self.clock)();
        let fingerprint = credential.map(Credential::fingerprint);
        let caller = Caller { tag, fingerprint };
        let known = self.known(&caller).await;
        let resolved_at = known.as_ref().map(|known| known.resolution.resolved_at);
        let freshness = self.rules().times.judge(resolved_at, now);
        if let (Freshness::Fresh, Some(known)) = (freshness, &known) {
            return Ok(known.clone());
        }
        if let (Purpose::Pull(_), Some(known)) = (purpose, &known)
            && self.is_held_back(source, &caller.tag, known, now).await
        {
            let answer = TagAnswer::Held;
            return Ok(Resolved {
                answer,
                ..known.clone()
            });
        }
        // Who has an older answer has somewhere else to go.
        let patience = match (freshness, purpose) {
            (Freshness::Revalidate, _) => Patience::Short,
            (Freshness::Fresh | Freshness::Ask, Purpose::Pull(patience)) => patience,
            (Freshness::Fresh | Freshness::Ask, Purpose::Order) => Patience::Long,
        };
        let asking = Asking { caller, patience };
        let error = match self.asked_lately(&asking, now).await {
            Some(error) => error,
            None => match self.ask(source, &asking, credential).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => error,
            },
        };
        match (freshness, known) {
            (Freshness::Revalidate, Some(known)) if upstream::is_outage(&error) => Ok(Resolved {
                answer: TagAnswer::Stale,
                ..known
            }),
            (Freshness::Fresh | Freshness::Revalidate | Freshness::Ask, _) => Err(error),
        }
    }

    /// Whether the registry is spared a question to which the answer is known. One that is somebody's
    /// own is asked for all the same, since his right may have ended.
    async fn is_held_back(
        &self,
        source: &Arc<dyn Upstream>,
        tag: &TagName,
        known: &Resolved,
        now: SystemTime,
    ) -> bool {
        let would_do = self
            .rules()
            .times
            .would_do(known.resolution.resolved_at, now);
        known.access == Access::Anonymous && would_do && !source.may_refresh(&tag.registry).await
    }

    /// How long ago the registry told it.
    pub(crate) fn age(&self, resolution: &Resolution) -> Duration {
        let age = (self.clock)().duration_since(resolution.resolved_at);
        age.unwrap_or_default()
    }

    /// The tag has another meaning now: whoever asks next asks the upstream.
    pub(crate) async fn forget_written(&self, tag: &TagName) {
        // Who comes from here on asks anew, and what was asked before is not kept.
        self.written_at.insert(tag.clone(), (self.clock)()).await;
        self.flights.forget(|asking| asking.caller.tag == *tag);
        self.written.fetch_add(1, Ordering::AcqRel);
        self.shelf.remove(tag).await;
        let written = tag.clone();
        let of_tag = move |caller: &Caller| caller.tag == written;
        let of_error = of_tag.clone();
        // Both were built with support for closures, the one thing that can be missing.
        let _private = self
            .private
            .invalidate_entries_if(move |caller, _| of_tag(caller));
        let _failed = self
            .failed
            .invalidate_entries_if(move |asking, _| of_error(&asking.caller));
    }

    /// The last answer that this caller may be given: the public one, else its own.
    async fn known(&self, caller: &Caller) -> Option<Resolved> {
        let answer = TagAnswer::Fresh;
        if let Some(resolution) = self.shelf.get(&caller.tag).await {
            return Some(Resolved {
                resolution,
                answer,
                access: Access::Anonymous,
            });
        }
        caller.fingerprint?;
        let resolution = self.private.get(caller).await?;
        Some(Resolved {
            resolution,
            answer,
            access: Access::Caller,
        })
    }

    /// The error of a moment ago, so that a failing upstream is not asked by every request.
    async fn asked_lately(&self, asking: &Asking, now: SystemTime) -> Option<Arc<SourceError>> {
        let (failed_at, error) = self.failed.get(asking).await?;
        let is_recent = now
            .duration_since(failed_at)
            .is_ok_and(|age| age < UNKNOWN_TTL);
        is_recent.then_some(error)
    }

    async fn ask(
        &self,
        source: &Arc<dyn Upstream>,
        asking: &Asking,
        credential: Option<&Credential>,
    ) -> Result<Resolved, Arc<SourceError>> {
        let caller = &asking.caller;
        let written = self.written.load(Ordering::Acquire);
        let age_max = self.age_max(&caller.tag).await;
        let asked = self.fly(source, asking, credential, age_max).await;
        let is_kept = written == self.written.load(Ordering::Acquire);
        match asked {
            Ok((resolution, Access::Anonymous)) => {
                if is_kept {
                    self.shelf.put(&caller.tag, resolution.clone()).await;
                }
                Ok(Resolved {
                    resolution,
                    answer: TagAnswer::Asked,
                    access: Access::Anonymous,
                })
            }
            Ok((resolution, Access::Caller)) => {
                // What took a credential now is not everybody's any more.
                self.shelf.remove(&caller.tag).await;
                if is_kept {
                    let answer = resolution.clone();
                    self.private.insert(caller.clone(), answer).await;
                }
                Ok(Resolved {
                    resolution,
                    answer: TagAnswer::Asked,
                    access: Access::Caller,
                })
            }
            Err(error) => {
                self.forget(asking, &error).await;
                Err(error)
            }
        }
    }

    /// A refusal is never remembered for the next caller, and an answer is, as long as it is only
    /// the upstream that is away.
    async fn forget(&self, asking: &Asking, error: &Arc<SourceError>) {
        let caller = &asking.caller;
        let is_refusal = matches!(**error, SourceError::Refused(_));
        if !is_refusal {
            self.failed
                .insert(asking.clone(), ((self.clock)(), Arc::clone(error)))
                .await;
        }
        if !upstream::is_outage(error) {
            self.private.invalidate(caller).await;
        }
        if matches!(&**error, SourceError::Status(answer) if answer.status == http::StatusCode::NOT_FOUND)
            && !upstream::is_outage(error)
        {
            self.shelf.remove(&caller.tag).await;
        }
    }

    /// How old a word of other hosts on `tag` may be: not from before it was written here.
    async fn age_max(&self, tag: &TagName) -> Duration {
        let ttl = self.rules().times.ttl;
        let Some(written_at) = self.written_at.get(tag).await else {
            return ttl;
        };
        let since = (self.clock)().duration_since(written_at);
        since.map_or(Duration::ZERO, |since| since.min(ttl))
    }

    /// Joins the request that is under way for this caller's tag, or begins it.
    fn fly(
        &self,
        source: &Arc<dyn Upstream>,
        asking: &Asking,
        credential: Option<&Credential>,
        age_max: Duration,
    ) -> Flight<Told> {
        let rules = self.rules();
        let question = Question {
            source: Arc::clone(source),
            tag: asking.caller.tag.clone(),
            patience: asking.patience,
            credential: credential.cloned(),
            len_max: rules.manifest_len_max,
            age_max,
            clock: self.clock,
        };
        self.flights.join(asking, || {
            async move { question.ask().await.map_err(Arc::new) }.boxed()
        })
    }
}
