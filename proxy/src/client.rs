//! Pure: who asks, and whether it goes elsewhere when it is not answered here.
//!
//! The form of the request tells first: whoever says `ns` was pointed here as a mirror and has the
//! upstream next in its list. A bare name from dockerd comes by `registry-mirrors`. Nobody else
//! falls back, and an agent that is not known never does.

use crate::route::Form;

/// The program that asks, by its `User-Agent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientKind {
    Docker,
    Containerd,
    Buildkit,
    /// podman, skopeo, buildah, CRI-O.
    ContainersImage,
    /// crane, kaniko, cosign, ko; they call themselves what Go calls itself while they ping.
    GoContainerregistry,
    Oras,
    Regclient,
    Other,
}

/// What an asker does with an answer that is not the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Named its registry by `ns`: goes to the next host, and needs a challenge to send its token.
    Namespace,
    /// dockerd with this proxy as mirror: goes to Hub, and never sends a token to a mirror.
    Mirror,
    /// Has nowhere else to go.
    Direct,
}

// === impl ClientKind ===

impl ClientKind {
    /// Every kind, in the order of the metric's label.
    pub const ALL: [Self; 8] = [
        Self::Docker,
        Self::Containerd,
        Self::Buildkit,
        Self::ContainersImage,
        Self::GoContainerregistry,
        Self::Oras,
        Self::Regclient,
        Self::Other,
    ];

    /// Reads a `User-Agent`. dockerd with the containerd store names both; docker comes first.
    pub fn of(user_agent: &str) -> Self {
        let agent = user_agent.to_ascii_lowercase();
        let product = agent.split(['/', ' ']).next().unwrap_or_default();
        match product {
            "docker" => Self::Docker,
            "containerd" | "nerdctl" => Self::Containerd,
            "buildkit" | "buildx" => Self::Buildkit,
            "containers" | "podman" | "skopeo" | "buildah" | "cri-o" | "libpod" => {
                Self::ContainersImage
            }
            "go-containerregistry" | "crane" | "kaniko" | "cosign" | "go-http-client" => {
                Self::GoContainerregistry
            }
            "oras" | "oras-go" | "helm" => Self::Oras,
            "regclient" | "regctl" => Self::Regclient,
            _ if agent.contains("go-containerregistry") => Self::GoContainerregistry,
            _ => Self::Other,
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Buildkit => "buildkit",
            Self::ContainersImage => "containers-image",
            Self::GoContainerregistry => "go-containerregistry",
            Self::Oras => "oras",
            Self::Regclient => "regclient",
            Self::Other => "other",
        }
    }
}

// === impl Asker ===

impl Asker {
    pub const ALL: [Self; 3] = [Self::Namespace, Self::Mirror, Self::Direct];

    /// Who it is that sent a request of this form.
    pub fn of(form: Form, client: ClientKind) -> Self {
        match (form, client) {
            (Form::Ns, _) => Self::Namespace,
            (Form::Bare, ClientKind::Docker) => Self::Mirror,
            (Form::Bare | Form::Prefix | Form::Forward, _) => Self::Direct,
        }
    }

    pub fn can_fall_back(self) -> bool {
        match self {
            Self::Namespace | Self::Mirror => true,
            Self::Direct => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(user_agent: &str, expect: ClientKind) {
        assert_eq!(ClientKind::of(user_agent), expect, "{user_agent}");
    }

    #[test]
    fn each_client_is_known_by_its_agent() {
        is(
            "docker/28.5.2 go/go1.27.1 UpstreamClient(Docker-Client/28.5.2)",
            ClientKind::Docker,
        );
        is(
            "docker/29.0 containerd-client/2.1.9 storage-driver/overlayfs",
            ClientKind::Docker,
        );
        is("containerd/1.6.20~ds1", ClientKind::Containerd);
        is("containerd/v2.1.9", ClientKind::Containerd);
        is("buildkit/v0.23", ClientKind::Buildkit);
        is(
            "containers/5.36 (github.com/containers/image)",
            ClientKind::ContainersImage,
        );
        is("skopeo/1.9.3", ClientKind::ContainersImage);
        is("cri-o/1.30 go/1.22 os/linux", ClientKind::ContainersImage);
        is("Buildah/1.28.2", ClientKind::ContainersImage);
        is(
            "go-containerregistry/v0.20.7",
            ClientKind::GoContainerregistry,
        );
        is(
            "crane/0.20.7 go-containerregistry/0.20.7",
            ClientKind::GoContainerregistry,
        );
        is("Go-http-client/1.1", ClientKind::GoContainerregistry);
        is("oras/1.3.3", ClientKind::Oras);
        is("Helm/3.14", ClientKind::Oras);
        is("regclient/regctl (v0.9.1)", ClientKind::Regclient);
        is("curl/8", ClientKind::Other);
        is("dockerish/1", ClientKind::Other);
        is("", ClientKind::Other);
    }

    #[test]
    fn only_mirror_roles_fall_back() {
        let can = |form, client| Asker::of(form, client).can_fall_back();
        for client in ClientKind::ALL {
            assert!(can(Form::Ns, client));
            assert!(!can(Form::Prefix, client));
            assert!(!can(Form::Forward, client));
            assert_eq!(can(Form::Bare, client), client == ClientKind::Docker);
        }
    }
}
