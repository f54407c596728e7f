//! The store has no room, loses it, or loses a task under bodies that run: they go on from the
//! registry, whole and right or not at all.

use std::{fs, io::Write as _, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use registry_compat_tests::{
    can_run,
    content::{digest_of, noise},
    darter::{Darter, Home},
    fault_registry::{Fault, FaultRegistry, On, Sluice, Times},
    http::{Ending, Request},
    process::{self, wait_until},
};
use tempfile::TempDir;

use crate::{
    halfway::Halfway,
    herd::alone,
    pull::digest_through,
    stage::{golden, workspace},
    two_hosts::{FLOW_LIMIT, Pair, path},
};

/// What a host logs when a body leaves the store.
const ON_ITS_OWN: &str = "a body goes on without the store";

const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// A small file system in memory.
pub(crate) struct Small(TempDir);

// === impl Small ===

impl Small {
    pub(crate) fn mount(size: u64) -> Result<Self> {
        let directory = workspace()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "darter-test"]);
        mount.arg(directory.path());
        process::check(mount, COMMAND_LIMIT)?;
        Ok(Self(directory))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all that is left of it.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut ballast = fs::File::create(self.0.path().join("ballast"))?;
        let block = vec![0; 64 << 10];
        loop {
            if let Err(error) = ballast.write_all(&block) {
                let is_full = error.kind() == std::io::ErrorKind::StorageFull;
                return is_full.then_some(()).context(error);
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        unmount.arg(self.0.path());
        if let Err(error) = process::check(unmount, COMMAND_LIMIT) {
            eprintln!("a small file system is left behind: {error:#}");
        }
    }
}

/// How many bodies of `darter` have left its store.
pub(crate) fn on_their_own(darter: &Darter) -> Result<usize> {
    Ok(darter.log()?.matches(ON_ITS_OWN).count())
}

/// `cache rm`, as an operator says it.
fn remove(home: &Home, digest: &str) -> Result<()> {
    process::check(home.operate(&["cache", "rm", digest]), COMMAND_LIMIT).map(drop)
}

fn with_swarm(config: &str, keys: &str) -> String {
    config.replacen("[swarm]\n", &format!("[swarm]\n{keys}\n"), 1)
}

#[test]
fn what_is_larger_than_the_quota_comes_whole_and_is_not_kept() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let host = Halfway::start(|config| with_swarm(&config, "storage_quota = \"1MiB\""))?;
    ensure!(1 << 20 < host.blob.size, "the layer is too small");
    host.pull_while(|| Ok(()))?;
    let path = path(&host.blob);
    let part = Request::get(&path).header("Range", "bytes=1000-1999");
    let part = part.fetch(host.proxy)?;
    ensure!(part.status == 206 && part.ending == Ending::Complete);
    let whole = Request::get(&path).fetch(host.proxy)?;
    ensure!(part.body == whole.body[1000..2000], "another part");
    let cached = host.home.cached()?;
    let is_kept = cached.iter().any(|entry| entry.digest == host.blob.digest);
    ensure!(!is_kept, "{cached:?}");
    Ok(())
}

#[test]
fn bodies_go_on_when_the_disk_fills_under_them() -> Result<()> {
    if !can_run(&["docker-registry", "mount", "setpriv", "umount"])? {
        return Ok(());
    }
    let size = golden()?.image.biggest()?.size;
    let disk = Small::mount(size + (64 << 20))?;
    let host = Halfway::start(|config| on_disk(&config, disk.path()))?;
    host.pull_while(|| disk.fill())?;
    let left = on_their_own(&host.darter)?;
    ensure!(left == 2, "{left} bodies went on by themselves");
    // The store is no better now, and whoever comes is served nevertheless.
    let digest = digest_through(host.proxy, &path(&host.blob))?;
    ensure!(digest == host.blob.digest, "wrong bytes: {digest}");
    Ok(())
}

fn on_disk(config: &str, directory: &Path) -> String {
    let (_, rest) = config.split_once('\n').unwrap_or_default();
    let config = format!("data_dir = {directory:?}\n{rest}");
    with_swarm(&config, "min_free = \"0B\"")
}

#[test]
fn bodies_go_on_when_their_content_is_removed_and_the_next_is_kept_anew() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let host = Halfway::start(|config| config)?;
    host.pull_while(|| remove(&host.home, &host.blob.digest))?;
    let left = on_their_own(&host.darter)?;
    ensure!(left == 2, "{left} bodies went on by themselves");
    let digest = digest_through(host.proxy, &path(&host.blob))?;
    ensure!(digest == host.blob.digest, "wrong bytes: {digest}");
    let cached = host.home.cached()?;
    let kept = cached.iter().find(|kept| kept.digest == host.blob.digest);
    ensure!(kept.is_some_and(|kept| kept.is_complete), "{cached:?}");
    Ok(())
}

#[test]
fn a_body_of_a_host_that_is_fed_by_another_goes_on_as_well() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let half = golden()?.image.biggest()?.size / 2;
    let pair = Pair::together_before_gate(half)?;
    let (blob, fed) = (pair.blob()?, &pair.second);
    let mut answer = Request::get(&path(&blob)).send(fed.darter.proxy()?)?;
    let begun = answer.read_exactly(1)?;
    remove(&fed.home, &blob.digest)?;
    pair.relay.open();
    let rest = answer.whole()?;
    let digest = digest_of(&[begun, rest.body].concat());
    ensure!(digest == blob.digest, "{:?}\n{}", rest.ending, pair.logs());
    ensure!(on_their_own(&fed.darter)? == 1, "{}", pair.logs());
    Ok(())
}

#[test]
fn a_body_whose_rest_is_wrong_does_not_end_as_if_it_were_whole() -> Result<()> {
    if !can_run(&["setpriv"])? {
        return Ok(());
    }
    let (registry, home) = (FaultRegistry::start()?, Home::new()?);
    let body = noise("wrong rest", 8 << 20)?;
    let digest = digest_of(&body);
    registry.put_blob(&digest, body.clone());
    let sluice = Sluice::at(body.len() / 2);
    let held = Fault::Sluiced(sluice.clone());
    registry.fail(On::Get, &digest, Times::First(1), held);
    // The rest is asked for once the content is removed.
    registry.fail(On::Get, &digest, Times::First(1), Fault::WrongByte(0));
    let darter = Darter::run(&alone(&home, registry.address()), &home)?;
    let path = format!("/v2/team/wrong/blobs/{digest}?ns=registry.test");
    let mut answer = Request::get(&path).send(darter.proxy()?)?;
    let begun = answer.read_exactly(1 << 20)?;
    remove(&home, &digest)?;
    sluice.open();
    let rest = answer.whole()?;
    let told = || darter.log().unwrap_or_default();
    ensure!(on_their_own(&darter)? == 1, "{}", told());
    ensure!(
        rest.ending == Ending::Short,
        "{:?}\n{}",
        rest.ending,
        told()
    );
    ensure!(begun.len() + rest.body.len() < body.len());
    wait_until("two fetches", FLOW_LIMIT, || {
        registry.asked(&digest).len() >= 2
    })?;
    let asked = registry.asked(&digest);
    let Some(range) = asked.last().and_then(|asked| asked.range.clone()) else {
        bail!("the rest was asked for from the start: {asked:?}");
    };
    ensure!(
        range.starts_with("bytes=") && range != "bytes=0-",
        "{range}"
    );
    Ok(())
}
