//! The swarm and its upstream side behind the proxy's two traits.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use protocol::{RegistryName, TaskId};
use swarm::{
    Held, How, OpenError, OpenRequest, Reader, Served, Swarm,
    source::{
        PassRequest, PassResponse, Patience, SourceError, TokenAnswer, TokenRequest,
        UpstreamRequest, UpstreamResponse, Upstreams,
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

#[async_trait::async_trait]
impl Upstream for Upstreams {
    async fn send(
        &self,
        request: UpstreamRequest,
        patience: Patience,
    ) -> Result<UpstreamResponse, SourceError> {
        match patience {
            Patience::Long => Upstreams::send(self, &request).await,
            Patience::Short => self.send_briefly(&request).await,
        }
    }

    async fn send_lightly(
        &self,
        request: UpstreamRequest,
        patience: Patience,
    ) -> Result<UpstreamResponse, SourceError> {
        Upstreams::send_lightly(self, &request, patience).await
    }

    async fn may_refresh(&self, registry: &RegistryName) -> bool {
        Upstreams::may_refresh(self, registry).await
    }

    async fn pass(&self, request: PassRequest) -> Result<PassResponse, SourceError> {
        Upstreams::pass(self, request).await
    }

    async fn token(&self, request: TokenRequest) -> Result<TokenAnswer, SourceError> {
        Upstreams::token(self, request).await
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
