//! Manifests: tags resolved at the upstream, contents given by digest, verified and byte-exact.
//!
//! HEAD and GET have the same headers. A `Range` is not honoured: manifests are small, and the whole
//! is a legal answer.

mod accept;
pub mod freshness;
pub(crate) mod media;
mod question;
pub(crate) mod shelf;
pub(crate) mod tags;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{StatusCode, header};
use protocol::{ContentKind, Digest, Origin, TaskId};
use swarm::{
    open::{OpenRequest, ReadProof, Wanted},
    source::{Access, Patience, Redirects},
};

use self::{
    freshness::{HELD_WARNING, STALE_WARNING},
    shelf::TagName,
    tags::{Purpose, Resolved},
};
use crate::{
    answer::{Answer, Ask, DOCKER_CONTENT_DIGEST},
    blob::{Named, etag, head, is_of},
    body::{BrokenOff, Content, ContentStream},
    engine::OpenContent,
    error::{Fault, Refusal},
    log::BytesBy,
    metrics::TagAnswer,
    route::{Reference, Tag, Target},
    serve::Proxy,
    upstream,
};

/// What the headers of a manifest tell.
#[derive(Debug)]
struct Described {
    digest: Digest,
    media_type: String,
    size: u64,
}

/// A manifest that was read whole and is held in memory, and where its bytes came from.
struct Whole {
    bytes: Option<Bytes>,
    /// As the upstream told it, else as the document does.
    media_type: String,
    served: BytesBy,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn manifest(
        &self,
        ask: &Ask,
        target: &Target,
        reference: &Reference,
    ) -> Result<Answer, Refusal> {
        match reference {
            Reference::Digest(digest) => self.by_digest(ask, target, *digest).await,
            Reference::Tag(tag) => self.by_tag(ask, target, tag.clone()).await,
        }
    }

    async fn by_tag(&self, ask: &Ask, target: &Target, tag: Tag) -> Result<Answer, Refusal> {
        let name = TagName {
            registry: target.registry.clone(),
            repository: target.repository.clone(),
            tag,
        };
        let resolved = self
            .tags
            .resolve(
                &self.upstream,
                name,
                ask.credential.as_ref(),
                Purpose::Pull(ask.patience()),
            )
            .await;
        let resolved = resolved.map_err(|error| {
            self.metrics.tag(TagAnswer::Refused);
            upstream::refusal(&error, Fault::ManifestUnknown)
        })?;
        self.metrics.tag(resolved.answer);
        let named = Named {
            kind: ContentKind::Manifest,
            digest: resolved.resolution.digest,
        };
        // What was told a while ago says nothing of who may read now.
        if resolved.answer == TagAnswer::Asked {
            let right = (resolved.access, self.tags.age(&resolved.resolution));
            self.saw(ask, target, named, right).await;
        }
        let mut answer = self.by_resolution(ask, target, &resolved).await?;
        match resolved.answer {
            TagAnswer::Stale => answer.set(header::WARNING, STALE_WARNING),
            TagAnswer::Held => answer.set(header::WARNING, HELD_WARNING),
            TagAnswer::Fresh | TagAnswer::Asked | TagAnswer::Refused => {}
        }
        Ok(answer)
    }

    /// HEAD is answered from what the upstream told of the tag, if it told all that GET would.
    async fn by_resolution(
        &self,
        ask: &Ask,
        target: &Target,
        resolved: &Resolved,
    ) -> Result<Answer, Refusal> {
        let resolution = &resolved.resolution;
        let lines = ask.headers.get_all(header::ACCEPT).iter();
        let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
        if let Some(media_type) = &resolution.media_type
            && accept::is_narrow(&lines, media_type)
        {
            return self.narrowed(ask, target, resolution.digest).await;
        }
        if ask.is_head()
            && let (Some(media_type), Some(size)) = (resolution.media_type.clone(), resolution.size)
        {
            if resolved.access == Access::Caller {
                let named = Named {
                    kind: ContentKind::Manifest,
                    digest: resolution.digest,
                };
                let proven = self.may_read(ask, target, named).await;
                proven.map_err(|unproven| unproven.refusal)?;
            }
            let described = Described {
                digest: resolution.digest,
                media_type,
                size,
            };
            // A client that has all manifests already asks for nothing but blobs from here on.
            if ask.credential.is_some() {
                self.learn_held(ask, target, resolution.digest).await;
            }
            return Ok(described.answer(ask, Content::Empty));
        }
        self.by_digest(ask, target, resolution.digest).await
    }

    /// Of an index, the manifest for this node's platform.
    async fn narrowed(&self, ask: &Ask, target: &Target, index: Digest) -> Result<Answer, Refusal> {
        let named = Named {
            kind: ContentKind::Manifest,
            digest: index,
        };
        let content = self.open(ask, target, named, Wanted::Whole).await?;
        let document = self.collect(content).await?.bytes.unwrap_or_default();
        let architecture = accept::architecture();
        let Some(chosen) = accept::chosen(&document, architecture) else {
            let message = format!(
                "the tag is an index without a manifest for linux/{architecture}, and Accept names no index"
            );
            return Err(Refusal::new(Fault::ManifestUnknown, message));
        };
        self.by_digest(ask, target, chosen).await
    }

    /// Learns what a manifest lists that is held here and was proven for this caller.
    async fn learn_held(&self, ask: &Ask, target: &Target, digest: Digest) {
        let named = Named {
            kind: ContentKind::Manifest,
            digest,
        };
        let held = self.engine.held(TaskId(digest)).await;
        if !held.is_some_and(|held| held.complete) {
            return;
        }
        let Ok(content) = self.open(ask, target, named, Wanted::Whole).await else {
            return;
        };
        if let Ok(whole) = self.collect(content).await {
            self.learn(ask, target, digest, &whole).await;
        }
    }

