//! SIGHUP to a node before real registries: what is taken over, and what stays as it was.

use std::{fs, net::SocketAddr, path::Path, sync::atomic::AtomicU64, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    authority::TestAuthority,
    can_run,
    content::{digest_of, noise},
    darter::{Darter, Home},
    http::Request,
    process::{self, wait_until},
    registry::{Registry, free_address},
    relay::Relay,
};

use crate::{
    herd::alone,
    pull::{digest_while, joined},
};

const LIMIT: Duration = Duration::from_secs(20);

/// Has the node read `config`, and waits until it has: `outcome` counts one more.
pub(crate) fn reload(darter: &Darter, home: &Home, config: &str, outcome: &str) -> Result<()> {
    home.write("darter.toml", config)?;
    hang_up(darter, outcome)
}

/// As [`reload`], with the configuration as it lies there.
pub(crate) fn hang_up(darter: &Darter, outcome: &str) -> Result<()> {
    let metric = format!("darter_reloads_total{{outcome=\"{outcome}\"");
    let before = darter.metric(&metric)?;
    darter.signal("HUP")?;
    wait_until(outcome, LIMIT, || {
        darter.metric(&metric).is_ok_and(|count| before < count)
    })
    .with_context(|| darter.log().unwrap_or_default())
}

fn push(registry: &Registry, directory: &Path, seed: &str) -> Result<(String, u64)> {
    let bytes = noise(seed, 3_000_000)?;
    let file = directory.join(seed);
    fs::write(&file, &bytes)?;
    let digest = digest_of(&bytes);
    registry.push_blob("team/app", &digest, &file)?;
    Ok((digest, bytes.len() as u64))
}

fn path(registry: &str, digest: &str) -> String {
    format!("/v2/{registry}/team/app/blobs/{digest}")
}

fn status(darter: &Darter, registry: &str, digest: &str) -> Result<u16> {
    let whole = Request::get(&path(registry, digest)).fetch(darter.proxy()?)?;
    let is_right = whole.status != 200 || digest_of(&whole.body) == digest;
    ensure!(is_right, "wrong bytes");
    Ok(whole.status)
}

/// As `config`, with one more registry.
fn with_registry(config: &str, name: &str, address: SocketAddr) -> String {
    let entry = format!("[[proxy.registry]]\nname = {name:?}\nendpoint = \"http://{address}\"\n");
    config.replace("[swarm]", &format!("{entry}[swarm]"))
}

#[test]
fn a_registry_is_added_by_a_reload_and_a_broken_file_changes_nothing() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let (directory, home) = (tempfile::tempdir()?, Home::new()?);
    let registry = Registry::start(directory.path())?;
    let (digest, _) = push(&registry, directory.path(), "added")?;
    let config = alone(&home, free_address()?);
    let darter = Darter::run(&config, &home)?;
    ensure!(status(&darter, "other.test", &digest)? == 403);
    let more = with_registry(&config, "other.test", registry.address());
    reload(&darter, &home, &more, "applied")?;
    ensure!(status(&darter, "other.test", &digest)? == 200);
    for broken in [
        "data_dir = ",
        "[proxy]\nno_such_key = 1\n",
        &with_registry(&config, "a b", registry.address()),
    ] {
        reload(&darter, &home, broken, "refused")?;
        ensure!(status(&darter, "other.test", &digest)? == 200);
    }
    ensure!(
        darter.log()?.contains("no_such_key"),
        "nothing is told of it"
    );
    // What cannot be taken over is named, and the rest is.
    let moved = config.replace(
        "[admin]\nlisten = \"127.0.0.1:0\"",
        "[admin]\nlisten = \"127.0.0.1:7\"",
    );
    ensure!(moved != config, "no such listener");
    reload(&darter, &home, &moved, "applied")?;
    ensure!(
        darter.log()?.contains("\"keys\":\"admin.listen\""),
        "{}",
        darter.log()?
    );
    ensure!(status(&darter, "other.test", &digest)? == 403);
    darter.stop()
}

#[test]
fn a_body_under_way_goes_on_when_its_registry_is_taken_out() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let (directory, home) = (tempfile::tempdir()?, Home::new()?);
    let registry = Registry::start(directory.path())?;
    let (digest, size) = push(&registry, directory.path(), "running")?;
    let relay = Relay::start(registry.address(), size / 2)?;
    let config = alone(&home, free_address()?);
    let darter = Darter::run(
        &with_registry(&config, "other.test", relay.address()),
        &home,
    )?;
    let (proxy, path) = (darter.proxy()?, path("other.test", &digest));
    let taken = AtomicU64::new(0);
    thread::scope(|scope| {
        let client = scope.spawn(|| digest_while(proxy, &path, &taken));
        let acted = wait_until("it is half way", LIMIT, || relay.bodies() == 1)
            .and_then(|()| reload(&darter, &home, &config, "applied"));
        relay.open();
        let seen = joined(client);
        acted?;
        let seen = seen?;
        ensure!(seen == digest, "wrong bytes: {seen}");
        Ok(())
    })?;
    ensure!(relay.bodies() == 1, "it began anew");
    darter.stop()
}

/// A new authority and a certificate of it for the loopback, in the files that were there before.
fn write_papers(directory: &Path) -> Result<()> {
    let ca = TestAuthority::new()?;
    let leaf = ca.issue(&["127.0.0.1"])?;
    fs::write(directory.join("ca.pem"), ca.pem())?;
    fs::write(directory.join("leaf.pem"), leaf.certificate)?;
    fs::write(directory.join("leaf.key"), leaf.key)?;
    Ok(())
}

#[test]
fn a_registry_with_another_authority_is_believed_after_a_reload() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let (directory, home) = (tempfile::tempdir()?, Home::new()?);
    let at = |name: &str| directory.path().join(name);
    let plain = Registry::start(directory.path())?;
    let (first, _) = push(&plain, directory.path(), "first")?;
    let (second, _) = push(&plain, directory.path(), "second")?;
    plain.stop()?;
    let address = free_address()?;
    let tls = format!(
        "  tls: {{certificate: {:?}, key: {:?}}}\n",
        at("leaf.pem"),
        at("leaf.key")
    );
    let start = || {
        write_papers(directory.path())?;
        Registry::start_with(&tls, directory.path(), address, |program| {
            process::command(program)
        })
    };
    let registry = start()?;
    let config = alone(&home, address).replace("http://", "https://");
    let config = config.replace("[swarm]", &format!("ca = {:?}\n[swarm]", at("ca.pem")));
    let darter = Darter::run(&config, &home)?;
    ensure!(status(&darter, "registry.test", &first)? == 200);
    registry.stop()?;
    let _registry = start()?;
    ensure!(status(&darter, "registry.test", &second)? == 502);
    reload(&darter, &home, &config, "applied")?;
    ensure!(status(&darter, "registry.test", &second)? == 200);
    darter.stop()
}
