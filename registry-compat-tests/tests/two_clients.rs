//! A whole image by real clients on two hosts at once: each of its contents is asked of the registry
//! once.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run, clients,
    cluster::{Cluster, Member},
    image::Image,
    process::wait_until,
    registry::Registry,
};

use crate::{pull::joined, stage::workspace, two_hosts::FLOW_LIMIT};

/// How often the registry was asked for the content with this digest, by whatever name.
fn fetches(registry: &Registry, digest: &str) -> Result<usize> {
    let accesses = registry.accesses()?;
    let is_fetch = |path: &str| path.ends_with(digest);
    let fetches = accesses.iter();
    let fetches = fetches.filter(|access| access.method == "GET" && is_fetch(&access.path));
    Ok(fetches.count())
}

/// Fails unless each content of `image` was asked of the registry exactly once.
pub(crate) fn each_fetched_once(registry: &Registry, image: &Image) -> Result<()> {
    let blobs = image.blobs().into_iter().map(|blob| blob.digest);
    let manifests = image.platforms.iter();
    let manifests = manifests.map(|platform| platform.manifest.digest.clone());
    for digest in blobs.chain(manifests).chain([image.index.digest.clone()]) {
        // The registry writes its log after the last byte has left.
        wait_until("the registry's log", FLOW_LIMIT, || {
            fetches(&registry, &digest).is_ok_and(|count| 0 < count)
        })?;
        let count = fetches(&registry, &digest)?;
        ensure!(count == 1, "{digest} was asked for {count} times");
    }
    Ok(())
}

#[test]
fn two_clients_that_copy_an_image_at_once_cost_the_registry_each_content_once() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv", "skopeo"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let image = Image::small(&directory.path().join("image"), "two clients")?;
    let content = directory.path().join("registry");
    let registry = Registry::start(&content)?;
    registry.push(&image, "team/both")?;
    registry.stop()?;
    let registry = Registry::start(&content)?;
    let cluster = Cluster::new(registry.address(), "scheduler", "seed")?;
    let hosts = [
        ("scheduler", Role::Scheduler),
        ("seed", Role::Seed),
        ("first", Role::Proxy),
        ("second", Role::Proxy),
    ];
    let hosts = hosts.map(|(id, role)| cluster.start(id, &[role]));
    let hosts: Vec<Member> = hosts.into_iter().collect::<Result<_>>()?;
    let copy = |host: &Member| {
        let name = format!("{}/registry.test/team/both:latest", host.darter.proxy()?);
        clients::copy(&name, &image, &directory.path().join(host.id()))
            .with_context(|| host.darter.log().unwrap_or_default())
    };
    thread::scope(|scope| {
        let copies: Vec<_> = hosts[2..]
            .iter()
            .map(|host| scope.spawn(|| copy(host)))
            .collect();
        let ends: Vec<_> = copies.into_iter().map(joined).collect();
        ends.into_iter().collect::<Result<()>>()
    })?;
    each_fetched_once(&registry, &image)?;
    let by_tag = fetches(&registry, "/manifests/latest")?;
    ensure!(by_tag == 0, "the tag was fetched {by_tag} times");
    Ok(())
}
