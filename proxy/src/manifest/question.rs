//! One question to an upstream, what a tag stands for: by HEAD, or by the whole manifest where HEAD
//! does not tell it. Remembers nothing.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::header;
use protocol::Digest;
use swarm::source::{
    Access, Credential, Method, Patience, Redirects, Reference, Resource, SourceError,
    UpstreamRequest, UpstreamResponse,
};

use super::shelf::{Resolution, TagName};
use crate::{answer::DOCKER_CONTENT_DIGEST, engine::Upstream};

/// One question, which outlives the caller that began it.
pub(super) struct Question {
    pub(super) source: Arc<dyn Upstream>,
    pub(super) tag: TagName,
    pub(super) patience: Patience,
    pub(super) credential: Option<Credential>,
    pub(super) len_max: usize,
    /// How old the word of other hosts may be.
    pub(super) age_max: Duration,
    pub(super) clock: fn() -> SystemTime,
}

// === impl Question ===

impl Question {
    pub(super) async fn ask(&self) -> Result<(Resolution, Access), SourceError> {
        let head = self.request(Method::Head);
        if let Some(told) = self.source.everybodys(&head, self.age_max).await {
            let resolution = Resolution {
                digest: told.digest,
                media_type: super::media::told(told.media_type.as_deref()),
                size: told.size,
                resolved_at: self.ago(told.age),
            };
            return Ok((resolution, Access::Anonymous));
        }
        match self.source.send(head, self.patience).await {
            Ok(response) => {
                let digest = response.headers.get(DOCKER_CONTENT_DIGEST);
                let digest = digest.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
                let Some(digest) = digest else {
                    return self.ask_whole().await;
                };
                let told = response.headers.get(header::CONTENT_TYPE);
                let size = response.content_length;
                Ok((self.resolution(digest, told, size), response.access))
            }
            // Some registries have no HEAD for tags.
            Err(SourceError::Status(answer))
                if answer.status == http::StatusCode::METHOD_NOT_ALLOWED =>
            {
                self.ask_whole().await
            }
            Err(error) => Err(error),
        }
    }

    fn ago(&self, age: Duration) -> SystemTime {
        let now = (self.clock)();
        now.checked_sub(age).unwrap_or(now)
    }

    /// For an upstream that tells no digest that can be used: the body has it.
    async fn ask_whole(&self) -> Result<(Resolution, Access), SourceError> {
        let response = self.send(Method::Get).await?;
        let told = response.headers.get(header::CONTENT_TYPE).cloned();
        let access = response.access;
        let body = response.body.collect(self.len_max).await?;
        let digest = Digest::sha256_of(&body);
        Ok((
            self.resolution(digest, told.as_ref(), Some(body.len() as u64)),
            access,
        ))
    }

    async fn send(&self, method: Method) -> Result<UpstreamResponse, SourceError> {
        let request = self.request(method);
        self.source.send(request, self.patience).await
    }

    fn request(&self, method: Method) -> UpstreamRequest {
        UpstreamRequest {
            method,
            registry: self.tag.registry.clone(),
            repository: self.tag.repository.clone(),
            resource: Resource::Manifest(Reference::Tag(self.tag.tag.as_str().to_owned())),
            range: None,
            credential: self.credential.clone(),
            redirects: Redirects::Follow,
        }
    }

    fn resolution(
        &self,
        digest: Digest,
        content_type: Option<&http::HeaderValue>,
        size: Option<u64>,
    ) -> Resolution {
        let media_type = super::media::told(content_type.and_then(|value| value.to_str().ok()));
        Resolution {
            digest,
            media_type,
            size,
            resolved_at: (self.clock)(),
        }
    }
}
