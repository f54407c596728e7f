//! The one table: fault × who asks → status and code. Nothing else in this crate decides a status.
//!
//! Whoever can fall back gets a fast 404 for all that cannot be had: dockerd falls back from it in
//! 0.1 s and waits 50 s on a 5xx, containerd retries 408 and 429. The others get the upstream's own
//! answer, since nobody falls back for them. containerd needs the challenge itself, to send its token.
//!
//! | fault             | namespace                | mirror                   | direct                   |
//! |-------------------|--------------------------|--------------------------|--------------------------|
//! | bad-name          | 400 NAME_INVALID         | 400 NAME_INVALID         | 400 NAME_INVALID         |
//! | bad-digest        | 400 DIGEST_INVALID       | 400 DIGEST_INVALID       | 400 DIGEST_INVALID       |
//! | no-such-path      | 404 UNSUPPORTED          | 404 UNSUPPORTED          | 404 UNSUPPORTED          |
//! | method            | 405 UNSUPPORTED          | 405 UNSUPPORTED          | 405 UNSUPPORTED          |
//! | not-allowed       | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 403 DENIED               |
//! | blob-unknown      | 404 BLOB_UNKNOWN         | 404 BLOB_UNKNOWN         | 404 BLOB_UNKNOWN         |
//! | manifest-unknown  | 404 MANIFEST_UNKNOWN     | 404 MANIFEST_UNKNOWN     | 404 MANIFEST_UNKNOWN     |
//! | name-unknown      | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         |
//! | range             | 416 RANGE_INVALID        | 416 RANGE_INVALID        | 416 RANGE_INVALID        |
//! | unauthorized      | 401 UNAUTHORIZED         | 404 NAME_UNKNOWN         | 401 UNAUTHORIZED         |
//! | denied            | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 403 DENIED               |
//! | limited           | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 429 TOOMANYREQUESTS      |
//! | failing           | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 502 UNAVAILABLE          |
//! | unreachable       | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 502 UNAVAILABLE          |
//! | slow              | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 504 UNAVAILABLE          |
//! | corrupt           | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 502 UNAVAILABLE          |
//! | too-large         | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 502 SIZE_INVALID         |
//! | local             | 404 NAME_UNKNOWN         | 404 NAME_UNKNOWN         | 503 UNAVAILABLE          |
//!
//! A direct asker gets the upstream's own status in place of the one of `failing` (its 500, its 503).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::client::Asker;

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    BadName,
    BadDigest,
    NoSuchPath,
    Method,
    /// The registry is not one this proxy asks.
    NotAllowed,
    BlobUnknown,
    ManifestUnknown,
    NameUnknown,
    Range,
    /// The upstream wants a credential, or a better one.
    Unauthorized,
    /// The upstream refuses this caller.
    Denied,
    /// The upstream limits.
    Limited,
    /// The upstream answers that it cannot.
    Failing,
    /// No connection to the upstream.
    Unreachable,
    /// The upstream did not answer in time.
    Slow,
    /// The upstream's bytes do not match the digest.
    Corrupt,
    TooLarge,
    /// This node cannot: overloaded, or stopping.
    Local,
}

/// Error codes, as the distribution specification writes them; the last two are the docker
/// distribution's, for what the specification has no code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    BlobUnknown,
    Denied,
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    Unauthorized,
    Unsupported,
    RangeInvalid,
    Unavailable,
}

/// A request that is refused: the fault, words for a human, and what the upstream said.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub fault: Fault,
    /// What happened and what to do.
    pub message: String,
    /// Headers that go with the answer: the upstream's challenges, a `Content-Range`.
    pub headers: HeaderMap,
    pub upstream: Option<UpstreamWord>,
}

/// The upstream's own answer.
#[derive(Debug, Clone)]
pub struct UpstreamWord {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}

#[derive(Serialize)]
struct Errors<'a> {
    errors: [ErrorInfo<'a>; 1],
}

#[derive(Serialize)]
struct ErrorInfo<'a> {
    code: Code,
    message: &'a str,
}

// === impl Fault ===

