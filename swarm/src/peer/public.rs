//! How one host asks a seed what anybody may read: a HEAD of `/public/<registry>/<repository>/…` over the
//! connections of pieces, answered by the headers that the registry itself would answer with.
//!
//! `Cache-Control: max-age` (RFC 9111, section 5.2.1.1) tells how old an answer may be, and `Age` (section
//! 5.1) how old it is; 404 says that there is nothing to tell. Reading and writing is pure.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header, response};
use http_body_util::Empty;
use protocol::{Digest, Host};
use tokio::time::timeout;

use super::{PieceError, client::PieceClient, exchange::broken};
use crate::source::{Question, Subject, Told};

const PREFIX: &str = "/public/";
const DIGEST: &str = "docker-content-digest";

/// The longest tag (distribution specification, "Pulling manifests").
const TAG_LEN_MAX: usize = 128;

/// How long a seed is waited for, which may have to ask the registry.
const WAIT: Duration = Duration::from_secs(4);

// === impl PieceClient ===

impl PieceClient {
    /// What `seed` tells of `question`, asked of the registry no longer than `age_max` ago. `None` says
    /// that there is nothing that anybody is told.
    pub(crate) async fn ask_public(
        &self,
        seed: &Host,
        question: &Question,
        age_max: Duration,
    ) -> Result<Option<Told>, PieceError> {
        let unspeakable = || PieceError::Malformed("what is asked cannot be written");
        let uri = Uri::builder()
            .scheme("https")
            .authority(seed.to_string())
            .path_and_query(path(question))
            .build()
            .map_err(|_| unspeakable())?;
        let request = Request::head(uri)
            .header(
                header::CACHE_CONTROL,
                format!("max-age={}", age_max.as_secs()),
            )
            .body(Empty::<Bytes>::new())
            .map_err(|_| unspeakable())?;
        let answered = timeout(WAIT, self.connections().request(request)).await;
        let response = answered.map_err(|_| PieceError::Slow)?;
        let response = response.map_err(|error| broken(&error))?;
        match response.status() {
            StatusCode::OK => {
                // One that had to ask has waited for the registry since.
                let told = told(question, response.headers());
                let told = told.filter(|told| told.age <= age_max + WAIT);
                told.map(Some).ok_or(PieceError::Malformed("what is told"))
            }
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::SERVICE_UNAVAILABLE => Err(PieceError::Busy),
            _ => Err(PieceError::Malformed("the status is unknown")),
        }
    }
}

/// The path by which `question` is asked.
pub(crate) fn path(question: &Question) -> String {
    let Question {
        registry,
        repository,
        subject,
    } = question;
    match subject {
        Subject::Blob(digest) => format!("{PREFIX}{registry}/{repository}/blobs/{digest}"),
        Subject::Manifest(digest) => format!("{PREFIX}{registry}/{repository}/manifests/{digest}"),
        Subject::Tag(tag) => format!("{PREFIX}{registry}/{repository}/manifests/{tag}"),
    }
}

/// The question that a path asks; `None` for any other text.
pub(super) fn question(path: &str) -> Option<Question> {
    let (registry, rest) = path.strip_prefix(PREFIX)?.split_once('/')?;
    let (rest, reference) = rest.rsplit_once('/')?;
    let (repository, kind) = rest.rsplit_once('/')?;
    let subject = match (kind, reference.parse::<Digest>()) {
        ("blobs", Ok(digest)) => Subject::Blob(digest),
        ("manifests", Ok(digest)) => Subject::Manifest(digest),
        ("manifests", Err(_)) if is_tag(reference) => Subject::Tag(reference.to_owned()),
        _ => return None,
    };
    Some(Question {
        registry: registry.parse().ok()?,
        repository: repository.parse().ok()?,
        subject,
    })
}

/// How old an answer may be to whoever sent `headers`; one that says nothing wants it as it is now.
pub(super) fn age_max(headers: &HeaderMap) -> Duration {
    seconds(headers, header::CACHE_CONTROL.as_str(), "max-age=").unwrap_or_default()
}

