//! The text of each runtime's file, and where it goes.

use std::io;

use anyhow::Context as _;

use super::{Mirror, RuntimeFile};

pub(super) const DOCKER: &str = "/etc/docker/daemon.json";
pub(super) const CONTAINERD: &str = "/etc/containerd/certs.d/_default/hosts.toml";
pub(super) const CONTAINERS: &str = "/etc/containers/registries.conf.d/50-darter.conf";
pub(super) const BUILDKIT: &str = "/etc/buildkit/buildkitd.toml";

/// `daemon.json` with the mirror, and whatever else stands in it on this machine.
pub(super) fn docker(mirror: &Mirror) -> anyhow::Result<RuntimeFile> {
    let existing = match std::fs::read_to_string(DOCKER) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("{DOCKER} cannot be read")),
    };
    let text = with_mirror(&existing, mirror)
        .with_context(|| format!("{DOCKER} is not valid; mend it first"))?;
    Ok(RuntimeFile {
        note: format!("# {DOCKER}\n# then: systemctl restart docker; mirrors docker.io only"),
        text,
    })
}

fn with_mirror(existing: &str, mirror: &Mirror) -> anyhow::Result<String> {
    let existing = if existing.trim().is_empty() {
        "{}"
    } else {
        existing
    };
    let mut daemon: serde_json::Map<String, serde_json::Value> = serde_json::from_str(existing)?;
    let url = format!("http://{}", mirror.authority);
    let mirrors = daemon
        .entry("registry-mirrors")
        .or_insert_with(|| serde_json::json!([]));
    let mirrors = mirrors
        .as_array_mut()
        .context("registry-mirrors must be a list")?;
    let is_ours = |mirror: &serde_json::Value| {
        mirror
            .as_str()
            .is_some_and(|mirror| mirror.trim_end_matches('/') == url)
    };
    mirrors.retain(|mirror| !is_ours(mirror));
    mirrors.insert(0, url.into());
    Ok(serde_json::to_string_pretty(&daemon)?)
}

/// `hosts.toml` for every registry that has no directory of its own.
pub(super) fn containerd(mirror: &Mirror) -> RuntimeFile {
    let text = format!(
        "# {CONTAINERD}\n\
         # Read where /etc/containerd/config.toml has, in containerd 1:\n\
         #   [plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
         #     config_path = \"/etc/containerd/certs.d\"\n\
         # and in containerd 2:\n\
         #   [plugins.\"io.containerd.cri.v1.images\".registry]\n\
         #     config_path = \"/etc/containerd/certs.d\"\n\
         # A registry with a directory of its own there needs this in its hosts.toml too.\n\n\
         [host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
        mirror.authority
    );
    RuntimeFile {
        note: format!("# {CONTAINERD}\n# containerd reads it at its next pull"),
        text,
    }
}

/// `registries.conf` of podman, CRI-O, skopeo and buildah: each registry by its path prefix.
pub(super) fn containers(mirror: &Mirror, then: &str) -> RuntimeFile {
    let mut text = format!("# {CONTAINERS}\n");
    for registry in &mirror.registries {
        let authority = &mirror.authority;
        text.push_str(&format!(
            "\n[[registry]]\nprefix = \"{registry}\"\nlocation = \"{registry}\"\n\n\
             [[registry.mirror]]\nlocation = \"{authority}/{registry}\"\ninsecure = true\n"
        ));
    }
    RuntimeFile {
        note: format!("# {CONTAINERS}\n# {then}"),
        text,
    }
}

/// `buildkitd.toml`: the mirror of each registry, and that it speaks plain HTTP.
pub(super) fn buildkit(mirror: &Mirror) -> RuntimeFile {
    let authority = &mirror.authority;
    let mut text = format!(
        "# {BUILDKIT}\n\
         # A builder in a container has a loopback of its own: start it with\n\
         #   docker buildx create --driver-opt network=host --buildkitd-config {BUILDKIT}\n"
    );
    for registry in &mirror.registries {
        text.push_str(&format!(
            "\n[registry.\"{registry}\"]\n  mirrors = [\"{authority}\"]\n"
        ));
    }
    text.push_str(&format!("\n[registry.\"{authority}\"]\n  http = true\n"));
    RuntimeFile {
        note: format!("# {BUILDKIT}\n# then: systemctl restart buildkit"),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(existing: &str, expect: Option<&str>) {
        let mirror = Mirror {
            authority: "localhost:65001".to_owned(),
            registries: Vec::new(),
        };
        let merged = with_mirror(existing, &mirror).ok();
        let compact = merged.map(|text| text.replace(char::is_whitespace, ""));
        assert_eq!(compact.as_deref(), expect, "{existing}");
    }

    #[test]
    fn what_stands_in_daemon_json_is_kept() {
        check(
            "",
            Some(r#"{"registry-mirrors":["http://localhost:65001"]}"#),
        );
        check(
            r#"{"debug":true,"registry-mirrors":["http://other","http://localhost:65001/"]}"#,
            Some(r#"{"debug":true,"registry-mirrors":["http://localhost:65001","http://other"]}"#),
        );
        check("{", None);
        check(r#"{"registry-mirrors":"x"}"#, None);
    }
}
