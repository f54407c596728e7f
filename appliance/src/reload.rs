//! SIGHUP: the configuration is read again, and what a running node can take over is taken over.
//!
//! Invariant: a file with a problem in it changes nothing.

use std::sync::Arc;

use anyhow::Context as _;
use protocol::{Identity, identity::Renewal};
use proxy::Proxy;
use sd_notify::NotifyState;
use swarm::source::Upstreams;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::{Config, RawConfig, needing_restart},
    expiry,
    metrics::{Metrics, Reload},
    node,
};

/// Where a running node has its configuration from.
pub(crate) struct Source {
    /// As the node runs.
    pub(crate) raw: RawConfig,
    /// Reads it again. Blocks.
    pub(crate) read: Arc<dyn Fn() -> anyhow::Result<(RawConfig, Config)> + Send + Sync>,
}

/// What is given a new configuration.
pub(crate) struct Reloader {
    pub(crate) source: Source,
    pub(crate) identity: Identity,
    pub(crate) upstreams: Upstreams,
    pub(crate) proxy: Option<Arc<Proxy>>,
    pub(crate) metrics: Metrics,
}

/// The signal that asks for it, and who does it.
pub(crate) struct Reloading {
    hangup: Signal,
    reloader: Reloader,
}

/// Reloads whenever it is asked to; never ends.
pub(crate) async fn whenever_asked(reloading: &mut Option<Reloading>) {
    if let Some(Reloading { hangup, reloader }) = reloading {
        while hangup.recv().await.is_some() {
            reloader.reload().await;
        }
    }
    std::future::pending().await
}

// === impl Reloading ===

impl Reloading {
    /// From here on the signal no longer ends the process.
    pub(crate) fn install(reloader: Reloader) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("signals cannot be handled")?;
        Ok(Self { hangup, reloader })
    }
}

// === impl Reloader ===

impl Reloader {
    async fn reload(&mut self) {
        let now = NotifyState::monotonic_usec_now().ok();
        let told: Vec<_> = [NotifyState::Reloading].into_iter().chain(now).collect();
        node::notify(&told);
        let outcome = match self.try_reload().await {
            Ok(()) => {
                tracing::info!("the configuration is read again and taken over");
                Reload::Applied
            }
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error:#}");
                Reload::Refused
            }
        };
        self.metrics.reloaded(outcome);
        node::notify(&[NotifyState::Ready]);
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        let read = Arc::clone(&self.source.read);
        let (raw, config) = tokio::task::spawn_blocking(move || read()).await??;
        let renewal = self.renewal(&raw, &config)?;
        let proxy = config.proxy;
        for warning in &proxy.warnings {
            tracing::warn!("{warning}");
        }
        self.upstreams.reload(proxy.source.clone())?;
        if let Some(running) = &self.proxy {
            running.reload(proxy);
        }
        if let Some(renewal) = renewal {
            self.identity.renew(renewal);
            expiry::look(&self.identity, &self.metrics);
        }
        // Compared with what runs, so that it is told at each reload until it is true.
        let mut keys = needing_restart(&self.source.raw, &raw);
        let is_same_file = raw.identity.ca == self.source.raw.identity.ca;
        if is_same_file && !raw.identity.is_empty() && !self.identity.trusts_as(&config.identity) {
            keys.push("identity.ca".to_owned());
        }
        if !keys.is_empty() {
            let keys = keys.join(", ");
            tracing::warn!(keys, "these keys are taken over by a restart alone");
        }
        Ok(())
    }

    /// The certificate that this host is to show from now on. One that stands by itself, before or
    /// after, has none to take over.
    fn renewal(&self, raw: &RawConfig, config: &Config) -> anyhow::Result<Option<Renewal>> {
        if self.source.raw.identity.is_empty() || raw.identity.is_empty() {
            return Ok(None);
        }
        let renewal = self.identity.renewal(&config.identity);
        renewal
            .map(Some)
            .context("identity.cert needs a restart to be taken over")
    }
}