/// The head of the answer that tells `told`.
pub(super) fn head(told: &Told) -> response::Builder {
    let mut head = Response::builder()
        .header(DIGEST, told.digest.to_string())
        .header(header::AGE, told.age.as_secs());
    let media_type = told.media_type.as_deref();
    if let Some(media_type) = media_type.and_then(|text| HeaderValue::from_str(text).ok()) {
        head = head.header(header::CONTENT_TYPE, media_type);
    }
    if let Some(size) = told.size {
        head = head.header(header::CONTENT_LENGTH, size);
    }
    head
}

/// What the head of an answer tells; `None` where it is none to `question`.
fn told(question: &Question, headers: &HeaderMap) -> Option<Told> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let digest = text(DIGEST)?.parse().ok()?;
    let is_one = match &question.subject {
        Subject::Blob(of) | Subject::Manifest(of) => *of == digest,
        Subject::Tag(_) => true,
    };
    is_one.then_some(())?;
    Some(Told {
        digest,
        media_type: text(header::CONTENT_TYPE.as_str()).map(str::to_owned),
        size: text(header::CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok()),
        age: seconds(headers, header::AGE.as_str(), "")?,
    })
}

fn seconds(headers: &HeaderMap, name: &str, before: &str) -> Option<Duration> {
    let text = headers.get(name)?.to_str().ok()?.strip_prefix(before)?;
    text.parse().ok().map(Duration::from_secs)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let (first, all) = (text.bytes().next(), text.bytes());
    text.len() <= TAG_LEN_MAX
        && first.is_some_and(is_word)
        && all
            .into_iter()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::*;

    fn digest() -> Digest {
        Digest::sha256_of(b"x")
    }

    #[test]
    fn what_is_asked_is_read_back() {
        for subject in [
            Subject::Blob(digest()),
            Subject::Manifest(digest()),
            Subject::Tag("v1.2-rc_3".to_owned()),
        ] {
            let asked = Question {
                registry: "r.example:5000".parse().unwrap(),
                repository: "blobs/manifests".parse().unwrap(),
                subject,
            };
            assert_eq!(question(&path(&asked)), Some(asked));
        }
    }

    #[test]
    fn what_is_no_question_is_none() {
        let long = format!(
            "/public/r.example/a/manifests/{}",
            "x".repeat(TAG_LEN_MAX + 1)
        );
        for text in [
            "",
            "/public/",
            "/public/r.example/a",
            "/public/r.example/manifests/latest",
            "/public/r.example/a/blobs/latest",
            "/public/r.example/a/manifests/",
            "/public/r.example/a/manifests/.x",
            "/public/r.example/a/manifests/a%20b",
            "/public/r.example/A/manifests/latest",
            "/public/r.example/a/tags/list",
            "/tasks/r.example/a/manifests/latest",
            &long,
        ] {
            assert_eq!(question(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_told_is_read_back_and_is_of_what_was_asked() {
        let asked = |subject| Question {
            registry: "r.example".parse().unwrap(),
            repository: "a".parse().unwrap(),
            subject,
        };
        let said = Told {
            digest: digest(),
            media_type: Some("application/vnd.oci.image.index.v1+json".to_owned()),
            size: Some(7),
            age: Duration::from_secs(9),
        };
        let answer = head(&said).body(()).unwrap();
        let read = |subject| told(&asked(subject), answer.headers());
        assert_eq!(read(Subject::Tag("latest".to_owned())), Some(said.clone()));
        assert_eq!(read(Subject::Manifest(digest())), Some(said));
        assert_eq!(read(Subject::Manifest(Digest::sha256_of(b"y"))), None);
        assert_eq!(
            told(&asked(Subject::Blob(digest())), &HeaderMap::new()),
            None
        );
    }

    #[test]
    fn an_age_is_a_number_of_seconds() {
        for (text, expect) in [
            ("max-age=60", 60),
            ("max-age=-1", 0),
            ("no-cache", 0),
            ("60", 0),
        ] {
            let value = HeaderValue::from_static(text);
            let headers = HeaderMap::from_iter([(header::CACHE_CONTROL, value)]);
            assert_eq!(age_max(&headers), Duration::from_secs(expect), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_the_reader_fall(path in ".*") {
            let _ = question(&path);
            let _ = question(&format!("/public/r.example/{path}"));
        }
    }
}
