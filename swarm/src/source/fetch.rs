//! The bytes of one content, resumed by itself when they break off.
//!
//! Invariant: every byte that is given is the byte of its position as the upstream told it;
//! a body that contradicts what was told before ends with an error, never with a wrong length.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, header};
use protocol::{ContentKind, Digest, Origin};

use super::{
    client::Upstreams,
    clock,
    credential::Credential,
    error::SourceError,
    range::{AnswerHead, ByteRange, place},
    request::{Access, Body, Method, Redirects, Reference, Resource, UpstreamRequest},
    retry::Retries,
    rights::Means,
};

/// What is fetched, from where, and by which right at most.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    pub origin: Origin,
    pub digest: Digest,
    pub range: ByteRange,
    pub credential: Option<Credential>,
}

/// A fetch that has begun.
#[derive(Debug)]
pub struct Fetch {
    /// The size of the whole content, where told.
    pub size: Option<u64>,
    pub media_type: Option<String>,
    pub access: Access,
    /// The bytes of the range, of what exists of it.
    pub body: Body,
}

/// The longest manifest that is fetched, in bytes.
pub const MANIFEST_LEN_MAX: u64 = 16 * 1024 * 1024;

const MANIFEST_TOO_LONG: SourceError = SourceError::TooLong {
    len_max: MANIFEST_LEN_MAX,
};

/// Failures in a row, without a byte between them, that end a fetch.
const FETCH_FAILURES_MAX: u32 = 5;
/// No retry begins later than this after the last byte.
const FETCH_WINDOW: Duration = Duration::from_secs(60);

/// A body and what it takes to go on with it elsewhere.
#[derive(Debug)]
struct Resuming {
    upstreams: Upstreams,
    request: FetchRequest,
    means: Means,
    retries: Retries,
    /// The position of the next byte to be given.
    position: u64,
    /// The first byte not to be given, once known.
    end: Option<u64>,
    total: Option<u64>,
    open: Option<Open>,
    last_progress: Instant,
}

/// A response whose body is being read.
#[derive(Debug)]
struct Open {
    body: Body,
    /// Bytes still to come that were not asked for.
    skip: u64,
}

/// The head of a response.
#[derive(Debug)]
struct Head {
    access: Access,
    headers: HeaderMap,
}

// === impl Upstreams ===

