//! Pure: the runtimes that can be pointed here: how they are known, and for what they ask a mirror.

use super::plan::{
    ANY, BUILDKITD, CONTAINERS_MIRRORS, DAEMON_JSON, DOCKER_HUB, K3S, RKE2, Registry,
};

/// A container runtime that can be pointed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Runtime {
    Docker,
    Containerd,
    Podman,
    Crio,
    Buildkit,
    K3s,
    Rke2,
}

impl Runtime {
    pub(crate) const ALL: [Self; 7] = [
        Self::Docker,
        Self::Containerd,
        Self::Podman,
        Self::Crio,
        Self::Buildkit,
        Self::K3s,
        Self::Rke2,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Crio => "crio",
            Self::Buildkit => "buildkit",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// The program by which it is told that the runtime is installed.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Docker => "dockerd",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Crio => "crio",
            Self::Buildkit => "buildkitd",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// Where people point it here by hand.
    pub(super) fn customary_files(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &[DAEMON_JSON],
            Self::Containerd => &[
                "/etc/containerd/certs.d/_default/hosts.toml",
                "/etc/containerd/certs.d/docker.io/hosts.toml",
            ],
            Self::Podman | Self::Crio => &[CONTAINERS_MIRRORS, "/etc/containers/registries.conf"],
            Self::Buildkit => &[BUILDKITD],
            Self::K3s => &[K3S],
            Self::Rke2 => &[RKE2],
        }
    }

    /// The registries that are mirrored where none are named: for docker the one that it can, for
    /// containerd, also where it is k3s' or rke2's, everything else too, since it names the registry
    /// in each request.
    pub(crate) fn default_registries(self, configured: &[Registry]) -> Vec<Registry> {
        let hub = Registry::well_known(DOCKER_HUB);
        let hub = configured
            .iter()
            .find(|registry| registry.name == DOCKER_HUB)
            .cloned()
            .unwrap_or(hub);
        if self == Self::Docker {
            return vec![hub];
        }
        let named = swarm::source::WELL_KNOWN
            .iter()
            .filter(|name| !name.contains('*'));
        let mut registries: Vec<Registry> = configured.to_vec();
        for name in named {
            if !registries.iter().any(|registry| registry.name == *name) {
                registries.push(Registry::well_known(name));
            }
        }
        if matches!(self, Self::Containerd | Self::K3s | Self::Rke2) {
            registries.push(Registry {
                name: ANY.to_owned(),
                server: None,
            });
        }
        registries
    }
}
