//! Every client by the image's own name, in a room where only Darter can reach the registry.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    clients::{Client, MIRROR, Naming, Own, Reference, Visit},
    darter::{Darter, Home},
    namespace::{REGISTRY, Room},
    process,
    registry::Registry,
};

use super::{LIMIT, entry, papers::Papers};
use crate::stage::{PROGRAMS, golden, workspace};

const REGISTRY_NAME: &str = "registry.test:5000";

/// What a client has beside the proxy and what was installed for it.
#[derive(Debug, Default)]
struct More {
    files: Vec<(String, String)>,
    variables: Vec<(String, String)>,
}

/// A room with a registry that shows its own certificate, which only Darter can reach, and a Darter
/// that answers for it and for docker.io.
struct Scene {
    room: Room,
    registry: Registry,
    home: Home,
    darter: Darter,
}

// === impl Scene ===

impl Scene {
    fn open(directory: &Path, content: &Path, papers: &Papers) -> Result<Self> {
        let room = Room::open(directory)?;
        let start = |program: &str| room.registry(program);
        let address = room.registry_address();
        let registry = Registry::start_with(&papers.tls(), content, address, start)?;
        let home = Home::new()?;
        let config = format!(
            "[proxy]\nintercept = [\"{REGISTRY_NAME}\", \"docker.io\", \"{REGISTRY}\"]\n{}{}{}",
            entry(REGISTRY_NAME, REGISTRY, papers),
            entry("docker.io", REGISTRY, papers),
            entry(REGISTRY, REGISTRY, papers),
        );
        let darter = Darter::in_room_with(&config, &room, &home)?;
        Ok(Self {
            room,
            registry,
            home,
            darter,
        })
    }
}

fn papers() -> Result<Papers> {
    Papers::of(&["registry.test", "registry-1.docker.io", "10.77.0.2"])
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
    let papers = papers()?;
    for (client, runtime) in clients {
        let own = directory.path().join(format!("room-{client:?}"));
        let content = golden.registry_directory();
        let Scene {
            room,
            registry,
            home,
            darter,
        } = Scene::open(&own, &content, &papers)?;
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
            login: None,
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

/// It trusts the registry's own authority and not ours. The registry is called by its address, since
/// Darter knows no other name for it here.
#[test]
fn a_client_in_go_that_does_not_trust_us_is_passed_on_the_next_time() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let (directory, papers) = (workspace()?, papers()?);
    let content = directory.path().join("registry");
    let scene = Scene::open(&directory.path().join("room"), &content, &papers)?;
    let authority = fs::read_to_string(papers.ca())?;
    scene.room.write("/root/trust/ca.crt", &authority)?;
    let inspect = || -> Result<String> {
        let mut inspect = scene.room.client("skopeo");
        inspect.env("HTTPS_PROXY", format!("http://{MIRROR}"));
        inspect.args(["inspect", "--cert-dir", "/root/trust"]);
        inspect.arg(format!("docker://{REGISTRY}/team/none:latest"));
        Ok(process::run(inspect, LIMIT)?.output)
    };
    let first = inspect()?;
    ensure!(first.contains("x509: "), "{first}");
    let second = inspect()?;
    ensure!(
        second.contains("manifest unknown"),
        "{second}\n{}",
        scene.darter.log()?
    );
    scene.registry.asked_only_by("skopeo/")?;
    scene.darter.stop()
}
