//! What anybody may read, asked of the registry once for all hosts that want to know it.
//!
//! Asked as nobody: no caller's credential and no login of this node is ever used, so what is told here
//! is a secret to none. Whatever is not a plain yes says nothing: who wants to know more asks himself.

use std::{
    fmt,
    time::{Duration, Instant},
};

use http::header;
use moka::future::Cache;
use protocol::{Digest, RegistryName, Repository};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    client::Upstreams,
    clock,
    error::SourceError,
    request::{Access, Method, Redirects, Reference, Resource, UpstreamRequest, UpstreamResponse},
    rights::Means,
};

/// A content or a tag that everybody may be let see.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub registry: RegistryName,
    pub repository: Repository,
    pub subject: Subject,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    Blob(Digest),
    Manifest(Digest),
    /// It holds to the specification's grammar.
    Tag(String),
}

/// What the registry told anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub digest: Digest,
    /// The `Content-Type` of a manifest, as it was told.
    pub media_type: Option<String>,
    pub size: Option<u64>,
    /// How long ago it was asked.
    pub age: Duration,
}

/// What registries have told.
#[derive(Debug)]
pub(super) struct Public {
    answers: Cache<Question, Answer>,
    /// Repositories that wanted to know who asks, a moment ago.
    closed: Cache<(RegistryName, Repository), ()>,
    /// Questions that may be before registries at once.
    turns: Semaphore,
}

#[derive(Debug, Clone)]
struct Answer {
    asked_at: Instant,
    told: Option<Told>,
}

/// Answers kept at once; the least used go first.
const ANSWERS_MAX: u64 = 16_384;
/// No answer is kept longer.
const KEPT_FOR: Duration = Duration::from_secs(60 * 60);
/// How long it is believed that there is nothing to tell.
const NOTHING_FOR: Duration = Duration::from_secs(5);
/// How long a repository is not asked that wanted to know who asks.
const CLOSED_FOR: Duration = Duration::from_secs(30);
/// Questions before registries at once; what is fetched there goes before.
const TURNS: usize = 16;
/// How often the same is asked for one who is told something too old, since others asked before.
const TRIES: usize = 3;
/// How long a registry is waited for: who asks can ask it himself.
const WAIT: Duration = Duration::from_secs(3);

// === impl Question ===

impl Question {
    /// What `request` asks for; `None` where that is a list.
    pub fn of(request: &UpstreamRequest) -> Option<Self> {
        let subject = match &request.resource {
            Resource::Blob(digest) => Subject::Blob(*digest),
            Resource::Manifest(Reference::Digest(digest)) => Subject::Manifest(*digest),
            Resource::Manifest(Reference::Tag(tag)) => Subject::Tag(tag.clone()),
            Resource::TagsList { .. } | Resource::Referrers { .. } => return None,
        };
        Some(Self {
            registry: request.registry.clone(),
            repository: request.repository.clone(),
            subject,
        })
    }

    fn request(&self) -> UpstreamRequest {
        let (resource, redirects) = match &self.subject {
            // Where it leads has no say in who may read.
            Subject::Blob(digest) => (Resource::Blob(*digest), Redirects::Stop),
            Subject::Manifest(digest) => (
                Resource::Manifest(Reference::Digest(*digest)),
                Redirects::Follow,
            ),
            Subject::Tag(tag) => (
                Resource::Manifest(Reference::Tag(tag.clone())),
                Redirects::Follow,
            ),
        };
        UpstreamRequest {
            method: Method::Head,
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            resource,
            range: None,
            credential: None,
            redirects,
        }
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            registry,
            repository,
            subject,
        } = self;
        write!(f, "{registry}/{repository} {subject:?}")
    }
}

// === impl Upstreams ===

