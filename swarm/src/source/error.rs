//! What can go wrong at an upstream: what failed, whose fault it is, and whether to try again.
//!
//! Nothing in here carries a credential or the query of a URL, so every error may be logged.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use protocol::RegistryName;

use super::address::AddressClass;

/// Why an upstream gave no content.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The caller's fault: the registry is neither configured nor well known.
    #[error("the registry {0} is not allowed: name it in [[proxy.registry]] or in allow")]
    NotAllowed(RegistryName),

    /// The upstream's fault, or the configuration's: it points where Darter does not go.
    #[error("{host} leads to {class}, which this registry is not trusted with")]
    Forbidden { host: String, class: AddressClass },

    /// The network's or the upstream's fault: no name, no connection, no TLS.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable { host: String, reason: String },

    /// The network's or the upstream's fault: nothing came for too long.
    #[error("waited {waited:?} for {awaited}")]
    Stalled { awaited: Awaited, waited: Duration },

    /// The upstream's fault: it redirects without end, to nowhere, or from TLS to plain HTTP.
    #[error("redirected {0}")]
    Redirect(RedirectFault),

    /// The registry wants (other) credentials; its challenge is in the answer, untouched.
    #[error("the registry refused with {}", .0.status)]
    Refused(Box<Answer>),

    /// The registry limits its callers.
    #[error("the registry limits requests (retry after {retry_after:?})")]
    RateLimited {
        answer: Box<Answer>,
        retry_after: Option<Duration>,
    },

    /// Any other answer that is no success, as it was given.
    #[error("the upstream answered {}", .0.status)]
    Status(Box<Answer>),

    /// The network's or the upstream's fault: the body ended before its end.
    #[error("the body was cut short")]
    Interrupted,

    /// The upstream's fault, or the limit's: what must fit into memory is longer than is taken.
    #[error("the body is longer than the {len_max} bytes that are taken of its kind")]
    TooLong { len_max: u64 },

    /// The upstream's fault: its answer contradicts itself or the standard.
    #[error("the upstream's answer is malformed: {0}")]
    Malformed(&'static str),
}

/// An answer that is no success, kept so that it can be passed on.
#[derive(Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// At most [`ANSWER_LEN_MAX`] bytes; a longer body is left out.
    pub body: Bytes,
    pub by: AnsweredBy,
}

/// Who gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The registry itself.
    Registry,
    /// A host that the registry redirected to, or its token server.
    Elsewhere,
}

/// What was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// One of the connections that may be open to a registry at once.
    Slot,
    /// The head of a response.
    Headers,
    /// The next bytes of a body.
    Body,
}

/// What is wrong with a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectFault {
    #[error("too often")]
    TooMany,
    #[error("without a usable Location")]
    NoLocation,
    #[error("from https to http")]
    Downgrade,
    #[error("to something that is neither http nor https")]
    Scheme,
}

/// The most bytes of an error's body that are kept.
pub const ANSWER_LEN_MAX: usize = 64 * 1024;

// === impl SourceError ===

impl SourceError {
    /// Whether the same request may succeed in a moment, with nothing changed on our side.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::RateLimited { .. }
            | Self::Interrupted => true,
            Self::Status(answer) => answer.retryable(),
            Self::NotAllowed(_)
            | Self::Forbidden { .. }
            | Self::Redirect(_)
            | Self::Refused(_)
            | Self::TooLong { .. }
            | Self::Malformed(_) => false,
        }
    }

    /// Whether the registry itself said no: to a stranger, that nothing is there may be one too.
    pub(crate) fn is_no(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Status(answer) => answer.is_not_found(),
            Self::NotAllowed(_)
            | Self::Forbidden { .. }
            | Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::RateLimited { .. }
            | Self::Redirect(_)
            | Self::Interrupted
            | Self::TooLong { .. }
            | Self::Malformed(_) => false,
        }
    }

    /// The upstream's own answer, where there was one.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Refused(answer) | Self::Status(answer) | Self::RateLimited { answer, .. } => {
                Some(answer)
            }
            Self::NotAllowed(_)
            | Self::Forbidden { .. }
            | Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::Redirect(_)
            | Self::Interrupted
            | Self::TooLong { .. }
            | Self::Malformed(_) => None,
        }
    }
}

// === impl Answer ===

impl Answer {
    /// The `WWW-Authenticate` headers (RFC 9110, section 11.6.1), in the upstream's order.
    pub fn challenges(&self) -> impl Iterator<Item = &HeaderValue> {
        self.headers.get_all(header::WWW_AUTHENTICATE).iter()
    }

    /// Whether the registry itself said that nothing is there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.by == AnsweredBy::Registry && self.status == StatusCode::NOT_FOUND
    }

    /// A host we were redirected to answers 401 or 403 when its signed URL has run out: asking
    /// the registry again gets a new one.
    fn retryable(&self) -> bool {
        match self.status {
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => true,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.by == AnsweredBy::Elsewhere,
            _ => false,
        }
    }
}

impl fmt::Debug for Answer {
    /// The status alone: headers hold cookies and signed URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({} by {:?})", self.status, self.by)
    }
}

// === impl Awaited ===

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slot => "a free connection to the registry",
            Self::Headers => "the head of the response",
            Self::Body => "the next bytes of the body",
        })
    }
}
