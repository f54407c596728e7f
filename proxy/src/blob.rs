//! Blobs: whole or in parts, through the swarm; HEAD opens no task, nor what the caller has already.
//!
//! What is not known to be everybody's is given only to whom its own registry lets see it. Whatever
//! goes wrong with that question, the answer is no.

use std::ops::Range;

use futures_util::StreamExt;
use http::{StatusCode, header};
use protocol::{ContentKind, Digest, TaskId, Visibility};
use swarm::{
    open::{OpenError, Wanted},
    source::{
        AnsweredBy, ByteRange, Method, Redirects, Reference, Resource, SourceError,
        UpstreamRequest, UpstreamResponse,
    },
};

use crate::{
    answer::{Answer, Ask, DOCKER_CONTENT_DIGEST},
    body::Content,
    byteranges::{BLOB_TYPE, Byteranges, Framing},
    door::Door,
    engine::OpenContent,
    error::{Fault, Refusal},
    range::{self, Asked, Parts, Several},
    route::Target,
    serve::Proxy,
    upstream,
};

/// A content that a request names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    pub(crate) kind: ContentKind,
    pub(crate) digest: Digest,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn blob(
        &self,
        ask: &Ask,
        target: &Target,
        digest: Digest,
    ) -> Result<Answer, Refusal> {
        let named = Named {
            kind: ContentKind::Blob,
            digest,
        };
        let is_known = ask.holds(&etag(digest));
        if ask.is_head() || is_known {
            // Whoever may not read it is not told that it is here, whatever it says that it holds.
            let size = self.blob_size(ask, target, named).await?;
            let status = match is_known {
                true => StatusCode::NOT_MODIFIED,
                false => StatusCode::OK,
            };
            let mut answer = blob_answer(status, digest, Content::Empty);
            answer.length = size;
            return Ok(answer);
        }
        let lines = ask.headers.get_all(header::RANGE);
        let lines = lines.iter().filter_map(|value| value.to_str().ok());
        let door = self.door(ask, target, named).await?;
        match range::parse(lines, ask.header(&header::IF_RANGE), &etag(digest)) {
            Asked::One(wanted) => one_part(&door, wanted, (ask, digest)).await,
            Asked::Several(ranges) => several_parts(door, &ranges, (ask, digest)).await,
        }
    }

    async fn blob_size(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
    ) -> Result<Option<u64>, Refusal> {
        let held = self.engine.held(TaskId(named.digest)).await;
        if let Some(held) = &held
            && held.visibility == Visibility::Public
            && let Some(size) = held.size
        {
            return Ok(Some(size));
        }
        match self.may_read(ask, target, named).await {
            Ok(proven) => {
                let held = held.filter(|held| is_of(&held.visibility, target));
                if let Some(size) = proven.size.or(held.and_then(|held| held.size)) {
                    return Ok(Some(size));
                }
                if proven.is_told {
                    return self.blob_size_by_get(ask, target, named).await;
                }
            }
            // Asked again, and more than once.
            Err(unproven) if unproven.is_undecided => {}
            Err(unproven) => return Err(unproven.refusal),
        }
        let told = match self
            .upstream
            .send(head(ask, target, named, Redirects::Follow), ask.patience())
            .await
        {
            Ok(response) => response.content_length,
            Err(error) if is_final(&error) => {
                return Err(upstream::refusal(&error, named.missing()));
            }
            Err(_) => None,
        };
        match told {
            Some(size) => Ok(Some(size)),
            None => self.blob_size_by_get(ask, target, named).await,
        }
    }

    /// A signed address for GET is often no good for HEAD, and some registries have no HEAD.
    async fn blob_size_by_get(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
    ) -> Result<Option<u64>, Refusal> {
        let request = first_byte_of(head(ask, target, named, Redirects::Follow));
        let sent = self.upstream.send(request, ask.patience()).await;
        let response = sent.map_err(|error| upstream::refusal(&error, named.missing()))?;
        Ok(whole_size(&response))
    }
}

// === impl Named ===

impl Named {
    pub(crate) fn missing(self) -> Fault {
        match self.kind {
            ContentKind::Blob => Fault::BlobUnknown,
            ContentKind::Manifest => Fault::ManifestUnknown,
        }
    }

    fn resource(self) -> Resource {
        match self.kind {
            ContentKind::Blob => Resource::Blob(self.digest),
            ContentKind::Manifest => Resource::Manifest(Reference::Digest(self.digest)),
        }
    }
}

/// The quoted entity tag of a content.
pub(crate) fn etag(digest: Digest) -> String {
    format!("\"{digest}\"")
}

/// A HEAD for `named` with the caller's credential.
pub(crate) fn head(
    ask: &Ask,
    target: &Target,
    named: Named,
    redirects: Redirects,
) -> UpstreamRequest {
    UpstreamRequest {
        method: Method::Head,
        registry: target.registry.clone(),
        repository: target.repository.clone(),
        resource: named.resource(),
        range: None,
        credential: ask.credential.clone(),
        redirects,
    }
}