impl Upstreams {
    /// Opens a content by digest. Retries, then and in the middle of the body, until the budget
    /// is used up. The first error is of the opening; later ones come through the body.
    pub async fn fetch(&self, request: FetchRequest) -> Result<Fetch, SourceError> {
        let mut resuming = Resuming {
            retries: self.retries(FETCH_FAILURES_MAX, FETCH_WINDOW),
            upstreams: self.pinned(),
            means: Means::All,
            position: request.range.start,
            end: request.range.end,
            total: None,
            open: None,
            last_progress: clock::now(),
            request,
        };
        let response = loop {
            match resuming.open().await {
                Ok(response) => break response,
                Err(error) => resuming.pause_after(error).await?,
            }
        };
        if response.access == Access::Anonymous {
            // Said to be public: a later part must not be bought with any credential.
            resuming.means = Means::Nobody;
        }
        let media_type = response
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        Ok(Fetch {
            size: resuming.total,
            media_type: media_type.map(ToOwned::to_owned),
            access: response.access,
            body: Body::new(stream::unfold(Some(resuming), |state| async move {
                let mut resuming = state?;
                match resuming.next_chunk().await {
                    Ok(Some(chunk)) => Some((Ok(chunk), Some(resuming))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            })),
        })
    }
}

// === impl Resuming ===

impl Resuming {
    /// The next bytes; `None` at the end of the range.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            if self.end.is_some_and(|end| end <= self.position) {
                return Ok(None);
            }
            let Some(open) = &mut self.open else {
                if let Err(error) = self.open().await {
                    self.pause_after(error).await?;
                }
                continue;
            };
            match open.body.next_chunk().await {
                Some(Ok(chunk)) => {
                    if let Some(chunk) = self.accept(chunk)? {
                        // The upstream waits meanwhile, for want of room on its connection.
                        self.upstreams.pace.take(chunk.len() as u64).await;
                        return Ok(Some(chunk));
                    }
                }
                // An unknown size ends where the body does.
                None if self.end.is_none() && open.skip == 0 => return Ok(None),
                None => self.pause_after(SourceError::Interrupted).await?,
                Some(Err(error)) => self.pause_after(error).await?,
            }
        }
    }

    /// The part of `chunk` that was asked for and is still needed.
    fn accept(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>, SourceError> {
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        let skipped = open.skip.min(chunk.len() as u64);
        open.skip -= skipped;
        let mut chunk = chunk.split_off(skipped as usize);
        if let Some(end) = self.end {
            let room = end - self.position;
            if room < chunk.len() as u64 {
                if self.total == self.end {
                    return Err(SourceError::Malformed(
                        "the body is longer than its told size",
                    ));
                }
                chunk.truncate(room as usize);
            }
        }
        self.position += chunk.len() as u64;
        if self.request.origin.kind == ContentKind::Manifest && MANIFEST_LEN_MAX < self.position {
            return Err(MANIFEST_TOO_LONG);
        }
        if chunk.is_empty() {
            return Ok(None);
        }
        self.retries.progressed();
        self.last_progress = clock::now();
        Ok(Some(chunk))
    }

    /// Asks for what is still to come. Gives the head of the answer, without its body.
    async fn open(&mut self) -> Result<Head, SourceError> {
        // Registries do not give ranges of manifests; those begin again and skip.
        let asked = match self.request.origin.kind {
            ContentKind::Blob => ByteRange {
                start: self.position,
                end: self.end,
            },
            ContentKind::Manifest => ByteRange {
                start: 0,
                end: None,
            },
        };
        let response = self
            .upstreams
            .send_once(&self.upstream_request(asked), self.means)
            .await?;
        let head = AnswerHead {
            status: response.status,
            content_length: response.content_length,
            content_range: response.content_range,
        };
        let placement = place(asked, self.total, head).map_err(SourceError::Malformed)?;
        self.total = placement.total;
        if let Some(total) = self.total {
            if self.request.origin.kind == ContentKind::Manifest && MANIFEST_LEN_MAX < total {
                return Err(MANIFEST_TOO_LONG);
            }
            self.end = Some(self.end.map_or(total, |end| end.min(total)));
        }
        let skip = placement.skip + (self.position - asked.start);
        self.open = Some(Open {
            body: response.body,
            skip,
        });
        Ok(Head {
            access: response.access,
            headers: response.headers,
        })
    }

    /// Waits for the next try, or gives `error` back when there is none.
    async fn pause_after(&mut self, error: SourceError) -> Result<(), SourceError> {
        self.open = None;
        let elapsed = clock::since(self.last_progress);
        match self.retries.failed(&error, elapsed, clock::jitter()) {
            Some(pause) => {
                self.upstreams
                    .pause_before_retry(&error, &self.request.origin.registry, pause)
                    .await;
                Ok(())
            }
            None => Err(error),
        }
    }

    fn upstream_request(&self, asked: ByteRange) -> UpstreamRequest {
        let whole = asked
            == ByteRange {
                start: 0,
                end: None,
            };
        let digest = self.request.digest;
        UpstreamRequest {
            method: Method::Get,
            registry: self.request.origin.registry.clone(),
            repository: self.request.origin.repository.clone(),
            resource: match self.request.origin.kind {
                ContentKind::Blob => Resource::Blob(digest),
                ContentKind::Manifest => Resource::Manifest(Reference::Digest(digest)),
            },
            range: (!whole).then_some(asked),
            credential: self.request.credential.clone(),
            redirects: Redirects::Follow,
        }
    }
}
