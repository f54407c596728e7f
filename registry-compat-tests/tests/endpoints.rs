//! One registry name before several docker-registries: the first that has it gives it.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    content::{digest_of, noise},
    darter::{Darter, Home},
    http::Request,
    image::MANIFEST_TYPE,
    registry::{Registry, free_address},
    relay::Relay,
};
use tempfile::TempDir;

use crate::{herd::alone, pull::digest_through};

/// A registry that has one blob, or nothing.
struct Near {
    registry: Registry,
    _directory: TempDir,
}

/// What the registries have: a blob, and a document that stands for a manifest, tagged.
struct Content {
    blob: Vec<u8>,
    document: Vec<u8>,
}

const DOCUMENT: &str = "/v2/team/app/manifests/latest?ns=registry.test";

// === impl Near ===

impl Near {
    fn start(content: Option<&Content>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let registry = Registry::start(directory.path())?;
        if let Some(content) = content {
            content.push(&registry, directory.path())?;
        }
        Ok(Self {
            registry,
            _directory: directory,
        })
    }

    fn address(&self) -> SocketAddr {
        self.registry.address()
    }
}

// === impl Content ===

impl Content {
    fn new(seed: &str) -> Result<Self> {
        let blob = noise(seed, 3_000_000)?;
        let descriptor = |media_type: &str| {
            format!(
                r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
                digest_of(&blob),
                blob.len(),
            )
        };
        let document = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{},"layers":[{}]}}"#,
            descriptor("application/vnd.oci.image.config.v1+json"),
            descriptor("application/vnd.oci.image.layer.v1.tar"),
        );
        let document = document.into_bytes();
        Ok(Self { blob, document })
    }

    fn push(&self, registry: &Registry, directory: &Path) -> Result<()> {
        let file = directory.join("blob");
        std::fs::write(&file, &self.blob)?;
        registry.push_blob("team/app", &digest_of(&self.blob), &file)?;
        registry.push_manifest("team/app", "latest", MANIFEST_TYPE, &self.document)
    }

    /// A node before `endpoints` gives both.
    fn comes_from(&self, endpoints: &[SocketAddr]) -> Result<(Darter, Home)> {
        let home = Home::new()?;
        let darter = Darter::run(&config(&home, endpoints)?, &home)?;
        let told = Request::get(DOCUMENT).fetch(darter.proxy()?)?;
        ensure!(told.status == 200, "{}: {}", told.status, told.text());
        ensure!(told.body == self.document, "another document");
        let digest = digest_of(&self.blob);
        let path = format!("/v2/team/app/blobs/{digest}?ns=registry.test");
        let seen = digest_through(darter.proxy()?, &path);
        let seen = seen.with_context(|| darter.log().unwrap_or_default())?;
        ensure!(seen == digest, "wrong bytes: {seen}");
        Ok((darter, home))
    }
}

/// Nobody waits long for anything.
fn config(home: &Home, endpoints: &[SocketAddr]) -> Result<String> {
    let nowhere = free_address()?;
    let single = format!("endpoint = \"http://{nowhere}\"");
    let all: Vec<String> = endpoints
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    let alone = alone(home, nowhere);
    let several = alone.replace(&single, &format!("endpoints = {all:?}"));
    ensure!(several != alone, "no endpoint stands there");
    let short = "[proxy]\nupstream_stall_timeout = \"1s\"\nupstream_fallback_timeout = \"4s\"\n";
    Ok(several.replace("[proxy]\n", short))
}

#[test]
fn a_registry_that_is_down_or_has_nothing_is_passed_over_for_the_next() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let content = Content::new("endpoints")?;
    let (empty, far) = (Near::start(None)?, Near::start(Some(&content))?);
    let endpoints = [free_address()?, empty.address(), far.address()];
    let (darter, _home) = content.comes_from(&endpoints)?;
    ensure!(1.0 <= darter.metric("darter_source_failovers_total")?);
    empty.registry.asked_only_by("darter/")?;
    let fetched = far.registry.fetches_of(&digest_of(&content.blob))?;
    ensure!(fetched == 1, "{fetched} fetches");
    darter.stop()
}

#[test]
fn the_nearest_registry_is_the_only_one_asked_while_it_has_all() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let content = Content::new("nearest")?;
    let near = Near::start(Some(&content))?;
    let far = Near::start(Some(&content))?;
    let (darter, _home) = content.comes_from(&[near.address(), far.address()])?;
    let mut asked = far.registry.accesses()?;
    asked.retain(|access| access.agent.starts_with("darter/"));
    ensure!(asked.is_empty(), "{asked:?}");
    darter.stop()
}

#[test]
fn a_registry_that_stops_in_the_middle_of_a_blob_is_left_for_the_next() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let content = Content::new("stops")?;
    let near = Near::start(Some(&content))?;
    let far = Near::start(Some(&content))?;
    let relay = Relay::start(near.address(), content.blob.len() as u64 / 2)?;
    let (darter, _home) = content.comes_from(&[relay.address(), far.address()])?;
    ensure!(relay.bodies() == 1, "{} bodies", relay.bodies());
    let digest = digest_of(&content.blob);
    let fetched = [&near, &far].map(|one| one.registry.fetches_of(&digest));
    let [Ok(_), Ok(1)] = fetched else {
        anyhow::bail!("{fetched:?}");
    };
    // What had come before was not fetched again.
    let bytes = darter.metric("darter_source_bytes_total")?;
    let whole = (content.blob.len() + content.document.len()) as f64;
    ensure!(bytes < whole * 1.2, "{bytes} bytes for {whole}");
    darter.stop()
}
