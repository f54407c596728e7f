//! Drivers of the real clients: each configures its client at the real paths of a [`Room`], pulls,
//! and compares what the client then has with the image, byte for byte.
//!
//! A driver begins with an empty store each time and knows nothing of Darter: whoever answers on
//! `localhost:65001` is what the client is told to use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use crate::{image::Image, namespace::Room};

mod archive;
mod containerd;
mod containers_image;
mod cri;
mod dockerd;

/// The address that every client is pointed to.
pub const MIRROR: &str = "localhost:65001";

/// What docker and its kin keep a login for Docker Hub by.
const HUB_LOGIN: &str = "https://index.docker.io/v1/";

/// A pull of a big image by the slowest client, on two busy cores.
const PULL_LIMIT: Duration = Duration::from_secs(240);

/// A daemon's start on two busy cores.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The clients that are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// `docker pull` of a Hub name, with `registry-mirrors`.
    Dockerd,
    /// `docker build` with BuildKit, `FROM` a Hub name.
    Buildkit,
    /// `ctr images pull` with a hosts directory.
    Ctr,
    /// PullImage over the container runtime interface.
    Cri,
    Podman,
    Skopeo,
    Buildah,
}

/// Which names a client uses for the image.
#[derive(Debug, Clone)]
pub enum Naming {
    /// The image's own name, by the client's mirror configuration.
    Mirror(Mirrored),
    /// `localhost:65001/<this>`, without any configuration.
    Explicit(String),
    /// The image's name at Docker Hub, by the files that a command has made for the client.
    SetUp(SetUp),
    /// The image's own name and nothing of a mirror: the client has files that say whom it trusts,
    /// and perhaps a proxy.
    Own(Own),
    /// A registry with its own authority and users, without any mirror.
    Secured(Secured),
}

/// What a client needs to ask a registry by its own name.
#[derive(Debug, Clone)]
pub struct Own {
    /// Registry and repository, as image names spell them.
    pub name: String,
    /// Files of the client, by their real paths.
    pub files: Vec<(String, String)>,
    /// Variables of the client's environment, such as `HTTPS_PROXY`.
    pub variables: Vec<(String, String)>,
}

/// A repository at a registry that speaks TLS.
#[derive(Debug, Clone)]
pub struct Secured {
    /// `host:port`.
    pub registry: String,
    pub repository: String,
    /// The certificate of its authority, as PEM.
    pub ca: String,
}

/// What points a client at the mirror.
#[derive(Debug, Clone)]
pub struct SetUp {
    /// The repository at Docker Hub, without `library/`.
    pub hub: String,
    /// Files of the client, by their real paths.
    pub files: Vec<(String, String)>,
}

/// An image's own names, and how the path form names its registry at the mirror.
#[derive(Debug, Clone)]
pub struct Mirrored {
    /// The repository at Docker Hub, without `library/`.
    pub hub: String,
    /// The registry's name in image names.
    pub registry: String,
    pub repository: String,
    /// What containers/image puts in place of the registry's name.
    pub location: String,
}

/// One client's pull of one image in a room.
#[derive(Debug)]
pub struct Visit<'a> {
    pub room: &'a Room,
    pub image: &'a Image,
    pub naming: &'a Naming,
    pub reference: Reference,
    /// The user and the password that the client was given for the image's registry.
    pub login: Option<(&'a str, &'a str)>,
}

/// How a client names the one image of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// By the tag that it was pushed with.
    Tag,
    /// By the digest of its index, without any tag.
    Digest,
}

impl Secured {
    fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Writes whom to believe to where docker and its kin look for it.
    fn write(&self, room: &Room) -> Result<()> {
        let ca = format!("/etc/docker/certs.d/{}/ca.crt", self.registry);
        room.write(&ca, &self.ca)
    }
}

/// All of an image, copied by a client that needs no room: `name` begins with the mirror's address.
///
/// # Errors
/// The copy fails, with the client's own output, or a byte differs.
pub fn copy(name: &str, image: &Image, directory: &Path) -> Result<()> {
    containers_image::copy_without_configuration(name, image, directory)
}