impl Fault {
    pub const ALL: [Self; 18] = [
        Self::BadName,
        Self::BadDigest,
        Self::NoSuchPath,
        Self::Method,
        Self::NotAllowed,
        Self::BlobUnknown,
        Self::ManifestUnknown,
        Self::NameUnknown,
        Self::Range,
        Self::Unauthorized,
        Self::Denied,
        Self::Limited,
        Self::Failing,
        Self::Unreachable,
        Self::Slow,
        Self::Corrupt,
        Self::TooLarge,
        Self::Local,
    ];

    /// The table.
    pub fn answer(self, asker: Asker) -> (StatusCode, Code) {
        let direct = self.answer_direct();
        let fallback = match self {
            Self::BadName
            | Self::BadDigest
            | Self::NoSuchPath
            | Self::Method
            | Self::BlobUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown
            | Self::Range => direct,
            Self::Unauthorized if asker == Asker::Namespace => direct,
            Self::Unauthorized
            | Self::NotAllowed
            | Self::Denied
            | Self::Limited
            | Self::Failing
            | Self::Unreachable
            | Self::Slow
            | Self::Corrupt
            | Self::TooLarge
            | Self::Local => (StatusCode::NOT_FOUND, Code::NameUnknown),
        };
        if asker.can_fall_back() {
            fallback
        } else {
            direct
        }
    }

    fn answer_direct(self) -> (StatusCode, Code) {
        match self {
            Self::BadName => (StatusCode::BAD_REQUEST, Code::NameInvalid),
            Self::BadDigest => (StatusCode::BAD_REQUEST, Code::DigestInvalid),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, Code::Unsupported),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported),
            Self::NotAllowed | Self::Denied => (StatusCode::FORBIDDEN, Code::Denied),
            Self::BlobUnknown => (StatusCode::NOT_FOUND, Code::BlobUnknown),
            Self::ManifestUnknown => (StatusCode::NOT_FOUND, Code::ManifestUnknown),
            Self::NameUnknown => (StatusCode::NOT_FOUND, Code::NameUnknown),
            Self::Range => (StatusCode::RANGE_NOT_SATISFIABLE, Code::RangeInvalid),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, Code::Unauthorized),
            Self::Limited => (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests),
            Self::Failing | Self::Unreachable | Self::Corrupt => {
                (StatusCode::BAD_GATEWAY, Code::Unavailable)
            }
            Self::Slow => (StatusCode::GATEWAY_TIMEOUT, Code::Unavailable),
            Self::TooLarge => (StatusCode::BAD_GATEWAY, Code::SizeInvalid),
            Self::Local => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::BadName => "bad-name",
            Self::BadDigest => "bad-digest",
            Self::NoSuchPath => "no-such-path",
            Self::Method => "method",
            Self::NotAllowed => "not-allowed",
            Self::BlobUnknown => "blob-unknown",
            Self::ManifestUnknown => "manifest-unknown",
            Self::NameUnknown => "name-unknown",
            Self::Range => "range",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::Failing => "failing",
            Self::Unreachable => "unreachable",
            Self::Slow => "slow",
            Self::Corrupt => "corrupt",
            Self::TooLarge => "too-large",
            Self::Local => "local",
        }
    }
}

// === impl Refusal ===