/// A GET of the first byte of what `head` asks for.
pub(crate) fn first_byte_of(head: UpstreamRequest) -> UpstreamRequest {
    UpstreamRequest {
        method: Method::Get,
        range: Some(ByteRange {
            start: 0,
            end: Some(1),
        }),
        ..head
    }
}

/// Whether what is held may be given to requests for this registry at all.
pub(crate) fn is_of(visibility: &Visibility, target: &Target) -> bool {
    match visibility {
        Visibility::Public => true,
        Visibility::Private { origins } => origins.contains(&target.registry),
    }
}

/// Whether the registry itself has said no: asking in another way is of no use.
fn is_final(error: &SourceError) -> bool {
    match error {
        SourceError::Status(answer) => {
            answer.by == AnsweredBy::Registry && answer.status != StatusCode::METHOD_NOT_ALLOWED
        }
        SourceError::Malformed(_) | SourceError::TooLong { .. } | SourceError::Redirect(_) => false,
        SourceError::NotAllowed(_)
        | SourceError::Forbidden { .. }
        | SourceError::Unreachable { .. }
        | SourceError::Stalled { .. }
        | SourceError::Refused(_)
        | SourceError::RateLimited { .. }
        | SourceError::Interrupted => true,
    }
}

fn whole_size(response: &UpstreamResponse) -> Option<u64> {
    match response.content_range {
        Some(range) => range.total,
        None if response.status == StatusCode::OK => response.content_length,
        None => None,
    }
}

/// The whole, or the part that one range asks for.
async fn one_part(
    door: &Door,
    wanted: Wanted,
    (ask, digest): (&Ask, Digest),
) -> Result<Answer, Refusal> {
    let refused = |error| door.refusal(&error);
    let opened = door.open(wanted, ask.patience()).await;
    let mut content = opened.map_err(refused)?;
    // A 206 tells where it ends, and the whole size: without them the whole is given.
    if content.size.is_none() && wanted != Wanted::Whole {
        let opened = door.open(Wanted::Whole, ask.patience()).await;
        content = opened.map_err(refused)?;
    }
    match content.size {
        Some(size) if wanted != Wanted::Whole => Ok(part(digest, content, size)),
        Some(0) => empty(digest, content).await,
        size => {
            let mut answer = blob_answer(StatusCode::OK, digest, Content::Stream(content.stream));
            answer.length = size;
            Ok(answer)
        }
    }
}

/// A part for each range, where that can be; the first one is opened to learn the size.
async fn several_parts(
    door: Door,
    ranges: &Several,
    (ask, digest): (&Ask, Digest),
) -> Result<Answer, Refusal> {
    let opened = door.open(ranges.first(), ask.patience()).await;
    let size = match &opened {
        Ok(content) => content.size,
        Err(OpenError::NotSatisfiable { size }) => Some(*size),
        Err(error) => return Err(door.refusal(error)),
    };
    match (size.map(|size| (size, ranges.resolve(size))), opened) {
        (Some((size, Parts::Each(parts))), Ok(first)) => {
            let framing = Framing::new(digest, size, parts);
            let (content_type, length) = (framing.content_type(), framing.length());
            let content = Content::Stream(Box::pin(Byteranges::new(door, framing, first)));
            let mut answer = blob_answer(StatusCode::PARTIAL_CONTENT, digest, content);
            answer.set(header::CONTENT_TYPE, &content_type);
            answer.length = Some(length);
            Ok(answer)
        }
        (Some((_, Parts::NotSatisfiable)), Err(error)) => Err(door.refusal(&error)),
        (Some(_) | None, first) => {
            drop(first);
            one_part(&door, Wanted::Whole, (ask, digest)).await
        }
    }
}

fn blob_answer(status: StatusCode, digest: Digest, content: Content) -> Answer {
    let mut answer = Answer::new(status, content);
    answer.set(header::CONTENT_TYPE, BLOB_TYPE);
    answer.set(header::ACCEPT_RANGES, "bytes");
    answer.set(header::ETAG, &etag(digest));
    answer.set(DOCKER_CONTENT_DIGEST, &digest.to_string());
    answer
}

fn part(digest: Digest, content: OpenContent, size: u64) -> Answer {
    let Range { start, end } = content.range;
    let stream = Content::Stream(content.stream);
    let mut answer = blob_answer(StatusCode::PARTIAL_CONTENT, digest, stream);
    answer.set(
        header::CONTENT_RANGE,
        &range::content_range(&(start..end), size),
    );
    answer.length = Some(end - start);
    answer
}

/// A body of no bytes has no end to hold back: what it must satisfy is waited for here.
async fn empty(digest: Digest, mut content: OpenContent) -> Result<Answer, Refusal> {
    while let Some(chunk) = content.stream.next().await {
        chunk.map_err(|broken| Refusal::new(broken.fault, broken.reason))?;
    }
    Ok(blob_answer(
        StatusCode::OK,
        digest,
        Content::Full(bytes::Bytes::new()),
    ))
}
