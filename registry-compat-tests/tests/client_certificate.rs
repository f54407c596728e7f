//! A docker-registry that speaks TLS, and to nobody who shows no certificate of its own authority.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use registry_compat_tests::{
    authority::TestAuthority,
    can_run,
    content::{digest_of, noise},
    darter::{Darter, Home},
    http::Request,
    process,
    registry::{Registry, free_address},
};

use crate::reload::reload;

/// The files of one operator: its authority, the registry's certificate and that of its clients.
fn write_papers(directory: &Path) -> Result<()> {
    let ca = TestAuthority::new()?;
    fs::write(directory.join("ca.pem"), ca.pem())?;
    for name in ["127.0.0.1", "client"] {
        let leaf = ca.issue(&[name])?;
        fs::write(directory.join(format!("{name}.pem")), leaf.certificate)?;
        fs::write(directory.join(format!("{name}.key")), leaf.key)?;
    }
    Ok(())
}

/// A registry with one blob, that speaks TLS and lets in who shows a certificate.
struct Closed {
    registry: Registry,
    target: String,
    bytes: Vec<u8>,
}

// === impl Closed ===

impl Closed {
    fn start(directory: &Path) -> Result<Self> {
        let at = |name: &str| directory.join(name);
        write_papers(directory)?;
        let bytes = noise("client certificate", 300_000)?;
        let digest = digest_of(&bytes);
        fs::write(at("blob"), &bytes)?;
        let plain = Registry::start(directory)?;
        plain.push_blob("team/app", &digest, &at("blob"))?;
        plain.stop()?;
        let tls = format!(
            "  tls: {{certificate: {:?}, key: {:?}, clientcas: [{:?}]}}\n",
            at("127.0.0.1.pem"),
            at("127.0.0.1.key"),
            at("ca.pem"),
        );
        let registry = Registry::start_with(&tls, directory, free_address()?, |program| {
            process::command(program)
        })?;
        Ok(Self {
            registry,
            target: format!("/v2/registry.test/team/app/blobs/{digest}"),
            bytes,
        })
    }

    /// The configuration of a node with `proxy` in its table and `more` in the entry for the registry.
    fn config(&self, home: &Home, proxy: &str, more: &str) -> String {
        let free = "listen = \"127.0.0.1:0\"";
        format!(
            "data_dir = {:?}\n[proxy]\n{free}\n{proxy}[[proxy.registry]]\nname = \"registry.test\"\n\
             endpoint = \"https://{}\"\n{more}\
             [swarm]\n{free}\n[scheduler]\n{free}\n[admin]\n{free}\n",
            home.path().join("data"),
            self.registry.address(),
        )
    }

    fn is_given(&self, darter: &Darter) -> Result<()> {
        let whole = Request::get(&self.target).fetch(darter.proxy()?)?;
        ensure!(
            whole.status == 200 && whole.body == self.bytes,
            "{}",
            whole.status
        );
        Ok(())
    }

    fn is_refused(&self, darter: &Darter) -> Result<()> {
        let whole = Request::get(&self.target).fetch(darter.proxy()?)?;
        ensure!(whole.status == 502, "{}: {}", whole.status, whole.text());
        Ok(())
    }
}

#[test]
fn a_registry_that_wants_a_certificate_is_shown_the_one_written_for_it() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    let closed = Closed::start(directory.path())?;
    let ca = format!("ca = {:?}\n", at("ca.pem"));
    let shown = format!(
        "{ca}client_cert = {:?}\nclient_key = {:?}\n",
        at("client.pem"),
        at("client.key"),
    );
    let (home, other) = (Home::new()?, Home::new()?);
    let darter = Darter::run(&closed.config(&home, "", &shown), &home)?;
    closed.is_given(&darter)?;
    darter.stop()?;
    let darter = Darter::run(&closed.config(&other, "", &ca), &other)?;
    closed.is_refused(&darter)?;
    darter.stop()
}

/// As docker and podman have it: a directory of the registry's name, with an authority and a pair.
#[test]
fn what_certs_d_has_for_a_registry_is_read_at_the_start_and_at_a_reload() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let closed = Closed::start(directory.path())?;
    let certs = directory.path().join("certs.d");
    let home = Home::new()?;
    let config = closed.config(&home, &format!("certs_d = [{certs:?}]\n"), "");
    let darter = Darter::run(&config, &home)?;
    closed.is_refused(&darter)?;
    let own = certs.join("registry.test");
    fs::create_dir_all(&own)?;
    for (from, to) in [
        ("ca.pem", "ca.crt"),
        ("client.pem", "node.cert"),
        ("client.key", "node.key"),
    ] {
        fs::copy(directory.path().join(from), own.join(to))?;
    }
    reload(&darter, &home, &config, "applied")?;
    closed.is_given(&darter)?;
    fs::write(own.join("ca.crt"), "none")?;
    reload(&darter, &home, &config, "refused")?;
    let told = format!("{} holds no certificate", own.join("ca.crt").display());
    ensure!(darter.log()?.contains(&told), "{}", darter.log()?);
    darter.stop()
}
