//! Pure: what a runtime needs for which Darter is its HTTPS proxy: the proxy in its environment, and the
//! authorities of the registries that are answered in their place.

use std::path::{Path, PathBuf};

use swarm::source::Pattern;

use super::{
    edit::{self, Edit, OWN_HEADER},
    plan::{
        ANY, BUILDKITD, DAEMON_JSON, Ground, K3S, Part, Plan, PlanError, RKE2, Registry, Wish,
        hosts_directory, hosts_file,
    },
    runtime::Runtime,
};

const CONTAINERS_PROXY: &str = "/etc/containers/containers.conf.d/50-darter.conf";

/// Where a proxy is never asked for.
const NO_PROXY: &str = "localhost,127.0.0.0/8,::1";

/// Whom to believe comes first: a proxy whose certificates are not trusted yet would fail pulls.
pub(super) fn plan(wish: &Wish, ground: &Ground<'_>) -> Result<Plan, PlanError> {
    let mut plan = trust(wish, ground)?;
    let Plan { parts, notes } = match wish.runtime {
        Runtime::Podman => podman_proxy(wish),
        Runtime::Docker | Runtime::Containerd | Runtime::Crio | Runtime::Buildkit => {
            service_proxy(wish, ground)?
        }
        Runtime::K3s => return Err(not_here(K3S)),
        Runtime::Rke2 => return Err(not_here(RKE2)),
    };
    plan.parts.extend(parts);
    plan.notes.extend(notes);
    Ok(plan)
}

/// Of a service that gives its runtime its own environment and trust.
fn not_here(path: &str) -> PlanError {
    let problem = "this service would be given the proxy for all that it does: use --mode mirror";
    PlanError {
        path: PathBuf::from(path),
        problem: problem.to_owned(),
    }
}

/// The registries of `texts`, as `[proxy] intercept` has them, that are no patterns.
pub(super) fn named(texts: &[String]) -> Vec<Registry> {
    let named = texts.iter().filter(|text| Registry::check(text));
    named.map(|name| Registry::well_known(name)).collect()
}

/// What the configuration lacks to intercept `registries`.
pub(super) fn unlisted(registries: &[Registry], texts: &[String]) -> Option<String> {
    let is_listed = |registry: &&Registry| {
        let name = registry.name.parse::<protocol::RegistryName>();
        let patterns = texts.iter().filter_map(|text| text.parse::<Pattern>().ok());
        texts.contains(&registry.name)
            || name.is_ok_and(|name| patterns.into_iter().any(|pattern| pattern.matches(&name)))
    };
    let missing = registries.iter().filter(|registry| registry.name != ANY);
    let missing = missing.filter(|registry| !is_listed(registry));
    let missing: Vec<String> = missing
        .map(|registry| format!("{:?}", registry.name))
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "these are not intercepted yet: add them to the configuration of Darter, under [proxy]: intercept = [{}]",
            missing.join(", ")
        )
    })
}

/// The authorities, where the runtime reads one for each registry.
fn trust(wish: &Wish, ground: &Ground<'_>) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let hosts = match wish.runtime {
        Runtime::Containerd if !wish.authorities.is_empty() => {
            Some(hosts_directory(ground, &mut plan)?)
        }
        _ => None,
    };
    let mut named = Vec::new();
    for authority in &wish.authorities {
        let certificate = authority.path.display().to_string();
        if let Some(directory) = &hosts {
            let found = hosts_file(directory, &authority.registry, ground, &mut plan);
            let Some((path, text)) = found else {
                plan.notes.push(format!(
                    "its hosts.toml must have, before its first [host…] table: ca = [{certificate:?}]"
                ));
                continue;
            };
            let has_server = text.is_some_and(|text| edit::has_server(&text));
            let server = Registry::well_known(&authority.registry).server;
            let edit = Edit::ContainerdAuthority {
                certificate: certificate.clone(),
                server: server.filter(|_| !has_server),
            };
            plan.parts.push(Part {
                path,
                edit,
                then: None,
            });
        }
        let text = authority.certificate.clone();
        plan.parts.push(Part {
            path: authority.path.clone(),
            edit: Edit::Certificate { text },
            then: None,
        });
        named.push((authority.registry.clone(), certificate));
    }
    if wish.runtime == Runtime::Buildkit && !named.is_empty() {
        plan.parts.push(Part {
            path: PathBuf::from(BUILDKITD),
            edit: Edit::BuildkitAuthorities {
                certificates: named,
            },
            then: Some("systemctl daemon-reload && systemctl restart buildkit"),
        });
    }
    Ok(plan)
}

fn podman_proxy(wish: &Wish) -> Plan {
    let url = wish.url();
    // What podman has in its environment it would hand to containers, whose loopback is another.
    let text = format!(
        "{OWN_HEADER}[engine]\nenv = [\"HTTPS_PROXY={url}\", \"NO_PROXY={NO_PROXY}\"]\n\n\
         [containers]\nhttp_proxy = false\n"
    );
    let mut plan = Plan::of(CONTAINERS_PROXY, Edit::Own { text }, None);
    plan.notes.push(
        "podman hands no proxy to containers any more; name one with --env where it is needed"
            .to_owned(),
    );
    plan
}

/// The environment of a service, as a file beside its unit.
fn service_proxy(wish: &Wish, ground: &Ground<'_>) -> Result<Plan, PlanError> {
    let service = wish.runtime.as_str();
    let directory = PathBuf::from(format!("/etc/systemd/system/{service}.service.d"));
    let path = directory.join("darter.conf");
    for name in (ground.names)(&directory) {
        let other = directory.join(&name);
        let is_other = other != path && name.ends_with(".conf");
        let text = (ground.text)(&other)
            .filter(|_| is_other)
            .unwrap_or_default();
        if text.to_ascii_uppercase().contains("HTTPS_PROXY") {
            let problem = "it names a proxy already, and Darter asks registries without one: take HTTPS_PROXY and NO_PROXY out of it first";
            return Err(PlanError {
                path: other,
                problem: problem.to_owned(),
            });
        }
    }
    let daemon = (ground.text)(Path::new(DAEMON_JSON)).unwrap_or_default();
    if wish.runtime == Runtime::Docker && daemon.contains("\"proxies\"") {
        let problem = "its `proxies` go before the environment of the service: take them out first";
        return Err(PlanError {
            path: PathBuf::from(DAEMON_JSON),
            problem: problem.to_owned(),
        });
    }
    let text = format!(
        "{OWN_HEADER}[Service]\nEnvironment=\"HTTPS_PROXY={}\" \"NO_PROXY={NO_PROXY}\"\n",
        wish.url()
    );
    let path = path.display().to_string();
    let then = match wish.runtime {
        Runtime::Docker => Some("systemctl daemon-reload && systemctl restart docker"),
        Runtime::Containerd => Some("systemctl daemon-reload && systemctl restart containerd"),
        Runtime::Crio => Some("systemctl daemon-reload && systemctl restart crio"),
        Runtime::Buildkit => Some("systemctl daemon-reload && systemctl restart buildkit"),
        Runtime::Podman | Runtime::K3s | Runtime::Rke2 => None,
    };
    Ok(Plan::of(&path, Edit::Own { text }, then))
}
