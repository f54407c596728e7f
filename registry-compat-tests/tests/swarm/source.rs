//! The one blob that a herd wants, at a registry that sends as much of it as a test lets it, and
//! tells what it sent.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise},
    fault_registry::{Asked, Fault, FaultRegistry, On, Sluice, Times},
    image::Blob,
    process::wait_until,
};

use super::{HERD_LIMIT, Taken, pull_while};

/// A registry and a blob in it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) registry: FaultRegistry,
    pub(crate) blob: Blob,
    sluice: Sluice,
}

// === impl Source ===

impl Source {
    /// A blob of `size` bytes that comes as fast as it goes.
    pub(crate) fn new(name: &str, size: usize) -> Result<Self> {
        Self::held_at(name, size, usize::MAX)
    }

    /// As [`Source::held_at`] for who asks first; whoever asks after that gets all of it.
    pub(crate) fn held_once_at(name: &str, size: usize, limit: usize) -> Result<Self> {
        let fault = Fault::Sluiced(Sluice::at(limit));
        Self::failing(name, size, Times::First(1), fault)
    }

    /// A blob of `size` bytes of which what lies before `limit` comes until the source is opened.
    pub(crate) fn held_at(name: &str, size: usize, limit: usize) -> Result<Self> {
        let sluice = Sluice::at(limit);
        Self::failing(name, size, Times::Always, Fault::Sluiced(sluice.clone()))
            .map(|source| Self { sluice, ..source })
    }

    /// A blob of `size` bytes with a fault in its answers.
    pub(crate) fn failing(name: &str, size: usize, times: Times, fault: Fault) -> Result<Self> {
        let bytes = noise(name, size)?;
        let registry = FaultRegistry::start()?;
        let blob = Blob {
            digest: digest_of(&bytes),
            size: size as u64,
        };
        registry.put_blob(&blob.digest, bytes);
        registry.fail(On::Get, &blob.digest, times, fault);
        Ok(Self {
            registry,
            blob,
            sluice: Sluice::at(usize::MAX),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.registry.address()
    }

    /// Lets all of the blob through from now on.
    pub(crate) fn open(&self) {
        self.sluice.open();
    }

    /// Everybody at `proxies` pulls the blob; when `act` is over the source is opened.
    pub(crate) fn pull_while(
        &self,
        proxies: &[SocketAddr],
        act: impl FnOnce(&Taken) -> Result<()>,
    ) -> Result<()> {
        let pulled = pull_while(proxies, &self.blob, |taken| {
            let acted = act(taken);
            self.open();
            acted
        });
        pulled.with_context(|| format!("the registry was asked {:?}", self.fetches()))
    }

    /// The requests for the blob's bytes so far.
    pub(crate) fn fetches(&self) -> Vec<Asked> {
        let asked = self.registry.asked(&self.blob.digest);
        asked
            .into_iter()
            .filter(|asked| asked.method == "GET")
            .collect()
    }

    /// Waits until the registry was asked so often.
    pub(crate) fn wait_for_fetches(&self, count: usize) -> Result<()> {
        let what = format!("fetch {count} at the registry");
        wait_until(&what, HERD_LIMIT, || count <= self.fetches().len())
    }

    /// Fails unless the registry was asked once, and sent the blob once.
    pub(crate) fn fetched_once(&self) -> Result<()> {
        let fetches = self.fetches();
        ensure!(
            fetches.len() == 1,
            "asked {} times: {fetches:?}",
            fetches.len()
        );
        self.sent_at_most(1.0)
    }

    /// Fails where the registry has sent more than `ratio` times the blob.
    pub(crate) fn sent_at_most(&self, ratio: f64) -> Result<()> {
        let fetches = self.fetches();
        let sent: usize = fetches.iter().map(|asked| asked.sent).sum();
        let seen = sent as f64 / self.blob.size as f64;
        let told = fetches
            .iter()
            .map(|asked| (asked.range.as_deref(), asked.sent));
        let told: Vec<_> = told.collect();
        eprintln!("upstream bytes / blob bytes: {seen:.3}, in {told:?}");
        ensure!(
            seen <= ratio,
            "{seen:.3} times the blob was sent, not {ratio}: {told:?}"
        );
        Ok(())
    }
}
