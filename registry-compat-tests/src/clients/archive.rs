//! Compares what `docker save` and its kin write with the image that was pulled.
//!
//! A store that unpacked a layer writes the tar again, not the compressed blob; its digest is the
//! layer's diff id, which the image knows.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::PULL_LIMIT;
use crate::{content::digest_of_file, image::Platform, process};

/// Unpacks a docker archive and checks that its layers are those of `platform`, bottom first,
/// followed by `more` layers of the client's own.
pub(super) fn compare(archive: &Path, platform: &Platform, more: usize) -> Result<()> {
    let directory = tempfile::tempdir_in(archive.parent().context("an archive has a directory")?)?;
    let mut unpack = Command::new("tar");
    unpack
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(directory.path());
    process::check(unpack, PULL_LIMIT)?;
    let manifest = fs::read(directory.path().join("manifest.json"))?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let layers = manifest[0]["Layers"]
        .as_array()
        .context("no Layers in manifest.json")?;
    let mut found = Vec::new();
    for layer in layers {
        let name = layer.as_str().context("a layer without a name")?;
        found.push(digest_of_file(&directory.path().join(name))?);
    }
    ensure!(
        found.len() == platform.diff_ids.len() + more && found.starts_with(&platform.diff_ids),
        "layers differ: the client has {found:#?}, the image {:#?}",
        platform.diff_ids
    );
    Ok(())
}
