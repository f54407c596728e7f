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
use tokio::time::timeout;

use super::{
    client::Upstreams,
    clock,
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
pub(crate) struct Public {
    answers: Cache<Question, Answer>,
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

// === impl Public ===

impl Public {
    /// What is told to anybody, asked no longer than `age_max` ago: now, if it must be, and once for all
    /// who wait.
    pub(crate) async fn ask(
        &self,
        upstreams: &Upstreams,
        question: &Question,
        age_max: Duration,
    ) -> Option<Told> {
        let now = clock::now();
        let looking = look(upstreams, question);
        let entry = self.answers.entry_by_ref(question);
        let entry = entry.or_insert_with_if(looking, |answer| answer.is_stale(now, age_max));
        let Answer { asked_at, told } = entry.await.into_value();
        let age = clock::since(asked_at);
        told.map(|told| Told { age, ..told })
    }
}

impl Default for Public {
    fn default() -> Self {
        let answers = Cache::builder().max_capacity(ANSWERS_MAX);
        Self {
            answers: answers.time_to_live(KEPT_FOR).build(),
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

async fn look(upstreams: &Upstreams, question: &Question) -> Answer {
    let asked_at = clock::now();
    let request = question.request();
    let asking = timeout(WAIT, upstreams.send_once(&request, Means::Nobody));
    let told = match asking.await {
        Ok(Ok(response)) if response.access == Access::Anonymous => read(question, &response),
        Ok(Ok(_) | Err(_)) | Err(_) => None,
    };
    Answer { asked_at, told }
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
