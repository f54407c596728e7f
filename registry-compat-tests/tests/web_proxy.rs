//! A node whose only way to the registry is an HTTP proxy: no name in here leads anywhere by itself.

use std::{fs, net::SocketAddr};

use anyhow::{Result, ensure};
use registry_compat_tests::{
    authority::TestAuthority,
    can_run,
    content::{digest_of, noise},
    darter::{Darter, Home},
    http::Request,
    process,
    registry::{Registry, free_address},
    web_proxy::{Asked, WebProxy},
};
use tempfile::TempDir;

/// Nobody resolves it.
const HOST: &str = "registry.invalid";
/// `me:proxy-secret`, as it is sent.
const SENT: &str = "Basic bWU6cHJveHktc2VjcmV0";
const SECRETS: [&str; 2] = ["proxy-secret", "bWU6cHJveHktc2VjcmV0"];

/// A registry with one blob, over TLS or without, and a proxy before it.
struct Behind {
    registry: Registry,
    proxy: WebProxy,
    bytes: Vec<u8>,
    entry: String,
    _directory: TempDir,
}

// === impl Behind ===

impl Behind {
    fn start(seed: &str, is_tls: bool) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let bytes = noise(seed, 300_000)?;
        fs::write(at("blob"), &bytes)?;
        let plain = Registry::start(directory.path())?;
        plain.push_blob("team/app", &digest_of(&bytes), &at("blob"))?;
        plain.stop()?;
        let ca = TestAuthority::new()?;
        let leaf = ca.issue(&[HOST])?;
        fs::write(at("ca.pem"), ca.pem())?;
        fs::write(at("leaf.pem"), leaf.certificate)?;
        fs::write(at("leaf.key"), leaf.key)?;
        let tls = format!(
            "  tls: {{certificate: {:?}, key: {:?}}}\n",
            at("leaf.pem"),
            at("leaf.key")
        );
        let (more, scheme) = match is_tls {
            true => (tls.as_str(), "https"),
            false => ("", "http"),
        };
        let registry = Registry::start_with(more, directory.path(), free_address()?, |program| {
            process::command(program)
        })?;
        let entry = format!(
            "[[proxy.registry]]\nname = \"registry.test\"\nendpoint = \"{scheme}://{HOST}:5000\"\nca = {:?}\n",
            at("ca.pem")
        );
        let proxy = WebProxy::start(registry.address())?;
        Ok(Self {
            registry,
            proxy,
            bytes,
            entry,
            _directory: directory,
        })
    }

    /// The status of the blob through a node with `keys` in `[proxy]` and `variables` around it; it
    /// tells no secret in its log.
    fn ask(&self, keys: &str, variables: &[(&str, String)]) -> Result<u16> {
        let (home, free) = (Home::new()?, "listen = \"127.0.0.1:0\"");
        let config = format!(
            "data_dir = {:?}\n[proxy]\n{free}\n{keys}{}[swarm]\n{free}\n[scheduler]\n{free}\n\
             [admin]\n{free}\n",
            home.path().join("data"),
            self.entry,
        );
        let enter = |program: &str| {
            let mut command = process::command(program);
            command.env("DARTER_LOG", "trace");
            for (name, value) in variables {
                command.env(name, value);
            }
            command
        };
        let darter = Darter::run_by(enter, &config, &home)?;
        let digest = digest_of(&self.bytes);
        let path = format!("/v2/registry.test/team/app/blobs/{digest}");
        let whole = Request::get(&path).fetch(darter.proxy()?)?;
        let is_right = whole.status != 200 || whole.body == self.bytes;
        ensure!(is_right, "wrong bytes");
        for text in [darter.log()?, darter.metrics()?] {
            let line = text
                .lines()
                .find(|line| SECRETS.iter().any(|secret| line.contains(secret)));
            ensure!(line.is_none(), "{line:?}");
        }
        darter.stop()?;
        Ok(whole.status)
    }

    fn url(&self, user: &str) -> String {
        format!("http://{user}{}", self.proxy.address())
    }

    /// What the proxy was asked is this method alone, and for GET the question before it, with this `Proxy-Authorization`.
    fn was_asked(&self, method: &str, authorization: Option<&str>) -> Result<()> {
        let asked = self.proxy.asked();
        let is_it = |asked: &Asked| {
            let is_question = method == "GET" && asked.method == "HEAD";
            (asked.method == method || is_question)
                && asked.authorization.as_deref() == authorization
                && asked.target.contains(HOST)
        };
        ensure!(!asked.is_empty() && asked.iter().all(is_it), "{asked:?}");
        Ok(())
    }
}

#[test]
fn a_registry_with_tls_or_without_is_reached_through_the_proxy_that_is_written() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    for (is_tls, method) in [(true, "CONNECT"), (false, "GET")] {
        let behind = Behind::start(&format!("proxy {is_tls}"), is_tls)?;
        let status = behind.ask("", &[])?;
        ensure!(status == 502, "{status} without any way there");
        let secret = tempfile::NamedTempFile::new()?;
        fs::write(secret.path(), "me:proxy-secret\n")?;
        let keys = format!(
            "upstream_proxy = {:?}\nupstream_proxy_credentials = {:?}\n",
            behind.url(""),
            secret.path(),
        );
        let status = behind.ask(&keys, &[])?;
        ensure!(status == 200, "{status}");
        behind.was_asked(method, Some(SENT))?;
        behind.registry.asked_only_by("darter/")?;
    }
    Ok(())
}

#[test]
fn the_environment_names_the_proxy_and_what_is_excepted() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let behind = Behind::start("environment", true)?;
    let named = ("HTTPS_PROXY", behind.url("me:proxy-secret@"));
    let status = behind.ask("", std::slice::from_ref(&named))?;
    ensure!(status == 200, "{status}");
    behind.was_asked("CONNECT", Some(SENT))?;
    let asked = behind.proxy.asked().len();
    let excepted = ("NO_PROXY", "invalid".to_owned());
    let status = behind.ask("", &[named, excepted])?;
    ensure!(status == 502, "{status}");
    // The key goes before the environment.
    let nowhere: SocketAddr = free_address()?;
    let keys = format!("upstream_proxy = \"http://{nowhere}\"\n");
    let status = behind.ask(&keys, &[("HTTPS_PROXY", behind.url(""))])?;
    ensure!(status == 502, "{status}");
    ensure!(behind.proxy.asked().len() == asked, "it was asked again");
    Ok(())
}
