//! Pure: where each runtime takes an authority from for one registry alone, and what to say of it.
//!
//! No place is one that the whole system trusts.

use protocol::RegistryName;

use crate::setup::Runtime;

/// What is written for a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placement {
    /// Where the authority goes.
    pub(super) certificate: String,
    /// A file that must name it, written only where there is none.
    pub(super) names_it: Option<NamingFile>,
    /// What the person does then.
    pub(super) then: &'static str,
}

/// A file of the runtime that says where the authority is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamingFile {
    pub(super) path: String,
    pub(super) text: String,
    /// The line that makes the difference.
    pub(super) line: String,
    /// Before which line of an existing file it must stand; anywhere where that is empty.
    pub(super) place: &'static str,
}

/// What the certificate is called wherever a runtime reads it.
pub(crate) const CERTIFICATE: &str = "darter-ca.crt";

const HUB_IN_DOCKERD: &str = "dockerd takes no authority for docker.io but the system's. Either point \
    it here as a mirror, which needs no certificate (`darter setup docker`), or give its unit a \
    directory of its own: Environment=SSL_CERT_DIR=/etc/darter/trust:/etc/ssl/certs, with what \
    `darter ca show docker.io` prints in /etc/darter/trust/darter-ca.pem, and restart docker";

const IN_REGISTRIES_YAML: &str = "k3s and rke2 name authorities in their registries.yaml: below `configs:` and \
    the registry, `tls: {ca_file: FILE}`, with what `darter ca show REGISTRY` prints in that file. \
    As a mirror Darter needs no certificate there (`darter setup k3s`)";

/// Where `runtime` takes the authority of `registry` from, or why there is no such place.
pub(super) fn placement(
    runtime: Runtime,
    registry: &RegistryName,
) -> Result<Placement, &'static str> {
    let in_certs_d = |of: &str, then| Placement {
        certificate: format!("/etc/{of}/certs.d/{registry}/{CERTIFICATE}"),
        names_it: None,
        then,
    };
    match runtime {
        Runtime::Docker if registry.as_str() == "docker.io" => Err(HUB_IN_DOCKERD),
        Runtime::Docker => Ok(in_certs_d("docker", "dockerd reads it at its next pull")),
        Runtime::Podman | Runtime::Crio => Ok(in_certs_d(
            "containers",
            "podman, skopeo, buildah and CRI-O read it at their next pull",
        )),
        Runtime::Containerd => Ok(containerd(registry)),
        Runtime::Buildkit => Ok(buildkit(registry)),
        Runtime::K3s | Runtime::Rke2 => Err(IN_REGISTRIES_YAML),
    }
}

fn containerd(registry: &RegistryName) -> Placement {
    let directory = format!("/etc/containerd/certs.d/{registry}");
    let certificate = format!("{directory}/{CERTIFICATE}");
    let server = match registry.as_str() {
        "docker.io" => "registry-1.docker.io",
        name => name,
    };
    let line = format!("ca = [\"{certificate}\"]");
    Placement {
        names_it: Some(NamingFile {
            path: format!("{directory}/hosts.toml"),
            text: format!("server = \"https://{server}\"\n{line}\n"),
            line,
            place: "before its first [host…] table",
        }),
        certificate,
        then: "containerd reads it at its next pull, where config_path is /etc/containerd/certs.d",
    }
}

fn buildkit(registry: &RegistryName) -> Placement {
    let certificate = format!("/etc/buildkit/certs.d/{registry}/{CERTIFICATE}");
    let line = format!("ca = [\"{certificate}\"]");
    Placement {
        names_it: Some(NamingFile {
            path: "/etc/buildkit/buildkitd.toml".to_owned(),
            text: format!("[registry.\"{registry}\"]\n  {line}\n"),
            line,
            place: "in its table for this registry",
        }),
        certificate,
        then: "restart buildkitd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(runtime: Runtime, registry: &str, certificate: &str, naming: Option<(&str, &str)>) {
        let placed = placement(runtime, &registry.parse().unwrap()).unwrap();
        assert_eq!(placed.certificate, certificate);
        let seen = placed.names_it.map(|file| (file.path, file.text));
        let expect = naming.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(seen, expect, "{registry}");
    }

    #[test]
    fn every_runtime_is_given_it_for_one_registry_alone() {
        check(
            Runtime::Docker,
            "r.example:5000",
            "/etc/docker/certs.d/r.example:5000/darter-ca.crt",
            None,
        );
        for runtime in [Runtime::Podman, Runtime::Crio] {
            check(
                runtime,
                "docker.io",
                "/etc/containers/certs.d/docker.io/darter-ca.crt",
                None,
            );
        }
        check(
            Runtime::Containerd,
            "docker.io",
            "/etc/containerd/certs.d/docker.io/darter-ca.crt",
            Some((
                "/etc/containerd/certs.d/docker.io/hosts.toml",
                "server = \"https://registry-1.docker.io\"\n\
                 ca = [\"/etc/containerd/certs.d/docker.io/darter-ca.crt\"]\n",
            )),
        );
        check(
            Runtime::Buildkit,
            "ghcr.io",
            "/etc/buildkit/certs.d/ghcr.io/darter-ca.crt",
            Some((
                "/etc/buildkit/buildkitd.toml",
                "[registry.\"ghcr.io\"]\n  ca = [\"/etc/buildkit/certs.d/ghcr.io/darter-ca.crt\"]\n",
            )),
        );
    }

    #[test]
    fn dockerd_is_not_given_what_it_would_not_read() {
        let refused = placement(Runtime::Docker, &"docker.io".parse().unwrap()).unwrap_err();
        assert!(refused.contains("SSL_CERT_DIR") && refused.contains("darter setup docker"));
    }
}
