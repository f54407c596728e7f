//! The file with which a container runtime is pointed at this host.

mod files;

/// A container runtime that can be pointed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Runtime {
    Docker,
    Containerd,
    Podman,
    Crio,
    Buildkit,
}

/// A whole file of a runtime.
#[derive(Debug)]
pub(crate) struct RuntimeFile {
    /// Where it goes and what makes the runtime read it, for the person.
    pub(crate) note: String,
    pub(crate) text: String,
}

/// What is written into the files.
#[derive(Debug)]
struct Mirror {
    /// `localhost:65001`.
    authority: String,
    /// The registries that are mirrored, as image names spell them.
    registries: Vec<String>,
}

/// The port of the proxy where nothing else is said.
pub(crate) const PROXY_PORT: u16 = 65001;

/// The file that `runtime` needs to pull through the proxy on `port`.
pub(crate) fn file_for(runtime: Runtime, port: u16) -> anyhow::Result<RuntimeFile> {
    let mirror = Mirror::of_port(port);
    match runtime {
        Runtime::Docker => files::docker(&mirror),
        Runtime::Containerd => Ok(files::containerd(&mirror)),
        Runtime::Podman => Ok(files::containers(
            &mirror,
            "podman reads it at its next pull",
        )),
        Runtime::Crio => Ok(files::containers(&mirror, "then: systemctl reload crio")),
        Runtime::Buildkit => Ok(files::buildkit(&mirror)),
    }
}

// === impl Runtime ===

impl Runtime {
    pub(crate) const ALL: [Self; 5] = [
        Self::Docker,
        Self::Containerd,
        Self::Podman,
        Self::Crio,
        Self::Buildkit,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Crio => "crio",
            Self::Buildkit => "buildkit",
        }
    }
}

// === impl Mirror ===

impl Mirror {
    /// Every well-known registry with a name of its own; a pattern names none.
    fn of_port(port: u16) -> Self {
        let named = swarm::source::WELL_KNOWN
            .iter()
            .filter(|name| !name.contains('*'));
        Self {
            authority: format!("localhost:{port}"),
            registries: named.map(|name| (*name).to_owned()).collect(),
        }
    }
}

/// How `runtime` is pointed at the proxy on `port`, in one line.
pub(crate) fn hint(runtime: Runtime, port: u16) -> String {
    let name = runtime.as_str();
    let show = format!("`darter setup {name} --dry-run`");
    match runtime {
        Runtime::Docker => format!(
            "\"registry-mirrors\": [\"http://localhost:{port}\"] in {}, then restart docker",
            files::DOCKER
        ),
        Runtime::Containerd => format!("{show} shows {}", files::CONTAINERD),
        Runtime::Podman => format!(
            "podman pull --tls-verify=false localhost:{port}/docker.io/library/alpine; {show} for all names"
        ),
        Runtime::Crio => format!("{show} shows {}", files::CONTAINERS),
        Runtime::Buildkit => format!("{show} shows {}", files::BUILDKIT),
    }
}
