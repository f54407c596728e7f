//! Eight hosts that want one image at once, two of them by real clients: each of its contents is asked
//! of the registry once.

use std::{net::SocketAddr, path::Path, thread};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run, clients, image::Image, process::wait_until, registry::Registry,
};

use super::{HERD_LIMIT, Herd, Shape};
use crate::{
    pull::{digest_through, joined},
    stage::workspace,
    two_clients::each_fetched_once,
    two_hosts::path,
};

const SHAPE: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed"],
    hosts: 8,
};

/// What a real client is told to have: the name of an image, the image, and where it may write.
type Client = fn(&str, &Image, &Path) -> Result<()>;

/// The clients of the first hosts; all others are raw ones.
const REAL: [(&str, Client); 2] = [("skopeo", clients::copy), ("podman", clients::pull)];

/// A raw client gets every blob of `image`, one after another.
fn pull_blobs(proxy: SocketAddr, image: &Image) -> Result<()> {
    for blob in image.blobs() {
        let digest = digest_through(proxy, &path(&blob))?;
        ensure!(digest == blob.digest, "wrong bytes: {digest}");
    }
    Ok(())
}

#[test]
fn eight_hosts_that_want_an_image_at_once_by_whatever_client_cost_each_content_once() -> Result<()>
{
    if !can_run(&["docker-registry", "podman", "setpriv", "skopeo"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let image = Image::small(&directory.path().join("image"), "herd")?;
    let content = directory.path().join("registry");
    let registry = Registry::start(&content)?;
    registry.push(&image, "team/sealed")?;
    registry.stop()?;
    let registry = Registry::start(&content)?;
    let herd = Herd::start(registry.address(), SHAPE)?;
    let proxies = herd.proxies()?;
    let (real, raw) = proxies.split_at(REAL.len());
    let pull = |proxy: &SocketAddr, (program, client): (&str, Client)| {
        let name = format!("{proxy}/registry.test/team/sealed:latest");
        let directory = directory.path().join(program);
        client(&name, &image, &directory).context(program.to_owned())
    };
    let pulled = thread::scope(|scope| {
        let pull = &pull;
        let real = real.iter().zip(REAL);
        let real: Vec<_> = real
            .map(|(proxy, client)| scope.spawn(move || pull(proxy, client)))
            .collect();
        // A program starts slowly: the others come when one of them has begun.
        let begun = wait_until("a real client has begun", HERD_LIMIT, || {
            registry
                .accesses()
                .is_ok_and(|accesses| !accesses.is_empty())
        });
        let raw = raw.iter();
        let raw: Vec<_> = raw
            .map(|proxy| scope.spawn(|| pull_blobs(*proxy, &image)))
            .collect();
        // All of them, so that none still runs while another's failure is told.
        let ends: Vec<_> = real.into_iter().chain(raw).map(joined).collect();
        begun?;
        ends.into_iter().collect::<Result<()>>()
    });
    herd.told(pulled.and_then(|()| each_fetched_once(&registry, &image)))
}
