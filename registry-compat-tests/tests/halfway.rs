//! One host before a real registry that stops in the middle of the biggest layer: whatever befalls
//! the host then befalls bodies under way.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    darter::{Darter, Home},
    image::Blob,
    process::wait_until,
    registry::Registry,
    relay::Relay,
};

use crate::{
    herd::alone,
    pull::{digest_while, joined},
    stage::{Golden, golden},
    two_hosts::{FLOW_LIMIT, path},
};

/// A running host and what it stands before.
pub(crate) struct Halfway {
    pub(crate) darter: Darter,
    pub(crate) proxy: SocketAddr,
    pub(crate) relay: Relay,
    pub(crate) blob: Blob,
    pub(crate) half: u64,
    pub(crate) home: Home,
    _registry: Registry,
    _golden: Arc<Golden>,
}

// === impl Halfway ===

impl Halfway {
    /// `change` is what is different in the configuration of the host.
    pub(crate) fn start(change: impl FnOnce(String) -> String) -> Result<Self> {
        let (golden, home) = (golden()?, Home::new()?);
        let registry = Registry::start(&golden.registry_directory())?;
        let blob = golden.image.biggest()?;
        let half = blob.size / 2;
        let relay = Relay::start(registry.address(), half)?;
        let config = change(alone(&home, relay.address()));
        let darter = Darter::run(&config, &home)?;
        Ok(Self {
            proxy: darter.proxy()?,
            darter,
            relay,
            blob,
            half,
            home,
            _registry: registry,
            _golden: golden,
        })
    }

    /// Two clients get the layer, one cold and one joined. Once both have bytes and none can have
    /// the rest, `act` is done. Fails unless each gets the whole.
    pub(crate) fn pull_while(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let (path, proxy) = (path(&self.blob), self.proxy);
        let taken = [AtomicU64::new(0), AtomicU64::new(0)];
        thread::scope(|scope| {
            let clients = taken.each_ref().map(|taken| {
                let path = &path;
                scope.spawn(move || digest_while(proxy, path, taken))
            });
            let acted = wait_until("both have bytes", FLOW_LIMIT, || {
                taken.iter().all(|taken| 0 < taken.load(Ordering::Acquire))
            })
            .and_then(|()| act());
            // Whatever came of it, the clients must not wait for ever.
            self.relay.open();
            let ends = clients.map(joined);
            acted?;
            for end in ends {
                let digest = end?;
                ensure!(digest == self.blob.digest, "wrong bytes: {digest}");
            }
            Ok(())
        })
        .with_context(|| self.darter.log().unwrap_or_default())
    }
}
