//! A host that is killed at random moments of pulls: after a restart it serves what verifies, or
//! fetches it again; never a wrong byte, never a hang.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use registry_compat_tests::{
    can_run,
    content::digest_of,
    darter::{Darter, Home},
    http::{Ending, Request},
    image::{Blob, Image},
    registry::Registry,
};

use crate::{herd::alone, stage::workspace};

/// Kills, in all; each is a moment of its own.
const KILLS: u64 = 200;

/// A store lives through so many kills before an empty one takes its place.
const KILLS_PER_STORE: u64 = 4;

/// The latest moment of a kill after the pull began; a small image is whole by then.
const MOMENT_MS_MAX: u64 = 60;

/// Whatever comes of a pull that is cut is fine, but for a complete body of wrong bytes.
fn pull(proxy: SocketAddr, blob: &Blob) -> Result<bool> {
    let path = format!("/v2/team/small/blobs/{}?ns=registry.test", blob.digest);
    match Request::get(&path).fetch(proxy) {
        Ok(whole) if whole.status == 200 && whole.ending == Ending::Complete => {
            ensure!(
                digest_of(&whole.body) == blob.digest,
                "wrong bytes of {}",
                blob.digest
            );
            Ok(true)
        }
        Ok(_) | Err(_) => Ok(false),
    }
}

#[test]
fn whenever_it_is_killed_it_serves_right_bytes_after_the_restart() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let image = Image::small(&directory.path().join("image"), "kill")?;
    let registry = Registry::start(&directory.path().join("registry"))?;
    registry.push(&image, "team/small")?;
    let blobs = image.blobs();
    let mut home = Home::new()?;
    for seed in 0..KILLS {
        if seed % KILLS_PER_STORE == 0 {
            home = Home::new()?;
        }
        let config = alone(&home, registry.address());
        let mut random = StdRng::seed_from_u64(seed);
        let moment = Duration::from_millis(random.random_range(0..MOMENT_MS_MAX));
        let darter = Darter::run(&config, &home)?;
        let proxy = darter.proxy()?;
        thread::scope(|scope| {
            let pulls: Vec<_> = blobs
                .iter()
                .map(|blob| scope.spawn(move || pull(proxy, blob)))
                .collect();
            thread::park_timeout(moment);
            darter.kill()?;
            pulls
                .into_iter()
                .try_for_each(|pull| pull.join().ok().context("a pull panicked")?.map(drop))
        })
        .with_context(|| format!("seed {seed}"))?;
        let darter = Darter::run(&config, &home)?;
        let proxy = darter.proxy()?;
        for blob in &blobs {
            ensure!(
                pull(proxy, blob)?,
                "seed {seed}: {} does not come\n{}",
                blob.digest,
                darter.log()?
            );
        }
        darter.kill()?;
    }
    Ok(())
}
