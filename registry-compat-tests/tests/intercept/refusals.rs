//! What is passed on untouched, who does not trust Darter, and what is answered for whom.

use std::{fs, net::SocketAddr};

use anyhow::{Result, ensure};
use registry_compat_tests::{
    can_run,
    content::{digest_of, noise},
    darter::{Darter, Home},
    fault_registry::{Fault, FaultRegistry, On, Times},
    process,
    registry::Registry,
};

use super::{LIMIT, curl, darter, entry, papers::Papers, seen};

const PROGRAMS: [&str; 4] = ["curl", "docker-registry", "openssl", "setpriv"];

/// A registry that shows its own certificate, and a Darter before it.
struct Scene {
    papers: Papers,
    registry: Registry,
    home: Home,
    darter: Darter,
    directory: tempfile::TempDir,
}

// === impl Scene ===

impl Scene {
    /// The registry is called by its address; `proxy` says in which way.
    fn open(proxy: impl Fn(SocketAddr) -> String) -> Result<Self> {
        let papers = Papers::of(&["127.0.0.1"])?;
        let (directory, home) = (tempfile::tempdir()?, Home::new()?);
        let registry = papers.registry(directory.path())?;
        let address = registry.address();
        let own = address.to_string();
        let darter = darter(&home, &proxy(address), &entry(&own, &own, &papers))?;
        Ok(Self {
            papers,
            registry,
            home,
            darter,
            directory,
        })
    }

    /// Fails unless curl sees this of it.
    fn pings(&self, trusts: Trusts, more: &[&str], expect: &str) -> Result<()> {
        let seen = self.ping(trusts, more)?;
        ensure!(seen == expect, "{trusts:?} {more:?}: {seen}");
        Ok(())
    }

    /// What curl sees of the registry's ping by trusting its own authority, or Darter's.
    fn ping(&self, trusts: Trusts, more: &[&str]) -> Result<String> {
        let authority = match trusts {
            Trusts::Registry => self.papers.ca(),
            Trusts::Darter => {
                let path = self.directory.path().join("local.pem");
                let own = self.registry.address().to_string();
                fs::write(&path, self.home.ca_of(&own)?)?;
                path
            }
        };
        let url = format!("https://{}/v2/", self.registry.address());
        seen(curl(&self.darter, &authority, &[more, &[&url]].concat())?)
    }
}

/// Whom a client trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trusts {
    Registry,
    Darter,
}

/// How curl ends that does not trust a certificate.
const UNTRUSTED: &str = "ended with 60";

/// How curl ends whose CONNECT is refused.
const REFUSED: &str = "ended with 56";

#[test]
fn a_host_that_is_not_intercepted_shows_its_own_certificate() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let scene = Scene::open(|address| format!("tunnel_ports = [{}]", address.port()))?;
    scene.pings(Trusts::Registry, &[], "200 2 0")?;
    scene.pings(Trusts::Darter, &[], UNTRUSTED)?;
    let metric = |name: &str| scene.darter.metric(name);
    ensure!(metric("darter_proxy_connects_total{way=\"tunnelled\"")? == 2.0);
    ensure!(metric("darter_proxy_tunnel_bytes_total{direction=\"down\"")? > 1000.0);
    process::wait_until("the tunnels to end", LIMIT, || {
        metric("darter_proxy_tunnels").is_ok_and(|open| open == 0.0)
    })?;
    let lines = scene.darter.log()?;
    let lines = lines.lines().filter(|line| line.contains("\"tunnel\""));
    ensure!(lines.count() == 2);
    scene.darter.stop()
}

#[test]
fn a_tunnel_goes_to_no_other_port_and_nowhere_where_there_are_to_be_none() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    for proxy in ["", "tunnel = \"none\"\ntunnel_ports = [PORT]"] {
        let scene = Scene::open(|address| proxy.replace("PORT", &address.port().to_string()))?;
        ensure!(scene.ping(Trusts::Registry, &[])? == REFUSED, "{proxy}");
        ensure!(scene.registry.accesses()?.is_empty());
        scene.darter.stop()?;
    }
    Ok(())
}

#[test]
fn an_intercepted_registry_is_answered_over_both_versions_of_http() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let scene = Scene::open(|address| format!("tunnel = \"none\"\nintercept = [\"{address}\"]"))?;
    scene.pings(Trusts::Darter, &[], "200 2 0")?;
    scene.pings(Trusts::Darter, &["--http1.1"], "200 1.1 0")?;
    let metric = "darter_proxy_connects_total{way=\"intercepted\"";
    ensure!(scene.darter.metric(metric)? == 2.0);
    scene.darter.stop()
}

#[test]
fn a_client_that_does_not_trust_us_reaches_the_registry_the_next_time() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let scene = Scene::open(|address| format!("tunnel = \"none\"\nintercept = [\"{address}\"]"))?;
    scene.pings(Trusts::Registry, &[], UNTRUSTED)?;
    scene.pings(Trusts::Registry, &[], "200 2 0")?;
    // Another program on the same machine trusts us still.
    let other = ["--user-agent", "other/1"];
    scene.pings(Trusts::Darter, &other, "200 2 0")?;
    ensure!(
        scene
            .darter
            .metric("darter_proxy_certificate_rejections_total")?
            == 1.0
    );
    let log = scene.darter.log()?;
    let advice = format!(
        "darter ca install RUNTIME --registry {}",
        scene.registry.address()
    );
    ensure!(log.contains(&advice), "{log}");
    scene.darter.stop()
}

