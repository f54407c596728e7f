//! Blobs: whole or in part, through the swarm; HEAD opens no task.
//!
//! Private content that is held is given only after its own registry let this caller see it, by one
//! HEAD. Whatever goes wrong with that question, the answer is no.

use std::ops::Range;

use futures_util::StreamExt;
use http::{StatusCode, header};
use protocol::{ContentKind, Digest, Origin, TaskId, Visibility};
use swarm::{
    open::{OpenError, OpenRequest, ReadProof, Wanted},
    source::{
        AnsweredBy, ByteRange, Method, Redirects, Reference, Resource, SourceError,
        UpstreamRequest, UpstreamResponse,
    },
};

use crate::{
    answer::{Answer, Ask, DOCKER_CONTENT_DIGEST},
    body::Content,
    engine::OpenContent,
    error::{Fault, Refusal},
    range,
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
        if ask.is_head() {
            let size = self.blob_size(ask, target, named).await?;
            let mut answer = blob_answer(StatusCode::OK, digest, Content::Empty);
            answer.length = size;
            return Ok(answer);
        }
        let lines = ask.headers.get_all(header::RANGE);
        let lines = lines.iter().filter_map(|value| value.to_str().ok());
        let wanted = range::parse(lines, ask.header(&header::IF_RANGE), &etag(digest));
        let mut content = self
            .open(ask, target, named, wanted, ReadProof::Unchecked)
            .await?;
        // A 206 tells where it ends, and the whole size: without them the whole is given.
        if content.size.is_none() && wanted != Wanted::Whole {
            content = self
                .open(ask, target, named, Wanted::Whole, ReadProof::Unchecked)
                .await?;
        }
        match content.size {
            Some(size) if wanted != Wanted::Whole => Ok(part(digest, content, size)),
            Some(0) => empty(digest, content).await,
            size => {
                let mut answer =
                    blob_answer(StatusCode::OK, digest, Content::Stream(content.stream));
                answer.length = size;
                Ok(answer)
            }
        }
    }

    /// Opens a content, and where it is held as private, asks its registry first.
    pub(crate) async fn open(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
        wanted: Wanted,
        proof: ReadProof,
    ) -> Result<OpenContent, Refusal> {
        let origin = Origin {
            registry: target.registry.clone(),
            repository: target.repository.clone(),
            kind: named.kind,
        };
        let task = TaskId(named.digest);
        let request = OpenRequest {
            task,
            origin,
            wanted,
            credential: ask.credential.clone(),
            proof,
        };
        let opened = match self.engine.open(request.clone(), ask.patience()).await {
            Err(OpenError::NotProven) if proof == ReadProof::Unchecked => {
                self.prove(ask, target, named, wanted).await?;
                self.engine
                    .open(
                        OpenRequest {
                            proof: ReadProof::Checked,
                            ..request
                        },
                        ask.patience(),
                    )
                    .await
            }
            opened => opened,
        };
        opened.map_err(|error| upstream::open_refusal(&error, named.missing()))
    }

    /// Whether the registry lets this caller see the content, by one HEAD whose redirect is not
    /// followed: where it leads has no say in who may read.
    ///
    /// Where that says no, a GET of one byte asks again if one would be sent for content that is not
    /// held: of a registry that has no HEAD, and for a part of a blob, whose size is asked for first.
    async fn prove(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
        wanted: Wanted,
    ) -> Result<(), Refusal> {
        let by_head = head(ask, target, named, Redirects::Stop);
        let mut sent = self.upstream.send(by_head, ask.patience()).await;
        let is_sized_first = match wanted {
            Wanted::Whole => false,
            Wanted::From { start } | Wanted::Span { start, .. } => 0 < start,
            Wanted::Suffix { .. } => true,
        };
        if let Err(error) = &sent
            && (is_sized_first || !is_final(error))
        {
            let by_get = first_byte(ask, target, named, Redirects::Stop);
            sent = self.upstream.send(by_get, ask.patience()).await;
        }
        match sent {
            Ok(response) if response.status.is_success() || response.status.is_redirection() => {
                Ok(())
            }
            Ok(_) => Err(Refusal::new(
                Fault::Denied,
                "the registry did not say that you may read this",
            )),
            Err(error) => {
                let told = OpenError::Source(error.into());
                Err(upstream::open_refusal(&told, named.missing()))
            }
        }
    }

    async fn blob_size(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
    ) -> Result<Option<u64>, Refusal> {
        if let Some(held) = self.engine.held(TaskId(named.digest)).await
            && let Some(size) = held.size
        {
            match held.visibility {
                Visibility::Public => return Ok(Some(size)),
                Visibility::Private { .. } if is_of(&held.visibility, target) => {
                    self.prove(ask, target, named, Wanted::Whole).await?;
                    return Ok(Some(size));
                }
                Visibility::Private { .. } => {}
            }
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
        let request = first_byte(ask, target, named, Redirects::Follow);
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

/// A GET of the first byte of `named` with the caller's credential.
fn first_byte(ask: &Ask, target: &Target, named: Named, redirects: Redirects) -> UpstreamRequest {
    UpstreamRequest {
        method: Method::Get,
        range: Some(ByteRange {
            start: 0,
            end: Some(1),
        }),
        ..head(ask, target, named, redirects)
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

fn blob_answer(status: StatusCode, digest: Digest, content: Content) -> Answer {
    let mut answer = Answer::new(status, content);
    answer.set(header::CONTENT_TYPE, "application/octet-stream");
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
