//! Pure: which files of a runtime are to have what of ours, and what makes the runtime read them.

use std::path::{Path, PathBuf};

use crate::ca;

use super::{
    Mode,
    edit::{self, CERTS_DIR, ConfigPath, Edit, EditError, FoundPath, OWN_HEADER},
    intercept,
    runtime::Runtime,
};

/// A registry, as image names spell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registry {
    pub(crate) name: String,
    /// Where it is; `None` where this cannot be written as one URL.
    pub(crate) server: Option<String>,
}

/// What a runtime is to be set up for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) runtime: Runtime,
    pub(crate) mode: Mode,
    pub(crate) port: u16,
    pub(crate) registries: Vec<Registry>,
    /// Whom the runtime is to believe where registries are intercepted.
    pub(crate) authorities: Vec<Authority>,
}

/// The authority by which this host answers as a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) registry: String,
    /// Where the runtime reads the certificate.
    pub(crate) path: PathBuf,
    pub(crate) certificate: String,
}

/// Our part of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) edit: Edit,
    /// What makes the runtime read the file; `None` where it does at its next pull.
    pub(crate) then: Option<&'static str>,
}

/// All of a setup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    /// What the person must know besides.
    pub(crate) notes: Vec<String>,
}

/// A file that the plan cannot be made with, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is left as it is: {problem}", path.display())]
pub(crate) struct PlanError {
    pub(crate) path: PathBuf,
    pub(crate) problem: String,
}

/// What stands in files without our part. Gives the text of a file and the names in a directory; of
/// what is missing, none.
pub(crate) struct Ground<'a> {
    pub(crate) text: &'a dyn Fn(&Path) -> Option<String>,
    pub(crate) names: &'a dyn Fn(&Path) -> Vec<String>,
}

pub(super) const DAEMON_JSON: &str = "/etc/docker/daemon.json";
const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
pub(super) const CONTAINERS_MIRRORS: &str = "/etc/containers/registries.conf.d/50-darter.conf";
pub(super) const BUILDKITD: &str = "/etc/buildkit/buildkitd.toml";

pub(super) const K3S: &str = "/etc/rancher/k3s/registries.yaml";
pub(super) const RKE2: &str = "/etc/rancher/rke2/registries.yaml";
const RESTART_K3S: &str = "systemctl restart k3s, or k3s-agent on an agent";
const RESTART_RKE2: &str = "systemctl restart rke2-server, or rke2-agent on an agent";

/// The one registry that docker asks mirrors for.
pub(crate) const DOCKER_HUB: &str = "docker.io";

/// The name by which containerd keeps what holds for every registry without a directory of its own.
pub(super) const ANY: &str = "_default";

/// Files of a hosts directory that containerd reads no more once it finds a `hosts.toml`.
const CERTIFICATES: [&str; 3] = [".crt", ".cert", ".key"];

/// What `wish` comes to on `ground`.
pub(crate) fn plan(wish: &Wish, ground: &Ground<'_>) -> Result<Plan, PlanError> {
    match (wish.mode, wish.runtime) {
        (Mode::Mirror, Runtime::Docker) => docker_mirror(wish),
        (Mode::Mirror, Runtime::Containerd) => containerd_mirror(wish, ground),
        (Mode::Mirror, Runtime::Podman) => Ok(containers_mirror(wish, None)),
        (Mode::Mirror, Runtime::Crio) => Ok(containers_mirror(wish, Some("systemctl reload crio"))),
        (Mode::Mirror, Runtime::Buildkit) => Ok(buildkit_mirror(wish)),
        (Mode::Mirror, Runtime::K3s) => Ok(rancher_mirror(wish, K3S, RESTART_K3S)),
        (Mode::Mirror, Runtime::Rke2) => Ok(rancher_mirror(wish, RKE2, RESTART_RKE2)),
        (
            Mode::Intercept,
            Runtime::Docker
            | Runtime::Containerd
            | Runtime::Podman
            | Runtime::Crio
            | Runtime::Buildkit
            | Runtime::K3s
            | Runtime::Rke2,
        ) => intercept::plan(wish, ground),
    }
}

fn docker_mirror(wish: &Wish) -> Result<Plan, PlanError> {
    if let Some(other) = wish
        .registries
        .iter()
        .find(|registry| registry.name != DOCKER_HUB)
    {
        return Err(PlanError {
            path: PathBuf::from(DAEMON_JSON),
            problem: format!(
                "docker asks mirrors for {DOCKER_HUB} alone; for {} use --mode intercept, or pull localhost:{}/{}/…",
                other.name, wish.port, other.name
            ),
        });
    }
    let edit = Edit::DockerMirror { url: wish.url() };
    Ok(Plan::of(DAEMON_JSON, edit, Some("systemctl reload docker")))
}

fn containerd_mirror(wish: &Wish, ground: &Ground<'_>) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let directory = hosts_directory(ground, &mut plan)?;
    for registry in &wish.registries {
        let Some((path, text)) = hosts_file(&directory, &registry.name, ground, &mut plan) else {
            continue;
        };
        let has_server = text.is_some_and(|text| edit::has_server(&text));
        let server = registry.server.clone().filter(|_| !has_server);
        let edit = Edit::ContainerdHost {
            url: wish.url(),
            server,
        };
        plan.parts.push(Part {
            path,
            edit,
            then: None,
        });
    }
    Ok(plan)
}