/// This machine's platform of an image, pulled by a client that needs no room; `name` begins with
/// the mirror's address.
///
/// # Errors
/// The pull fails, with the client's own output, or a layer differs.
pub fn pull(name: &str, image: &Image, directory: &Path) -> Result<()> {
    containers_image::pull_without_configuration(name, image, directory)
}

// === impl Client ===

impl Client {
    pub const ALL: [Self; 7] = [
        Self::Dockerd,
        Self::Buildkit,
        Self::Ctr,
        Self::Cri,
        Self::Podman,
        Self::Skopeo,
        Self::Buildah,
    ];

    /// Pulls into an empty store and compares.
    ///
    /// # Errors
    /// The pull fails, with the client's own output, or a byte differs.
    pub fn pull(self, visit: &Visit<'_>) -> Result<()> {
        match self {
            Self::Dockerd => dockerd::pull(visit),
            Self::Buildkit => dockerd::build(visit),
            Self::Ctr => containerd::pull(visit),
            Self::Cri => containerd::pull_by_cri(visit),
            Self::Podman => containers_image::podman(visit),
            Self::Skopeo => containers_image::skopeo(visit),
            Self::Buildah => containers_image::buildah(visit),
        }
        .with_context(|| format!("{self:?} of {:?} by {:?}", visit.naming, visit.reference))
    }
}

// === impl Visit ===

impl Visit<'_> {
    /// The name of the image for a client whose mirror stands for Docker Hub.
    fn hub_name(&self) -> String {
        match self.naming {
            Naming::Mirror(names) => self.referred(&names.hub),
            Naming::SetUp(set_up) => self.referred(&set_up.hub),
            Naming::Own(own) => self.referred(&own.name),
            Naming::Explicit(name) => self.referred(&format!("{MIRROR}/{name}")),
            Naming::Secured(own) => self.referred(&own.name()),
        }
    }

    /// The name of the image for a client that can mirror any registry.
    fn registry_name(&self) -> String {
        match self.naming {
            Naming::Mirror(names) => {
                self.referred(&format!("{}/{}", names.registry, names.repository))
            }
            Naming::SetUp(set_up) => self.referred(&format!("docker.io/library/{}", set_up.hub)),
            Naming::Own(own) => self.referred(&own.name),
            Naming::Explicit(name) => self.referred(&format!("{MIRROR}/{name}")),
            Naming::Secured(own) => self.referred(&own.name()),
        }
    }

    fn referred(&self, repository: &str) -> String {
        match self.reference {
            Reference::Tag => format!("{repository}:latest"),
            Reference::Digest => format!("{repository}@{}", self.image.index.digest),
        }
    }

    /// A command of the client, with what it has in its environment.
    fn command(&self, program: &str) -> Command {
        let mut command = self.room.client(program);
        if let Naming::Own(own) = self.naming {
            command.envs(own.variables.iter().cloned());
        }
        command
    }

    /// Writes who one is, or that one is nobody, to where docker and its kin look for it.
    fn log_in(&self, name: &str) -> Result<()> {
        let auths = match self.login {
            None => json!({}),
            Some((user, password)) => {
                let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
                json!({registry_of(name): {"auth": auth}})
            }
        };
        let config = json!({"auths": auths}).to_string();
        self.room.write("/root/.docker/config.json", &config)
    }

    /// Writes files of the client.
    fn write(&self, files: &[(String, String)]) -> Result<()> {
        let mut files = files.iter();
        files.try_for_each(|(path, text)| self.room.write(path, text))
    }

    /// A directory of the room, emptied but kept, since it may be a mount; its path outside.
    fn empty_directory(&self, path: &str) -> Result<PathBuf> {
        let outside = self.room.host_path(path)?;
        fs::create_dir_all(&outside)?;
        for entry in fs::read_dir(&outside)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(outside)
    }
}

/// What a login for the registry of an image is kept by.
fn registry_of(name: &str) -> &str {
    match name.split_once('/') {
        Some((registry, _)) if registry.contains(['.', ':']) && registry != "docker.io" => registry,
        _ => HUB_LOGIN,
    }
}
