//! What the proxy asks of the swarm, as two traits, so that headers can be tested without one.

use std::{ops::Range, pin::Pin, time::Duration};

use protocol::{RegistryName, TaskId};
use swarm::{
    open::{Held, OpenError, OpenRequest},
    source::{
        PassRequest, PassResponse, Patience, SourceError, TokenAnswer, TokenRequest, Told,
        UpstreamRequest, UpstreamResponse,
    },
};

use crate::body::ContentStream;

/// Contents by digest.
#[async_trait::async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// Opens a content, with so much patience for a silent upstream.
    async fn open(
        &self,
        request: OpenRequest,
        patience: Patience,
    ) -> Result<OpenContent, OpenError>;

    /// What is known of a content without opening it.
    async fn held(&self, task: TaskId) -> Option<Held>;
}

/// All that is not a content: tags, lists, and whether somebody may read.
#[async_trait::async_trait]
pub trait Upstream: Send + Sync + std::fmt::Debug {
    async fn send(
        &self,
        request: UpstreamRequest,
        patience: Patience,
    ) -> Result<UpstreamResponse, SourceError>;

    /// What the registry tells anybody of what `request` asks for, as other hosts know it: asked no longer
    /// than `age_max` ago. `None` where it must be asked from here.
    async fn everybodys(&self, request: &UpstreamRequest, age_max: Duration) -> Option<Told>;

    /// As `send`, but tried once: what follows is tried often enough.
    async fn send_lightly(
        &self,
        request: UpstreamRequest,
        patience: Patience,
    ) -> Result<UpstreamResponse, SourceError>;

    /// Whether somebody is to ask `registry` who has an older answer that would do: not where it said
    /// that few requests are left, but for one now and then.
    async fn may_refresh(&self, registry: &RegistryName) -> bool;

    /// Passes on what is no pull, as it is.
    async fn pass(&self, request: PassRequest) -> Result<PassResponse, SourceError>;

    /// Asks a registry's token server for a client.
    async fn token(&self, request: TokenRequest) -> Result<TokenAnswer, SourceError>;
}

/// An open content.
pub struct OpenContent {
    pub size: Option<u64>,
    pub media_type: Option<String>,
    /// The bytes that `stream` yields; ends at `u64::MAX` where the size is not known.
    pub range: Range<u64>,
    pub stream: Pin<Box<dyn ContentStream>>,
}

impl std::fmt::Debug for OpenContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenContent")
            .field("size", &self.size)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}