impl Refusal {
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self {
            fault,
            message: message.into(),
            headers: HeaderMap::new(),
            upstream: None,
        }
    }

    /// With a header that belongs to the answer.
    pub fn with(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// With a header whose text is our own: visible ASCII.
    pub fn with_text(self, name: header::HeaderName, text: &str) -> Self {
        match HeaderValue::from_str(text) {
            Ok(value) => self.with(name, value),
            Err(_) => self,
        }
    }

    /// The answer to `asker`. A HEAD gets the same headers; the caller leaves out the body.
    pub fn response(&self, asker: Asker) -> Response<Bytes> {
        let (status, code) = self.fault.answer(asker);
        let own = self
            .upstream
            .as_ref()
            .filter(|_| asker == Asker::Direct && self.fault == Fault::Failing);
        let status = own.map_or(status, |word| word.status);
        let (content_type, body) = match self.relayed_body(status) {
            Some((content_type, body)) => (content_type.clone(), body),
            None => (
                HeaderValue::from_static("application/json"),
                body(code, &self.message),
            ),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = self.headers.clone();
        let headers = response.headers_mut();
        if !matches!(status, StatusCode::UNAUTHORIZED) {
            headers.remove(header::WWW_AUTHENTICATE);
        }
        if status == StatusCode::NOT_FOUND {
            headers.remove(header::RETRY_AFTER);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        headers.insert(header::CONTENT_TYPE, content_type);
        response
    }

    /// The upstream's body, where the caller gets the upstream's status with it.
    fn relayed_body(&self, status: StatusCode) -> Option<(&HeaderValue, Bytes)> {
        let word = self
            .upstream
            .as_ref()
            .filter(|word| word.status == status)?;
        let content_type = word.content_type.as_ref()?;
        let is_json = content_type.as_bytes().starts_with(b"application/json");
        (is_json && !word.body.is_empty()).then(|| (content_type, word.body.clone()))
    }
}

fn body(code: Code, message: &str) -> Bytes {
    let errors = Errors {
        errors: [ErrorInfo { code, message }],
    };
    serde_json::to_vec(&errors).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(fault: Fault, asker: Asker) -> String {
        let (status, code) = fault.answer(asker);
        let code = serde_json::to_string(&code).unwrap();
        format!("{} {}", status.as_u16(), code.trim_matches('"'))
    }

    #[test]
    fn the_table_on_top_of_this_file_is_what_is_answered() {
        let shown: Vec<&str> = include_str!("error.rs")
            .lines()
            .filter(|line| line.starts_with("//! |"))
            .skip(2)
            .collect();
        let told: Vec<String> = Fault::ALL
            .iter()
            .map(|fault| {
                let [namespace, mirror, direct] = Asker::ALL.map(|asker| cell(*fault, asker));
                format!(
                    "//! | {:<17} | {namespace:<24} | {mirror:<24} | {direct:<24} |",
                    fault.label()
                )
            })
            .collect();
        assert_eq!(shown, told);
    }

    #[test]
    fn whoever_can_fall_back_never_waits() {
        for fault in Fault::ALL {
            for asker in [Asker::Namespace, Asker::Mirror] {
                let (status, _) = fault.answer(asker);
                assert!(!status.is_server_error(), "{fault:?}");
                assert!(!matches!(status.as_u16(), 403 | 408 | 429), "{fault:?}");
            }
        }
    }

    fn refusal(status: u16, fault: Fault) -> Refusal {
        let mut refusal = Refusal::new(fault, "the upstream says no")
            .with(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"https://a/t\""),
            )
            .with(header::RETRY_AFTER, HeaderValue::from_static("7"));
        refusal.upstream = Some(UpstreamWord {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: Some(HeaderValue::from_static("application/json; charset=utf-8")),
            body: Bytes::from_static(b"{\"errors\":[]}"),
        });
        refusal
    }

    #[track_caller]
    fn check(status: u16, fault: Fault, asker: Asker, expect: (u16, bool, bool, bool)) {
        let response = refusal(status, fault).response(asker);
        let headers = response.headers();
        let seen = (
            response.status().as_u16(),
            headers.contains_key(header::WWW_AUTHENTICATE),
            headers.contains_key(header::RETRY_AFTER),
            response.body().as_ref() == b"{\"errors\":[]}",
        );
        assert_eq!(seen, expect, "{status} {fault:?} {asker:?}");
    }

    #[test]
    fn those_without_another_host_get_the_upstreams_own_answer() {
        check(503, Fault::Failing, Asker::Direct, (503, false, true, true));
        check(429, Fault::Limited, Asker::Direct, (429, false, true, true));
        check(
            401,
            Fault::Unauthorized,
            Asker::Direct,
            (401, true, true, true),
        );
        check(
            401,
            Fault::Unauthorized,
            Asker::Namespace,
            (401, true, true, true),
        );
        check(
            401,
            Fault::Unauthorized,
            Asker::Mirror,
            (404, false, false, false),
        );
        check(
            503,
            Fault::Failing,
            Asker::Namespace,
            (404, false, false, false),
        );
        check(
            429,
            Fault::Limited,
            Asker::Mirror,
            (404, false, false, false),
        );
    }

    #[test]
    fn the_body_is_what_the_specification_says() {
        let response = Refusal::new(Fault::Limited, "wait \"a\" while").response(Asker::Direct);
        let text = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"wait \"a\" while"}]}"#;
        assert_eq!(response.body().as_ref(), text.as_bytes());
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let response = Refusal::new(Fault::Method, "no").response(Asker::Mirror);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
    }
}
