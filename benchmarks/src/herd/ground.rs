//! Where herds meet: a star of hosts with shaped links, a registry on one, and images in it.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use anyhow::Result;
use registry_compat_tests::{registry::Registry, star::Star};
use tempfile::TempDir;

use crate::{
    copy,
    upstream::{Content, Upstream},
};

/// The host of the registry.
pub(crate) const REGISTRY: usize = 0;

/// The host that helps: Darter's scheduler and seed, a cache, or one more peer.
pub(crate) const HELPER: usize = 1;

/// The first of the herd.
pub(crate) const FIRST: usize = 2;

const REGISTRY_PORT: u16 = 5000;

/// The hosts and what they run for everybody.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) star: Star,
    pub(crate) registry: Registry,
    pub(crate) rates: Rates,
    upstream: Upstream,
    directory: TempDir,
}

/// Bytes a second that one bare TCP copy reaches over these links.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rates {
    /// From the registry.
    pub(crate) source: f64,
    /// From the helper to a host.
    pub(crate) helper: f64,
    /// From one host to another.
    pub(crate) host: f64,
    /// Bytes that the link carries for each byte of a copy: the heads of its packets too.
    pub(crate) heads: f64,
}

/// What a herd wants.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) layers: Vec<Content>,
}

// === impl Ground ===

impl Ground {
    /// Makes so many hosts beside the registry and the helper, and copies `size` bytes to see what
    /// the links of `rate` bits a second carry.
    pub(crate) fn open(hosts: usize, rate: u64, size: u64) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("ground-").tempdir()?;
        let star = Star::open(&directory.path().join("star"), FIRST + hosts, rate)?;
        let upstream = Upstream::start()?;
        let registry = Registry::start_at(
            &upstream.registry_directory(),
            star.address(REGISTRY, REGISTRY_PORT),
            |program| star.command(REGISTRY, program),
        )?;
        let bare = |from: usize, to: usize| {
            let log = directory.path().join(format!("copy-{from}-{to}.log"));
            copy::rate(
                &log,
                size,
                star.address(from, 0),
                |program| star.command(from, program),
                |program| star.command(to, program),
            )
        };
        let sent = star.sent(REGISTRY)?;
        let rates = Rates {
            source: bare(REGISTRY, HELPER)?,
            heads: (star.sent(REGISTRY)? - sent) as f64 / size as f64,
            helper: bare(HELPER, FIRST)?,
            host: bare(FIRST, FIRST + 1)?,
        };
        Ok(Self {
            star,
            registry,
            rates,
            upstream,
            directory,
        })
    }

    /// Puts an image of so many layers of `size` incompressible bytes in the registry.
    pub(crate) fn push(&self, name: &str, layers: usize, size: u64) -> Result<Image> {
        let layer = |number| {
            let noise = format!("{name} {number}");
            self.upstream.push_noise_of(&noise, size)
        };
        Ok(Image {
            name: name.to_owned(),
            layers: (0..layers).map(layer).collect::<Result<_>>()?,
        })
    }

    /// Ways to run programs on a host.
    pub(crate) fn on(&self, host: usize) -> impl Fn(&str) -> Command {
        move |program| self.star.command(host, program)
    }

    pub(crate) fn address(&self, host: usize, port: u16) -> SocketAddr {
        self.star.address(host, port)
    }

    /// A directory for what one method makes.
    pub(crate) fn directory(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(self.directory.path())?)
    }

    /// The file of a layer, as the registry keeps it.
    pub(crate) fn file(&self, layer: &Content) -> PathBuf {
        layer.in_registry(&self.upstream.registry_directory())
    }

    /// Bytes that a host has put on its link so far, without the heads of packets: about.
    pub(crate) fn given_by(&self, host: usize) -> Result<f64> {
        Ok(self.star.sent(host)? as f64 / self.rates.heads)
    }

    /// Bytes of blobs that the registry has sent so far, by its log.
    pub(crate) fn blob_bytes(&self) -> Result<u64> {
        let asked = self.registry.accesses()?;
        let blobs = asked
            .iter()
            .filter(|access| access.method == "GET" && access.path.contains("/blobs/"));
        Ok(blobs.map(|access| access.bytes).sum())
    }
}

// === impl Rates ===

impl Rates {
    /// The least time in which so many hosts can all have `size` bytes that the source gives once,
    /// in seconds: over its link, over a host's own, or over all links that lead up to the switch.
    pub(crate) fn bound(&self, hosts: usize, size: u64) -> f64 {
        let (hosts, size) = (hosts as f64, size as f64);
        let down = self.helper.min(self.host);
        let all = self.helper + hosts * self.host;
        [size / self.source, size / down, hosts * size / all]
            .into_iter()
            .fold(0.0, f64::max)
    }
}

// === impl Image ===

impl Image {
    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// What a client asks a registry for, or a mirror with `query`.
    pub(crate) fn paths(&self, query: &str) -> Vec<String> {
        let path = |layer: &Content| format!("{}{query}", layer.path());
        self.layers.iter().map(path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rates: [f64; 3], hosts: usize, expect: f64) {
        let [source, helper, host] = rates;
        let rates = Rates {
            source,
            helper,
            host,
            heads: 1.0,
        };
        assert_eq!(rates.bound(hosts, 1000), expect);
    }

    #[test]
    fn the_bound_is_what_the_slowest_of_the_three_takes() {
        check([10.0, 100.0, 100.0], 8, 100.0);
        check([100.0, 10.0, 100.0], 8, 100.0);
        check([100.0, 100.0, 10.0], 8, 100.0);
        // Equal links: as long as one copy, however many hosts.
        check([10.0, 10.0, 10.0], 8, 100.0);
        check([10.0, 10.0, 10.0], 100, 100.0);
    }
}
