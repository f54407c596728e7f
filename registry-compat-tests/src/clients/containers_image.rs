//! podman, skopeo and buildah: one library, one `registries.conf`, three commands.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{MIRROR, Naming, PULL_LIMIT, Visit, archive};
use crate::{image::Image, process};

/// Options of podman and buildah that need neither overlay nor a user session.
const STORAGE: [&str; 2] = ["--storage-driver", "vfs"];

/// `podman pull`, then `podman save`.
pub(super) fn podman(visit: &Visit<'_>) -> Result<()> {
    let name = configure(visit)?;
    let directory = visit.empty_directory("/var/tmp/saved")?;
    client(visit, "podman", &["pull", "--quiet", &name])?;
    let save = [
        "save",
        "--format",
        "docker-archive",
        "--output",
        "/var/tmp/saved/image.tar",
        &name,
    ];
    client(visit, "podman", &save)?;
    archive::compare(&directory.join("image.tar"), visit.image.native()?, 0)
}

/// `buildah pull`, then `buildah push` into an archive.
pub(super) fn buildah(visit: &Visit<'_>) -> Result<()> {
    let name = configure(visit)?;
    let directory = visit.empty_directory("/var/tmp/saved")?;
    client(visit, "buildah", &["pull", "--quiet", &name])?;
    client(
        visit,
        "buildah",
        &[
            "push",
            &name,
            "docker-archive:/var/tmp/saved/image.tar:saved",
        ],
    )?;
    archive::compare(&directory.join("image.tar"), visit.image.native()?, 0)
}

/// `skopeo copy --all` into a directory: both platforms, every blob as it was sent. (Into a layout
/// skopeo would compress the layer that is not compressed.)
pub(super) fn skopeo(visit: &Visit<'_>) -> Result<()> {
    let name = configure(visit)?;
    let directory = visit.empty_directory("/var/tmp/copied")?;
    let mut copy = visit.command("skopeo");
    copy.args([
        "copy",
        "--all",
        "--quiet",
        &format!("docker://{name}"),
        "dir:/var/tmp/copied",
    ]);
    process::check(copy, PULL_LIMIT)?;
    compare_copy(visit.image, &directory)?;
    visit.empty_directory("/var/tmp/copied")?;
    Ok(())
}

/// `skopeo copy --all` of `name` into `directory`, beside the test and without any configuration.
pub(super) fn copy_without_configuration(
    name: &str,
    image: &Image,
    directory: &Path,
) -> Result<()> {
    let mut copy = process::command("skopeo");
    copy.args(["--insecure-policy", "copy", "--all", "--quiet"])
        .arg("--src-tls-verify=false")
        .arg(format!("docker://{name}"))
        .arg(format!("dir:{}", directory.display()));
    process::check(copy, PULL_LIMIT)?;
    compare_copy(image, directory)
}

/// `podman pull` of `name` into a store of its own in `directory`, beside the test, then
/// `podman save`.
pub(super) fn pull_without_configuration(
    name: &str,
    image: &Image,
    directory: &Path,
) -> Result<()> {
    let podman = |arguments: &[&str]| {
        let mut command = process::command("podman");
        command.arg("--root").arg(directory.join("store"));
        command.arg("--runroot").arg(directory.join("run"));
        command.args(STORAGE).args(arguments);
        process::check(command, PULL_LIMIT)
    };
    podman(&["pull", "--quiet", "--tls-verify=false", name])?;
    let saved = directory.join("image.tar");
    let output = format!("--output={}", saved.display());
    podman(&["save", "--format=docker-archive", &output, name])?;
    archive::compare(&saved, image.native()?, 0)
}

/// Checks that skopeo's `dir:` at `directory` has all of `image` as it was sent.
fn compare_copy(image: &Image, directory: &Path) -> Result<()> {
    let mut expected = vec![("manifest.json".to_owned(), &image.index.digest)];
    let blobs = image.blobs();
    for platform in &image.platforms {
        let digest = &platform.manifest.digest;
        expected.push((format!("{}.manifest.json", hex_of(digest)?), digest));
    }
    for blob in &blobs {
        expected.push((hex_of(&blob.digest)?.to_owned(), &blob.digest));
    }
    for (name, digest) in expected {
        let held = fs::read(directory.join(&name)).with_context(|| format!("no {name}"))?;
        ensure!(held == image.bytes(digest)?, "{digest} differs");
    }
    Ok(())
}

fn hex_of(digest: &str) -> Result<&str> {
    Ok(digest
        .split_once(':')
        .context("a digest has an algorithm")?
        .1)
}

/// Writes the configuration, empties the store, and says what the image is called.
fn configure(visit: &Visit<'_>) -> Result<String> {
    for path in [
        "/var/lib/containers",
        "/run/containers",
        "/run/libpod",
        "/etc/containers",
    ] {
        visit.empty_directory(path)?;
    }
    visit.room.write(
        "/etc/containers/policy.json",
        "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n",
    )?;
    visit.log_in(&visit.registry_name())?;
    let own = "/etc/containers/registries.conf";
    match visit.naming {
        Naming::Mirror(names) => visit.room.write(
            own,
            &format!(
                "[[registry]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\n\
                 location = \"{}\"\ninsecure = true\n",
                names.registry, names.location
            ),
        )?,
        Naming::Explicit(_) => visit.room.write(
            own,
            &format!("[[registry]]\nlocation = \"{MIRROR}\"\ninsecure = true\n"),
        )?,
        Naming::SetUp(set_up) => visit.write(&set_up.files)?,
        Naming::Own(own) => visit.write(&own.files)?,
        Naming::Secured(named) => named.write(visit.room)?,
    }
    Ok(visit.registry_name())
}

fn client(visit: &Visit<'_>, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = visit.command(program);
    command.args(STORAGE).args(arguments);
    process::check(command, PULL_LIMIT)
}