#[test]
fn a_name_that_is_not_the_one_asked_for_is_passed_on() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let scene = Scene::open(|address| format!("tunnel = \"none\"\nintercept = [\"{address}\"]"))?;
    let issuer = |more: &[&str]| -> Result<bool> {
        let address = scene.registry.address().to_string();
        let mut client = process::command("openssl");
        client.args(["s_client", "-proxy", &scene.darter.proxy()?.to_string()]);
        client.args(["-connect", &address]).args(more);
        let told = process::run(client, LIMIT)?.output;
        ensure!(told.contains("BEGIN CERTIFICATE"), "{told}");
        Ok(told.contains("Darter on this host"))
    };
    ensure!(issuer(&["-noservername"])?);
    ensure!(!issuer(&["-servername", "other.example"])?);
    scene.darter.stop()
}

/// What a blob of `registry` looks like to curl that asks for it as intercepted.
struct Asked<'a> {
    darter: &'a Darter,
    authority: std::path::PathBuf,
    directory: &'a std::path::Path,
}

// === impl Asked ===

impl Asked<'_> {
    fn blob(&self, digest: &str, more: &[&str]) -> Result<(String, Vec<u8>)> {
        let url = format!("https://registry.test/v2/team/app/blobs/{digest}");
        let file = self.directory.join("body");
        let _no_body = fs::remove_file(&file);
        let mut curl = curl(self.darter, &self.authority, more)?;
        curl.arg(&url).arg("--output").arg(&file);
        curl.args([
            "--write-out",
            "%{http_code} %{http_version} %{num_redirects}",
        ]);
        let ended = process::run(curl, LIMIT)?;
        let seen = match ended.status.code() {
            Some(0) => ended.output,
            code => format!("ended with {code:?}"),
        };
        Ok((seen, fs::read(&file).unwrap_or_default()))
    }
}

/// A registry of faults that is intercepted, with a blob that `fault` hits.
fn intercepted(
    fault: impl Fn(&FaultRegistry, &str) -> Fault,
    check: impl Fn(&Asked<'_>, &str, &[u8]) -> Result<()>,
) -> Result<()> {
    if !can_run(&["curl", "setpriv"])? {
        return Ok(());
    }
    let (registry, store) = (FaultRegistry::start()?, FaultRegistry::start()?);
    let bytes = noise("intercepted", 700_000)?;
    let digest = digest_of(&bytes);
    registry.put_blob(&digest, bytes.clone());
    store.put_blob(&digest, bytes.clone());
    let path = format!("/blobs/{digest}");
    registry.fail(On::Get, &path, Times::Always, fault(&store, &digest));
    let (directory, home) = (tempfile::tempdir()?, Home::new()?);
    let registries = format!(
        "[[proxy.registry]]\nname = \"registry.test\"\nendpoint = \"http://{}\"\n\
         also_trust = [\"{}\"]\n",
        registry.address(),
        store.address(),
    );
    let darter = darter(&home, "intercept = [\"registry.test\"]", &registries)?;
    let authority = directory.path().join("local.pem");
    fs::write(&authority, home.ca_of("registry.test")?)?;
    let asked = Asked {
        darter: &darter,
        authority,
        directory: directory.path(),
    };
    check(&asked, &digest, &bytes)?;
    darter.stop()
}

#[test]
fn a_blob_that_the_registry_redirects_elsewhere_is_answered_in_its_place() -> Result<()> {
    let redirect = |store: &FaultRegistry, digest: &str| {
        Fault::RedirectTo(format!(
            "http://{}/v2/store/blobs/{digest}",
            store.address()
        ))
    };
    intercepted(redirect, |asked, digest, bytes| {
        for (more, expect) in [(&[][..], "200 2 0"), (&["--http1.1"], "200 1.1 0")] {
            let (seen, body) = asked.blob(digest, more)?;
            ensure!(
                seen == expect && body == bytes,
                "{seen}: {} bytes",
                body.len()
            );
        }
        Ok(())
    })
}

/// 92 is a stream that was reset, 18 a body that is shorter than it was to be.
#[test]
fn a_broken_body_ends_its_stream_and_is_never_taken_for_whole() -> Result<()> {
    let broken = |_: &FaultRegistry, _: &str| Fault::WrongByte(690_000);
    intercepted(broken, |asked, digest, bytes| {
        for (more, code) in [(&[][..], 92), (&["--http1.1"], 18)] {
            let (seen, body) = asked.blob(digest, more)?;
            ensure!(seen == format!("ended with Some({code})"), "{seen}");
            ensure!(body.len() < bytes.len(), "{}", body.len());
        }
        Ok(())
    })
}
