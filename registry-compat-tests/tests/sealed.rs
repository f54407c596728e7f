//! Every client through Darter, in a room where only Darter can reach the registry: cold, and
//! again, with an empty store of its own, when the registry is gone and Darter has been started
//! anew.

use anyhow::{Context as _, Result};
use registry_compat_tests::{
    can_run,
    clients::{Client, Mirrored, Naming, Reference, SetUp, Visit},
    darter::{Darter, Home},
};

use crate::stage::{PROGRAMS, Stage};

/// A tag that was revalidated before, and what it stood for.
const BOTH: [Reference; 2] = [Reference::Tag, Reference::Digest];

/// The image by its own names, each client's mirror being Darter. The library of podman, skopeo
/// and buildah takes no port inside a path, so there the registry has a second name without one.
fn mirrored() -> Naming {
    Naming::Mirror(Mirrored {
        hub: "sealed".to_owned(),
        registry: "registry.test:5000".to_owned(),
        repository: "team/sealed".to_owned(),
        location: "localhost:65001/registry.test".to_owned(),
    })
}

fn pulls(client: Client, naming: &Naming) -> Result<()> {
    pulls_again_by(client, naming, &[Reference::Tag])
}

/// Pulls by tag, and once the registry is gone and Darter has restarted by each of `references`.
fn pulls_again_by(client: Client, naming: &Naming, references: &[Reference]) -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let stage = Stage::sealed()?;
    let home = Home::new()?;
    let darter = Darter::in_room(&stage.room, &home)?;
    let visit = Visit {
        room: &stage.room,
        image: &stage.golden.image,
        naming,
        reference: Reference::Tag,
        login: None,
    };
    let told = |darter: &Darter| darter.log().unwrap_or_default();
    client.pull(&visit).with_context(|| told(&darter))?;
    stage.registry.asked_only_by("darter/")?;
    stage.registry.stop()?;
    darter.stop()?;
    let darter = Darter::in_room(&stage.room, &home)?;
    for &reference in references {
        let visit = Visit { reference, ..visit };
        client
            .pull(&visit)
            .with_context(|| format!("upstream gone\n{}", told(&darter)))?;
    }
    darter.stop()
}

#[test]
fn dockerd_pulls_through_darter_also_when_the_registry_is_gone() -> Result<()> {
    pulls(Client::Dockerd, &mirrored())
}

#[test]
fn buildkit_builds_through_darter_also_when_the_registry_is_gone() -> Result<()> {
    pulls(Client::Buildkit, &mirrored())
}

#[test]
fn ctr_pulls_through_darter_also_when_the_registry_is_gone() -> Result<()> {
    pulls_again_by(Client::Ctr, &mirrored(), &BOTH)
}

#[test]
fn cri_pulls_through_darter_also_when_the_registry_is_gone() -> Result<()> {
    pulls(Client::Cri, &mirrored())
}

#[test]
fn podman_pulls_through_darter_also_when_the_registry_is_gone() -> Result<()> {
    pulls_again_by(Client::Podman, &mirrored(), &BOTH)
}

#[test]
fn skopeo_copies_through_darter_also_when_the_registry_is_gone() -> Result<()> {
    pulls(Client::Skopeo, &mirrored())
}

#[test]
fn buildah_pulls_through_darter_also_when_the_registry_is_gone() -> Result<()> {
    pulls(Client::Buildah, &mirrored())
}

/// Docker's grammar has no port inside a path, so the registry is named without one.
#[test]
fn every_client_pulls_an_explicit_name_through_darter() -> Result<()> {
    for client in Client::ALL {
        pulls(
            client,
            &Naming::Explicit("registry.test/team/sealed".to_owned()),
        )?;
    }
    Ok(())
}

/// What is written is the whole configuration of the client but for its storage.
#[test]
fn a_client_pulls_through_darter_with_no_more_than_the_files_that_setup_writes() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let stage = Stage::sealed()?;
    let home = Home::new()?;
    let darter = Darter::in_room(&stage.room, &home)?;
    for (runtime, client) in [
        ("docker", Client::Dockerd),
        ("containerd", Client::Ctr),
        ("podman", Client::Podman),
    ] {
        let files = home.setup(runtime, &[])?;
        let hub = "sealed".to_owned();
        let visit = Visit {
            room: &stage.room,
            image: &stage.golden.image,
            naming: &Naming::SetUp(SetUp { hub, files }),
            reference: Reference::Tag,
            login: None,
        };
        let pulled = client.pull(&visit);
        pulled.with_context(|| darter.log().unwrap_or_default())?;
    }
    stage.registry.asked_only_by("darter/")?;
    darter.stop()
}
