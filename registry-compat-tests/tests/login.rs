//! A docker-registry that wants a password, and a node that has one: clients without any read it,
//! and the password is told nobody.

use std::fs;

use anyhow::{Result, ensure};
use registry_compat_tests::{
    can_run,
    content::{digest_of, noise},
    darter::{Darter, Home},
    http::Request,
    process,
    registry::{Registry, free_address},
};
use tempfile::TempDir;

use crate::{herd::alone, reload::reload};

/// `node:planted-password` as the registry keeps it, and as it is sent.
const HTPASSWD: &str = "node:$2b$04$abcdefghijklmnopqrstuuaalozgO24BBozvnT9Bl74og5BKuD1Fe\n";
const SENT: &str = "bm9kZTpwbGFudGVkLXBhc3N3b3Jk";
const SECRETS: [&str; 2] = [SENT, "planted-password"];

/// A registry that gives its one blob to `node` alone.
struct Guarded {
    registry: Registry,
    bytes: Vec<u8>,
    _directory: TempDir,
}

// === impl Guarded ===

impl Guarded {
    fn start(seed: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let bytes = noise(seed, 300_000)?;
        fs::write(at("blob"), &bytes)?;
        fs::write(at("htpasswd"), HTPASSWD)?;
        let open = Registry::start(directory.path())?;
        open.push_blob("team/app", &digest_of(&bytes), &at("blob"))?;
        open.stop()?;
        let auth = format!(
            "auth: {{htpasswd: {{realm: r, path: {:?}}}}}\n",
            at("htpasswd")
        );
        let address = free_address()?;
        let registry = Registry::start_with(&auth, directory.path(), address, |program| {
            process::command(program)
        })?;
        Ok(Self {
            registry,
            bytes,
            _directory: directory,
        })
    }

    /// A node that has `file` for its login, in `home`; everything is logged.
    fn node(&self, home: &Home, file: &str) -> Result<Darter> {
        let login = home.write("config.json", file)?;
        let plain = alone(home, self.registry.address());
        let config = plain.replace("[swarm]", &format!("docker_config = {login:?}\n[swarm]"));
        ensure!(config != plain, "no place for the login");
        Darter::run_logging("trace", &config, home)
    }

    /// The status for a client without any credential; no answer tells the secret.
    fn ask(&self, darter: &Darter) -> Result<u16> {
        let digest = digest_of(&self.bytes);
        let path = format!("/v2/registry.test/team/app/blobs/{digest}");
        let whole = Request::get(&path).fetch(darter.proxy()?)?;
        if whole.status == 200 {
            ensure!(whole.body == self.bytes, "wrong bytes");
        } else {
            is_clean("an answer", &whole.text())?;
        }
        Ok(whole.status)
    }
}

fn password(registry: &str, sent: &str) -> String {
    format!(r#"{{"auths":{{"{registry}":{{"auth":"{sent}"}}}}}}"#)
}

fn is_clean(what: &str, text: &str) -> Result<()> {
    for secret in SECRETS {
        let line = text.lines().find(|line| line.contains(secret));
        ensure!(line.is_none(), "{secret} in {what}: {line:?}");
    }
    Ok(())
}

fn ends_silent(darter: Darter) -> Result<()> {
    is_clean("/metrics", &darter.metrics()?)?;
    let log = darter.log()?;
    ensure!(log.contains("\"DEBUG\""), "not everything was logged");
    is_clean("the log", &log)?;
    darter.stop()
}

#[test]
fn a_node_with_a_login_reads_what_nobody_else_may_and_tells_it_nobody() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let guarded = Guarded::start("login")?;
    for (file, expect) in [
        (password("registry.test", SENT), 200),
        (password(&guarded.registry.address().to_string(), SENT), 200),
        // Somebody else's, and one that is wrong.
        (password("other.test", SENT), 401),
        (password("registry.test", "bm9kZTpubw=="), 401),
    ] {
        let home = Home::new()?;
        let darter = guarded.node(&home, &file)?;
        let status = guarded.ask(&darter)?;
        ensure!(status == expect, "{status} with {file}");
        ends_silent(darter)?;
    }
    Ok(())
}

#[test]
fn a_file_that_is_no_login_is_told_of_without_its_text() -> Result<()> {
    let home = Home::new()?;
    let login = home.write("config.json", &format!("{{\"auths\": [{SENT:?}]}}"))?;
    let plain = alone(&home, free_address()?);
    let text = plain.replace("[swarm]", &format!("docker_config = {login:?}\n[swarm]"));
    let config = home.write("darter.toml", &text)?;
    let mut command = process::command(home.binary());
    let told = command.arg("check-config").arg(config).output()?;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    ensure!(told.contains("docker_config"), "{told}");
    is_clean("check-config", &told)
}

/// What this node's login opens is everybody's here, but not for as long as what is everybody's.
#[test]
fn what_a_login_opens_is_shut_when_it_is_taken_away() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let guarded = Guarded::start("taken away")?;
    let home = Home::new()?;
    let file = password("registry.test", SENT);
    let darter = guarded.node(&home, &file)?;
    for _ in ["cold", "warm"] {
        let status = guarded.ask(&darter)?;
        ensure!(status == 200, "{status} with the login");
    }
    reload(
        &darter,
        &home,
        &alone(&home, guarded.registry.address()),
        "applied",
    )?;
    let status = guarded.ask(&darter)?;
    ensure!(status == 401, "{status} without the login");
    ends_silent(darter)
}
