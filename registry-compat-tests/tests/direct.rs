//! The harness proven without Darter: every client pulls from a registry that itself listens on
//! the mirror's port, and the room keeps everybody but one user from the registry behind it.

use std::time::Duration;

use anyhow::{Result, ensure};
use registry_compat_tests::{
    can_run,
    clients::{Client, Mirrored, Naming, Reference, Visit},
    namespace::{DARTER_UID, REGISTRY},
    process,
};

use crate::stage::{PROGRAMS, Stage};

/// As [`crate::stage::mirrored`], but a plain registry knows no registry's name in a path.
fn plain() -> Naming {
    Naming::Mirror(Mirrored {
        hub: "sealed".to_owned(),
        registry: "registry.test:5000".to_owned(),
        repository: "team/sealed".to_owned(),
        location: "localhost:65001".to_owned(),
    })
}

fn pulls(client: Client, naming: &Naming, agent: &str) -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let stage = Stage::direct()?;
    client.pull(&Visit {
        room: &stage.room,
        image: &stage.golden.image,
        naming,
        reference: Reference::Tag,
        login: None,
    })?;
    stage.registry.asked_only_by(agent)
}

#[test]
fn dockerd_pulls_from_a_plain_mirror() -> Result<()> {
    pulls(Client::Dockerd, &plain(), "docker/")
}

#[test]
fn buildkit_builds_from_a_plain_mirror() -> Result<()> {
    pulls(Client::Buildkit, &plain(), "")
}

#[test]
fn ctr_pulls_from_a_plain_mirror() -> Result<()> {
    pulls(Client::Ctr, &plain(), "containerd/")
}

#[test]
fn cri_pulls_from_a_plain_mirror() -> Result<()> {
    pulls(Client::Cri, &plain(), "containerd/")
}

#[test]
fn podman_pulls_from_a_plain_mirror() -> Result<()> {
    pulls(Client::Podman, &plain(), "containers/")
}

#[test]
fn skopeo_copies_from_a_plain_mirror() -> Result<()> {
    pulls(Client::Skopeo, &plain(), "skopeo/")
}

#[test]
fn buildah_pulls_from_a_plain_mirror() -> Result<()> {
    pulls(Client::Buildah, &plain(), "Buildah/")
}

#[test]
fn every_client_pulls_an_explicit_name() -> Result<()> {
    for client in Client::ALL {
        pulls(client, &Naming::Explicit("team/sealed".to_owned()), "")?;
    }
    Ok(())
}

#[test]
fn only_the_user_of_darter_reaches_the_registry_from_a_room() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let stage = Stage::sealed()?;
    let limit = Duration::from_secs(20);
    let arguments = [
        "--silent",
        "--show-error",
        "--max-time",
        "5",
        "--user-agent",
    ];
    let address = format!("http://{REGISTRY}/v2/");
    for host in [&address, "http://registry.test:5000/v2/"] {
        let mut client = stage.room.client("curl");
        client.args(arguments).args(["client", host]);
        let refused = process::run(client, limit)?;
        ensure!(
            !refused.status.success(),
            "a client reached the registry by {host}"
        );
    }
    let mut darter = stage.room.darter("curl");
    darter.args(arguments).args(["darter", "--fail", &address]);
    process::check(darter, limit)?;
    let mut identity = stage.room.darter("id");
    identity.arg("-u");
    ensure!(process::check(identity, limit)?.trim() == DARTER_UID.to_string());
    stage.registry.asked_only_by("darter")
}