/// Where containerd looks for `hosts.toml` files; told to it, where it was told of no directory.
pub(super) fn hosts_directory(ground: &Ground<'_>, plan: &mut Plan) -> Result<PathBuf, PlanError> {
    let config = (ground.text)(Path::new(CONTAINERD_CONFIG)).unwrap_or_default();
    let refused = |error: EditError| PlanError {
        path: PathBuf::from(CONTAINERD_CONFIG),
        problem: error.to_string(),
    };
    match ConfigPath::find(&config).map_err(refused)? {
        FoundPath::Named(directory) => return Ok(PathBuf::from(directory)),
        FoundPath::NoCri => plan.notes.push(format!(
            "the CRI is disabled in {CONTAINERD_CONFIG}; nerdctl reads {CERTS_DIR}, ctr does with --hosts-dir {CERTS_DIR}"
        )),
        FoundPath::Unnamed(path) => plan.parts.push(Part {
            path: PathBuf::from(CONTAINERD_CONFIG),
            edit: Edit::ContainerdConfigPath(path),
            then: Some("systemctl restart containerd"),
        }),
    }
    Ok(PathBuf::from(CERTS_DIR))
}

/// The `hosts.toml` of a registry and its text, unless it is to be left out.
pub(super) fn hosts_file(
    directory: &Path,
    registry: &str,
    ground: &Ground<'_>,
    plan: &mut Plan,
) -> Option<(PathBuf, Option<String>)> {
    let directory = directory.join(registry);
    let path = directory.join("hosts.toml");
    let text = (ground.text)(&path);
    let is_theirs = |name: &String| {
        name != ca::CERTIFICATE && CERTIFICATES.iter().any(|end| name.ends_with(end))
    };
    if text.is_none() && (ground.names)(&directory).iter().any(is_theirs) {
        plan.notes.push(format!(
            "{} is left out: it has certificates, which containerd reads no more beside a hosts.toml; write one that names them, then run this again",
            directory.display()
        ));
        return None;
    }
    Some((path, text))
}

/// `registries.conf` of podman, CRI-O, skopeo and buildah: each registry by its path prefix.
fn containers_mirror(wish: &Wish, then: Option<&'static str>) -> Plan {
    let mut text = OWN_HEADER.to_owned();
    let mut notes = Vec::new();
    let authority = wish.authority();
    for Registry { name, .. } in &wish.registries {
        if name.contains(':') {
            notes.push(format!(
                "{name} is left out: podman and its kin take no port inside a path; give it a second [[proxy.registry]] entry without the port"
            ));
            continue;
        }
        text.push_str(&format!(
            "\n[[registry]]\nprefix = \"{name}\"\nlocation = \"{name}\"\n\n\
             [[registry.mirror]]\nlocation = \"{authority}/{name}\"\ninsecure = true\n"
        ));
    }
    let plan = Plan::of(CONTAINERS_MIRRORS, Edit::Own { text }, then);
    Plan { notes, ..plan }
}

/// The `registries.yaml` of k3s and rke2, from which they make the `hosts.toml` files of their containerd.
fn rancher_mirror(wish: &Wish, path: &str, restart: &'static str) -> Plan {
    let named = wish.registries.iter().map(|one| match one.name.as_str() {
        ANY => "*".to_owned(),
        name => name.to_owned(),
    });
    let edit = Edit::RegistriesYaml {
        url: wish.url(),
        registries: named.collect(),
    };
    Plan::of(path, edit, Some(restart))
}

fn buildkit_mirror(wish: &Wish) -> Plan {
    let edit = Edit::BuildkitMirrors {
        authority: wish.authority(),
        registries: wish
            .registries
            .iter()
            .map(|registry| registry.name.clone())
            .collect(),
    };
    let mut plan = Plan::of(BUILDKITD, edit, Some("systemctl restart buildkit"));
    plan.notes.push(format!(
        "a builder in a container has a loopback of its own: docker buildx create --driver-opt network=host --buildkitd-config {BUILDKITD}"
    ));
    plan
}

// === impl Registry ===

impl Registry {
    pub(crate) fn well_known(name: &str) -> Self {
        let server = match name {
            ANY => None,
            DOCKER_HUB => Some("https://registry-1.docker.io".to_owned()),
            _ => Some(format!("https://{name}")),
        };
        Self {
            name: name.to_owned(),
            server,
        }
    }

    /// An entry of the configuration; an endpoint with a path is no server that containerd can ask.
    pub(crate) fn configured(name: &str, endpoint: &str) -> Self {
        if endpoint.is_empty() {
            return Self::well_known(name);
        }
        let endpoint = endpoint.trim_end_matches('/');
        let authority = endpoint.split_once("://").map_or("", |(_, rest)| rest);
        let server = (!authority.contains('/')).then(|| endpoint.to_owned());
        Self {
            name: name.to_owned(),
            server,
        }
    }

    /// Whether containerd can keep it as a directory and files can have it in quotes.
    pub(crate) fn check(name: &str) -> bool {
        name == ANY || name.parse::<protocol::RegistryName>().is_ok()
    }
}

// === impl Wish ===

impl Wish {
    pub(super) fn authority(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.authority())
    }
}

// === impl Plan ===

impl Plan {
    pub(super) fn of(path: &str, edit: Edit, then: Option<&'static str>) -> Self {
        let path = PathBuf::from(path);
        Self {
            parts: vec![Part { path, edit, then }],
            notes: Vec::new(),
        }
    }
}