    async fn learn(&self, ask: &Ask, target: &Target, digest: Digest, whole: &Whole) {
        let document = whole.bytes.as_deref().unwrap_or_default();
        let manifest = (document, whole.media_type.as_str());
        let credential = ask.credential.as_ref();
        self.rights
            .learn(target, digest, manifest, credential)
            .await;
    }

    async fn by_digest(
        &self,
        ask: &Ask,
        target: &Target,
        digest: Digest,
    ) -> Result<Answer, Refusal> {
        let named = Named {
            kind: ContentKind::Manifest,
            digest,
        };
        if ask.is_head()
            && !self.is_held_for(target, digest).await
            && let Some(described) = self.describe(ask, target, named).await?
        {
            return Ok(described.answer(ask, Content::Empty));
        }
        let content = self.open(ask, target, named, Wanted::Whole).await?;
        let whole = self.collect(content).await?;
        self.learn(ask, target, digest, &whole).await;
        let described = Described {
            digest,
            media_type: whole.media_type.clone(),
            size: whole.bytes.as_ref().map_or(0, Bytes::len) as u64,
        };
        Ok(described.answer(ask, Content::Stream(Box::pin(whole))))
    }

    async fn is_held_for(&self, target: &Target, digest: Digest) -> bool {
        let held = self.engine.held(TaskId(digest)).await;
        held.is_some_and(|held| held.complete && is_of(&held.visibility, target))
    }

    /// What the upstream says of a manifest by HEAD; `None` where it does not say all.
    async fn describe(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
    ) -> Result<Option<Described>, Refusal> {
        if let Some(refusal) = self.refused_lately(ask, target, named).await {
            return Err(refusal);
        }
        let request = head(ask, target, named, Redirects::Follow);
        let age_max = self.everybodys_age_max();
        let (right, media_type, size) = match self.upstream.everybodys(&request, age_max).await {
            Some(told) => ((Access::Anonymous, told.age), told.media_type, told.size),
            None => match self.upstream.send(request, ask.patience()).await {
                Ok(response) => {
                    let told = response.headers.get(header::CONTENT_TYPE);
                    let told = told.and_then(|value| value.to_str().ok());
                    let media_type = told.map(str::to_owned);
                    let right = (response.access, Duration::ZERO);
                    (right, media_type, response.content_length)
                }
                Err(error) => return Err(self.unproven(ask, target, named, &error).await.refusal),
            },
        };
        self.saw(ask, target, named, right).await;
        let described = media::told(media_type.as_deref()).zip(size);
        let digest = named.digest;
        Ok(described.map(|(media_type, size)| Described {
            digest,
            media_type,
            size,
        }))
    }

    /// What a tag stands for, asked for nobody in particular.
    pub(crate) async fn digest_of(&self, tag: TagName) -> Result<Digest, Refusal> {
        let resolved = self
            .tags
            .resolve(&self.upstream, tag, None, Purpose::Order)
            .await;
        let resolved =
            resolved.map_err(|error| upstream::refusal(&error, Fault::ManifestUnknown))?;
        Ok(resolved.resolution.digest)
    }

    /// The bytes of a document, for nobody in particular: public ones only.
    pub(crate) async fn document(&self, origin: Origin, digest: Digest) -> Result<Bytes, Refusal> {
        let request = OpenRequest {
            task: TaskId(digest),
            origin,
            wanted: Wanted::Whole,
            credential: None,
            proof: ReadProof::Unchecked,
        };
        let opened = self.engine.open(request, Patience::Long).await;
        let content =
            opened.map_err(|error| upstream::open_refusal(&error, Fault::ManifestUnknown))?;
        let whole = self.collect(content).await?;
        Ok(whole.bytes.unwrap_or_default())
    }

    async fn collect(&self, mut content: OpenContent) -> Result<Whole, Refusal> {
        let len_max = self.config().manifest_len_max;
        let too_large = || {
            let message =
                format!("the manifest is longer than {len_max} bytes: see proxy.manifest_size_max");
            Refusal::new(Fault::TooLarge, message)
        };
        if content
            .size
            .is_some_and(|size| len_max as u64 <= size.saturating_sub(1))
        {
            return Err(too_large());
        }
        let told = media::told(content.media_type.as_deref());
        let mut collected = BytesMut::new();
        while let Some(chunk) = content.stream.next().await {
            let chunk = chunk.map_err(|broken| Refusal::new(broken.fault, broken.reason))?;
            if len_max < collected.len() + chunk.len() {
                return Err(too_large());
            }
            collected.extend_from_slice(&chunk);
        }
        let bytes = collected.freeze();
        Ok(Whole {
            media_type: told.unwrap_or_else(|| media::read(&bytes)),
            bytes: Some(bytes),
            served: content.stream.served(),
        })
    }
}

// === impl Described ===

impl Described {
    fn answer(self, ask: &Ask, content: Content) -> Answer {
        let etag = etag(self.digest);
        let mut answer = if ask.holds(&etag) {
            Answer::new(StatusCode::NOT_MODIFIED, Content::Empty)
        } else {
            Answer::new(StatusCode::OK, content)
        };
        answer.set(header::CONTENT_TYPE, &self.media_type);
        answer.set(header::ETAG, &etag);
        answer.set(DOCKER_CONTENT_DIGEST, &self.digest.to_string());
        answer.length = Some(self.size);
        answer
    }
}

// === impl Whole ===

impl futures_util::Stream for Whole {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let bytes = self.bytes.take().filter(|bytes| !bytes.is_empty());
        std::task::Poll::Ready(bytes.map(Ok))
    }
}

impl ContentStream for Whole {
    fn served(&self) -> BytesBy {
        self.served
    }
}