impl Upstreams {
    /// What is told to anybody, asked no longer than `age_max` ago: now, if it must be, and once for all
    /// who wait.
    pub(crate) async fn public(&self, question: &Question, age_max: Duration) -> Option<Told> {
        let public = self.known_to_all();
        let now = clock::now();
        for _ in 0..TRIES {
            let looking = public.look(self, question);
            let entry = public.answers.entry_by_ref(question);
            let entry = entry.or_insert_with_if(looking, |answer| answer.is_stale(now, age_max));
            let answer = entry.await.into_value();
            // One that was under way already may have been asked too early.
            if !answer.is_stale(now, age_max) {
                let age = clock::since(answer.asked_at);
                return answer.told.map(|told| Told { age, ..told });
            }
        }
        None
    }
}

// === impl Public ===

impl Public {
    async fn look(&self, upstreams: &Upstreams, question: &Question) -> Answer {
        let asked_at = clock::now();
        let place = (question.registry.clone(), question.repository.clone());
        if self.closed.get(&place).await.is_some() {
            return Answer {
                asked_at,
                told: None,
            };
        }
        let request = question.request();
        let asking = async {
            let _turn = self.turns.acquire().await.ok()?;
            Some(upstreams.send_once(&request, Means::Nobody).await)
        };
        let told = match timeout(WAIT, asking).await {
            Ok(Some(Ok(response))) if response.access == Access::Anonymous => {
                read(question, &response)
            }
            Ok(Some(Err(SourceError::Refused(_)))) => {
                self.closed.insert(place, ()).await;
                None
            }
            Ok(_) | Err(_) => None,
        };
        Answer { asked_at, told }
    }
}

impl Default for Public {
    fn default() -> Self {
        let answers = Cache::builder().max_capacity(ANSWERS_MAX);
        let closed = Cache::builder().max_capacity(ANSWERS_MAX);
        Self {
            answers: answers.time_to_live(KEPT_FOR).build(),
            closed: closed.time_to_live(CLOSED_FOR).build(),
            turns: Semaphore::new(TURNS),
        }
    }
}

// === impl Answer ===

impl Answer {
    fn is_stale(&self, now: Instant, age_max: Duration) -> bool {
        let age = now.saturating_duration_since(self.asked_at);
        match self.told {
            Some(_) => age_max < age,
            None => NOTHING_FOR <= age,
        }
    }
}

/// What `response` tells; `None` where it does not say what a tag stands for, or says something else of
/// a digest.
fn read(question: &Question, response: &UpstreamResponse) -> Option<Told> {
    let text = |name: &str| response.headers.get(name)?.to_str().ok();
    let named = text("docker-content-digest").and_then(|text| text.parse().ok());
    let digest = match &question.subject {
        Subject::Blob(digest) => *digest,
        Subject::Manifest(digest) => named.is_none_or(|of| of == *digest).then_some(*digest)?,
        Subject::Tag(_) => named?,
    };
    let media_type = match question.subject {
        Subject::Blob(_) => None,
        Subject::Manifest(_) | Subject::Tag(_) => text(header::CONTENT_TYPE.as_str()),
    };
    let is_whole = response.status.is_success();
    Some(Told {
        digest,
        media_type: media_type.map(str::to_owned),
        size: response.content_length.filter(|_| is_whole),
        age: Duration::ZERO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_good_as_it_is_young_and_none_is_asked_for_again_soon() {
        let asked_at = clock::now();
        let told = || Told {
            digest: Digest::sha256_of(b""),
            media_type: None,
            size: None,
            age: Duration::ZERO,
        };
        let check = |is_told: bool, age: u64, age_max: u64, expect: bool| {
            let told = is_told.then(told);
            let now = asked_at + Duration::from_secs(age);
            let seen = Answer { asked_at, told }.is_stale(now, Duration::from_secs(age_max));
            assert_eq!(seen, expect, "{is_told} {age} {age_max}");
        };
        check(true, 60, 60, false);
        check(true, 61, 60, true);
        check(true, 0, 0, false);
        check(true, 1, 0, true);
        check(false, 4, 0, false);
        check(false, 5, 60, true);
    }
}
