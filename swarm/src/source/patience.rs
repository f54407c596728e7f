//! Asking for those who can go elsewhere: they wait for `fallback` at most, and not at all where
//! somebody did in vain a moment ago.
//!
//! Nothing is taken from others: what they leave goes on for whoever still waits for it.

use std::{sync::Arc, time::Duration};

use protocol::RegistryName;
use tokio::time::timeout;

use super::{
    client::{REQUEST_WINDOW, Upstreams},
    clock,
    endpoints::Endpoints,
    error::{Awaited, SourceError},
    request::{UpstreamRequest, UpstreamResponse},
    silence::Errand,
};

/// A registry as it is asked by somebody who can go elsewhere.
#[derive(Debug)]
pub(crate) struct Brief {
    endpoints: Arc<Endpoints>,
    errand: Errand,
    limit: Duration,
    memory: Duration,
}

// === impl Upstreams ===

impl Upstreams {
    /// As [`Upstreams::send`], for somebody who can go elsewhere.
    pub async fn send_briefly(
        &self,
        request: &UpstreamRequest,
    ) -> Result<UpstreamResponse, SourceError> {
        let errand = Errand::of_resource(&request.resource);
        let brief = self.briefly(&request.registry, errand).await?;
        let window = REQUEST_WINDOW.min(brief.limit);
        brief.wait(self.send_within(request, window)).await?
    }

    /// Fails at once where `registry` kept silent a moment ago.
    pub(crate) async fn briefly(
        &self,
        registry: &RegistryName,
        errand: Errand,
    ) -> Result<Brief, SourceError> {
        let endpoints = self.endpoints(registry).await?;
        let timeouts = self.timeouts();
        let memory = timeouts.fallback_memory;
        endpoints.silence().admits(errand, clock::now(), memory)?;
        Ok(Brief {
            endpoints,
            errand,
            limit: timeouts.fallback,
            memory,
        })
    }
}

// === impl Brief ===

impl Brief {
    /// What comes of `asking`; when nothing does in time, the registry is taken for silent.
    pub(crate) async fn wait<T>(&self, asking: impl Future<Output = T>) -> Result<T, SourceError> {
        match timeout(self.limit, asking).await {
            Ok(came) => Ok(came),
            Err(_) => {
                let error = SourceError::Stalled {
                    awaited: Awaited::Headers,
                    waited: self.limit,
                };
                let ask_at = clock::now() + self.memory;
                let mut silence = self.endpoints.silence();
                silence.outlasted(self.errand, error.clone(), ask_at);
                Err(error)
            }
        }
    }
}
