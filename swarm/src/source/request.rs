//! What is asked of an upstream, and what it answered.
//!
//! Says nothing of how: no URL of a redirect's target and no token is in here.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use http::{HeaderMap, StatusCode};
use protocol::{Digest, RegistryName, Repository};

use super::{
    credential::Credential,
    error::SourceError,
    range::{ByteRange, ContentRange},
};

/// One request of the distribution specification ("Pull", "Content discovery").
#[derive(Debug, Clone)]
pub struct UpstreamRequest {
    pub method: Method,
    pub registry: RegistryName,
    pub repository: Repository,
    pub resource: Resource,
    pub range: Option<ByteRange>,
    /// Used only after the upstream refused to answer anonymously.
    pub credential: Option<Credential>,
    pub redirects: Redirects,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Blob(Digest),
    Manifest(Reference),
    /// `tags/list`, with the query as the caller wrote it, without the `?`; may be empty.
    TagsList {
        query: String,
    },
    /// `referrers/<digest>`, with the query as the caller wrote it.
    Referrers {
        digest: Digest,
        query: String,
    },
}

/// How a manifest is named. The tag must hold to the specification's grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Tag(String),
    Digest(Digest),
}

/// What is done with a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// Followed, judged at each step.
    Follow,
    /// Given back as the response: `Location` may be a signed URL, so it must not be logged.
    Stop,
}

/// With which right something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// With none: anybody may read it.
    Anonymous,
    /// With the caller's credential or this node's login, anonymous having been refused, or with the
    /// certificate of this host.
    Caller,
}

/// A success (2xx), or the redirect itself for [`Redirects::Stop`]. All else is a [`SourceError`].
#[derive(Debug)]
pub struct UpstreamResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub access: Access,
    /// The length of this response's body; of the body that GET would have, for HEAD.
    pub content_length: Option<u64>,
    pub content_range: Option<ContentRange>,
    pub body: Body,
}

/// The bytes of a response as they arrive. Ends with an error when they stop before their end.
pub struct Body {
    chunks: BoxStream<'static, Result<Bytes, SourceError>>,
}

// === impl Body ===

impl Body {
    pub fn new(chunks: impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static) -> Self {
        Self {
            chunks: chunks.boxed(),
        }
    }

    pub async fn next_chunk(&mut self) -> Option<Result<Bytes, SourceError>> {
        self.chunks.next().await
    }

    /// The whole body, which must not be longer than `len_max` bytes.
    pub async fn collect(mut self, len_max: usize) -> Result<Bytes, SourceError> {
        let mut collected = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await {
            let chunk = chunk?;
            if len_max < collected.len() + chunk.len() {
                let len_max = len_max as u64;
                return Err(SourceError::TooLong { len_max });
            }
            collected.extend_from_slice(&chunk);
        }
        Ok(collected.freeze())
    }
}

impl Stream for Body {
    type Item = Result<Bytes, SourceError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.poll_next_unpin(context)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}
