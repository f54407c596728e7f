//! The registry behind everything, with the contents that are pulled, and clusters before it.

use std::{
    fs::File,
    io::BufWriter,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    cluster::{Cluster, EVERYTHING, Member},
    content::{digest_of, digest_of_file, write_noise},
    image::MANIFEST_TYPE,
    registry::Registry,
};
use tempfile::TempDir;

use crate::load::Target;

/// The repository of every content here.
const REPOSITORY: &str = "team/benchmark";

/// A registry of our own.
#[derive(Debug)]
pub(crate) struct Upstream {
    registry: Registry,
    directory: TempDir,
}

/// A content of the registry.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) digest: String,
    pub(crate) size: u64,
    /// `blobs` or `manifests`.
    shelf: &'static str,
}

/// Two hosts of one cluster that have nothing yet: the first is scheduler, seed and proxy, the
/// second a proxy.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) first: Member,
    pub(crate) second: Member,
}

// === impl Upstream ===

impl Upstream {
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("darter-benchmark-")
            .tempdir()?;
        let registry = Registry::start(&directory.path().join("registry"))?;
        Ok(Self {
            registry,
            directory,
        })
    }

    /// Puts `size` incompressible bytes in the registry.
    pub(crate) fn push_noise(&self, size: u64) -> Result<Content> {
        self.push_noise_of(&format!("benchmark {size}"), size)
    }

    /// Puts `size` incompressible bytes in the registry that are others for each `name`.
    pub(crate) fn push_noise_of(&self, name: &str, size: u64) -> Result<Content> {
        let file = self.directory.path().join("noise");
        let mut sink = BufWriter::new(File::create(&file)?);
        write_noise(name, size, &mut sink)?;
        sink.into_inner()?;
        let digest = digest_of_file(&file)?;
        self.registry.push_blob(REPOSITORY, &digest, &file)?;
        std::fs::remove_file(&file)?;
        Ok(Content {
            digest,
            size,
            shelf: "blobs",
        })
    }

    /// Puts a manifest of about `size` incompressible bytes in the registry, over one blob.
    pub(crate) fn push_manifest(&self, blob: &Content, size: u64) -> Result<Content> {
        let mut noise = Vec::new();
        write_noise("manifest", size * 3 / 4, &mut noise)?;
        // Four letters carry three bytes: noise that may stand in JSON.
        let letters: String = noise
            .iter()
            .map(|byte| char::from(b'!' + byte % 64))
            .map(|letter| if "\"\\".contains(letter) { '~' } else { letter })
            .collect();
        let Content {
            digest, size: len, ..
        } = blob;
        let descriptor = |kind: &str| {
            format!(
                "{{\"mediaType\":\"application/vnd.oci.image.{kind}\",\
                 \"digest\":\"{digest}\",\"size\":{len}}}"
            )
        };
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST_TYPE}\",\"config\":{},\
             \"layers\":[{}],\"annotations\":{{\"noise\":\"{letters}\"}}}}",
            descriptor("config.v1+json"),
            descriptor("layer.v1.tar"),
        );
        let digest = digest_of(manifest.as_bytes());
        self.registry
            .push_manifest(REPOSITORY, &digest, MANIFEST_TYPE, manifest.as_bytes())?;
        Ok(Content {
            digest,
            size: manifest.len() as u64,
            shelf: "manifests",
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.registry.address()
    }

    /// Where another registry finds the same contents.
    pub(crate) fn registry_directory(&self) -> PathBuf {
        self.directory.path().join("registry")
    }

    /// New hosts with empty stores, that know each other.
    pub(crate) fn hosts(&self) -> Result<Hosts> {
        let cluster = Cluster::new(self.registry.address(), "first", "first")?;
        Ok(Hosts {
            first: cluster.start("first", &EVERYTHING)?,
            second: cluster.start("second", &[Role::Proxy])?,
        })
    }

    /// That the registry was not asked more often for this content.
    pub(crate) fn ensure_fetches(&self, content: &Content, most: usize) -> Result<()> {
        let asked = self.registry.fetches_of(&content.digest)?;
        ensure!(
            asked <= most,
            "the registry was asked {asked} times, not {most}"
        );
        Ok(())
    }
}

// === impl Content ===

impl Content {
    /// The content as the registry itself gives it.
    pub(crate) fn direct(&self, registry: SocketAddr) -> Target {
        Target {
            address: registry,
            path: self.path(),
            size: self.size,
        }
    }

    /// The content as a mirror gives it.
    pub(crate) fn at(&self, mirror: SocketAddr) -> Target {
        Target {
            path: format!("{}?ns=registry.test", self.path()),
            ..self.direct(mirror)
        }
    }

    pub(crate) fn through(&self, host: &Member) -> Result<Target> {
        Ok(self.at(host.darter.proxy()?))
    }

    /// The file in which a registry on that directory keeps the bytes.
    pub(crate) fn in_registry(&self, directory: &Path) -> PathBuf {
        let (algorithm, hex) = self.digest.split_once(':').unwrap_or_default();
        let shelf = Path::new("content/docker/registry/v2/blobs").join(algorithm);
        let blob = shelf.join(hex.get(..2).unwrap_or_default()).join(hex);
        directory.join(blob).join("data")
    }

    /// The file in which a host keeps the bytes.
    pub(crate) fn stored_by(&self, host: &Member) -> PathBuf {
        let (algorithm, hex) = self.digest.split_once(':').unwrap_or_default();
        let shelf = Path::new("data/store/v1").join(algorithm);
        let task = shelf.join(hex.get(..2).unwrap_or_default()).join(hex);
        host.home.path().join(task).join("data")
    }

    pub(crate) fn path(&self) -> String {
        format!("/v2/{REPOSITORY}/{}/{}", self.shelf, self.digest)
    }
}
