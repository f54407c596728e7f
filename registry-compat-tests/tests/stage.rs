//! What tests share: the image, and a registry's directory that already has it. Both are
//! made once for all tests that run at the time, and only read afterwards.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use anyhow::Result;
use registry_compat_tests::{image::Image, namespace::Room, registry::Registry};
use tempfile::TempDir;

/// Every program that a client in a room needs.
pub(crate) const PROGRAMS: [&str; 12] = [
    "buildah",
    "containerd",
    "ctr",
    "docker",
    "docker-registry",
    "dockerd",
    "ip",
    "nsenter",
    "podman",
    "setpriv",
    "skopeo",
    "unshare",
];

/// The big image, pushed under a Hub name and under one of the registry's own.
#[derive(Debug)]
pub(crate) struct Golden {
    pub(crate) image: Image,
    pub(crate) directory: TempDir,
}

/// A room with a registry behind it that reads the golden content.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) room: Room,
    pub(crate) registry: Registry,
    pub(crate) golden: Arc<Golden>,
    _directory: TempDir,
}

pub(crate) const REPOSITORIES: [&str; 2] = ["library/sealed", "team/sealed"];

/// The golden image, made by the first test that wants it and removed with the last that holds it:
/// a static would never be dropped, and leave half a gigabyte behind.
pub(crate) fn golden() -> Result<Arc<Golden>> {
    static GOLDEN: Mutex<Weak<Golden>> = Mutex::new(Weak::new());
    let mut shared = GOLDEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(golden) = shared.upgrade() {
        return Ok(golden);
    }
    let golden = Arc::new(make_golden()?);
    *shared = Arc::downgrade(&golden);
    Ok(golden)
}

fn make_golden() -> Result<Golden> {
    let directory = workspace()?;
    let image = Image::full(&directory.path().join("image"), "golden")?;
    let registry = Registry::start(&directory.path().join("registry"))?;
    for repository in REPOSITORIES {
        registry.push(&image, repository)?;
    }
    registry.stop()?;
    Ok(Golden { image, directory })
}

pub(crate) fn workspace() -> Result<TempDir> {
    Ok(tempfile::Builder::new()
        .prefix("darter-compat-")
        .tempdir()?)
}

impl Golden {
    pub(crate) fn registry_directory(&self) -> std::path::PathBuf {
        self.directory.path().join("registry")
    }
}

impl Stage {
    /// A room and a registry behind it that only Darter's user can reach.
    pub(crate) fn sealed() -> Result<Self> {
        Self::open(|room, content| {
            Registry::start_at(content, room.registry_address(), |program| {
                room.registry(program)
            })
        })
    }

    /// A room in which the registry itself stands where Darter will.
    pub(crate) fn direct() -> Result<Self> {
        Self::open(|room, content| {
            Registry::start_at(content, "127.0.0.1:65001".parse()?, |program| {
                room.client(program)
            })
        })
    }

    fn open(start: impl Fn(&Room, &Path) -> Result<Registry>) -> Result<Self> {
        let golden = golden()?;
        let directory = workspace()?;
        let room = Room::open(&directory.path().join("room"))?;
        let registry = start(&room, &golden.registry_directory())?;
        Ok(Self {
            room,
            registry,
            golden,
            _directory: directory,
        })
    }
}
