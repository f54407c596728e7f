//! The swarm and its upstream side behind the proxy's two traits.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use protocol::{RegistryName, TaskId};
use swarm::{
    Held, How, OpenError, OpenRequest, Reader, Served, Swarm,
    source::{
        PassRequest, PassResponse, Patience, Question, SourceError, TokenAnswer, TokenRequest,
        Told, UpstreamRequest, UpstreamResponse, Upstreams,
    },
};

use crate::{
    body::{BrokenOff, ContentStream},
    engine::{Engine, OpenContent, Upstream},
    log::BytesBy,
    upstream,
};

struct Reading {
    reader: Reader,
    served: Arc<Served>,
}

#[async_trait::async_trait]
impl Engine for Swarm {
    async fn open(
        &self,
        request: OpenRequest,
        patience: Patience,
    ) -> Result<OpenContent, OpenError> {
        let opened = self.open_with(request, patience).await?;
        let served = opened.reader.served();
        Ok(OpenContent {
            size: opened.size,
            media_type: opened.media_type,
            range: opened.range,
            stream: Box::pin(Reading {
                reader: opened.reader,
                served,
            }),
        })
    }

    async fn held(&self, task: TaskId) -> Option<Held> {
        Swarm::held(self, task).await
    }
}

/// The registries, as this host and its cluster ask them.
#[derive(Debug)]
pub struct Registries {
    pub upstreams: Upstreams,
    pub swarm: Swarm,
}

#[async_trait::async_trait]
impl Upstream for Registries {
    async fn everybodys(&self, request: &UpstreamRequest, age_max: Duration) -> Option<Told> {
        let question = Question::of(request)?;
        self.swarm.everybodys(&question, age_max).await
    }

    async fn send(
        &self,
        request: UpstreamRequest,
        patience: Patience,
    ) -> Result<UpstreamResponse, SourceError> {
        match patience {
            Patience::Long => self.upstreams.send(&request).await,
            Patience::Short => self.upstreams.send_briefly(&request).await,
        }
    }

    async fn send_lightly(
        &self,
        request: UpstreamRequest,
        patience: Patience,
    ) -> Result<UpstreamResponse, SourceError> {
        self.upstreams.send_lightly(&request, patience).await
    }

    async fn may_refresh(&self, registry: &RegistryName) -> bool {
        self.upstreams.may_refresh(registry).await
    }

    async fn pass(&self, request: PassRequest) -> Result<PassResponse, SourceError> {
        self.upstreams.pass(request).await
    }

    async fn token(&self, request: TokenRequest) -> Result<TokenAnswer, SourceError> {
        self.upstreams.token(request).await
    }
}

// === impl Reading ===

impl Stream for Reading {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.reader.poll_next_unpin(context));
        Poll::Ready(next.map(|chunk| chunk.map_err(|error| upstream::broken_off(&error))))
    }
}

impl ContentStream for Reading {
    fn served(&self) -> BytesBy {
        BytesBy {
            hit: self.served.bytes(How::Hit),
            joined: self.served.bytes(How::Joined),
            swarm: self.served.bytes(How::Swarm),
            source: self.served.bytes(How::Source),
        }
    }
}
