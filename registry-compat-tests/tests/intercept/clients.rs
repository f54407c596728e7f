//! Every client by the image's own name, in a room where only Darter can reach the registry.

use anyhow::{Context as _, Result};
use registry_compat_tests::{
    can_run,
    clients::{Client, MIRROR, Naming, Own, Reference, Visit},
    darter::{Darter, Home},
    namespace::{REGISTRY, Room},
    registry::Registry,
};

use super::{entry, papers::Papers};
use crate::stage::{PROGRAMS, golden, workspace};

const REGISTRY_NAME: &str = "registry.test:5000";

/// What a client has beside the proxy and what was installed for it.
#[derive(Debug, Default)]
struct More {
    files: Vec<(String, String)>,
    variables: Vec<(String, String)>,
}

/// Pulls `name`, whose registry is `registry`, by `client`, which `darter ca install RUNTIME` has
/// taught to trust Darter for it, and has this besides.
fn pulls(
    clients: &[(Client, &str)],
    (registry_name, name): (&str, &str),
    more: impl Fn(&Home) -> Result<More>,
) -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let golden = golden()?;
    let directory = workspace()?;
    let papers = Papers::of(&["registry.test", "registry-1.docker.io", "10.77.0.2"])?;
    for (client, runtime) in clients {
        let room = Room::open(&directory.path().join(format!("room-{client:?}")))?;
        let content = golden.registry_directory();
        let start = |program: &str| room.registry(program);
        let address = room.registry_address();
        let registry = Registry::start_with(&papers.tls(), &content, address, start)?;
        let home = Home::new()?;
        let config = format!(
            "[proxy]\nintercept = [\"{REGISTRY_NAME}\", \"docker.io\"]\n{}{}",
            entry(REGISTRY_NAME, REGISTRY, &papers),
            entry("docker.io", REGISTRY, &papers),
        );
        let darter = Darter::in_room_with(&config, &room, &home)?;
        let More {
            mut files,
            mut variables,
        } = more(&home)?;
        variables.push(("HTTPS_PROXY".to_owned(), format!("http://{MIRROR}")));
        if !runtime.is_empty() {
            files.extend(home.ca_install(runtime, registry_name)?);
        }
        let visit = Visit {
            room: &room,
            image: &golden.image,
            naming: &Naming::Own(Own {
                name: name.to_owned(),
                files,
                variables,
            }),
            reference: Reference::Tag,
        };
        let pulled = client.pull(&visit);
        pulled.with_context(|| darter.log().unwrap_or_default())?;
        registry.asked_only_by("darter/")?;
        darter.stop()?;
        registry.stop()?;
    }
    Ok(())
}

fn nothing_more(_: &Home) -> Result<More> {
    Ok(More::default())
}

#[test]
fn every_client_pulls_from_an_intercepted_registry_by_its_own_name() -> Result<()> {
    let clients = [
        (Client::Dockerd, "docker"),
        (Client::Buildkit, "docker"),
        (Client::Ctr, "containerd"),
        (Client::Cri, "containerd"),
        (Client::Podman, "podman"),
        (Client::Skopeo, "podman"),
        (Client::Buildah, "podman"),
    ];
    let name = format!("{REGISTRY_NAME}/team/sealed");
    pulls(&clients, (REGISTRY_NAME, &name), nothing_more)
}

#[test]
fn podman_and_containerd_pull_from_docker_hub_that_is_intercepted() -> Result<()> {
    let clients = [(Client::Podman, "podman"), (Client::Ctr, "containerd")];
    let name = "docker.io/library/sealed";
    pulls(&clients, ("docker.io", name), nothing_more)
}

/// dockerd has no directory for docker.io: its unit is given one for the whole process.
#[test]
fn dockerd_pulls_from_docker_hub_with_the_directory_that_install_tells_of() -> Result<()> {
    let trust = |home: &Home| {
        let files = vec![(
            "/etc/docker/trust/darter-ca.pem".to_owned(),
            home.ca_of("docker.io")?,
        )];
        let directories = "/etc/docker/trust:/etc/ssl/certs".to_owned();
        let variables = vec![("SSL_CERT_DIR".to_owned(), directories)];
        Ok(More { files, variables })
    };
    pulls(&[(Client::Dockerd, "")], ("docker.io", "sealed"), trust)
}
