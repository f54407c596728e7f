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

/// Asks a Darter whose entry for the registry has `more` in it for `target`.
fn ask(registry: &Registry, papers: &Path, more: &str, target: &str) -> Result<(u16, Vec<u8>)> {
    let (home, free) = (Home::new()?, "listen = \"127.0.0.1:0\"");
    let config = format!(
        "data_dir = {:?}\n[proxy]\n{free}\n[[proxy.registry]]\nname = \"registry.test\"\n\
         endpoint = \"https://{}\"\nca = {:?}\n{more}\
         [swarm]\n{free}\n[scheduler]\n{free}\n[admin]\n{free}\n",
        home.path().join("data"),
        registry.address(),
        papers.join("ca.pem"),
    );
    let darter = Darter::run(&config, &home)?;
    let whole = Request::get(target).fetch(darter.proxy()?)?;
    darter.stop()?;
    Ok((whole.status, whole.body))
}

#[test]
fn a_registry_that_wants_a_certificate_is_shown_the_one_written_for_it() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    write_papers(directory.path())?;
    let bytes = noise("client certificate", 300_000)?;
    let digest = digest_of(&bytes);
    fs::write(at("blob"), &bytes)?;
    let plain = Registry::start(directory.path())?;
    plain.push_blob("team/app", &digest, &at("blob"))?;
    plain.stop()?;
    let tls = format!(
        "  tls: {{certificate: {:?}, key: {:?}, clientcas: [{:?}]}}\n",
        at("127.0.0.1.pem"),
        at("127.0.0.1.key"),
        at("ca.pem"),
    );
    let registry = Registry::start_with(&tls, directory.path(), free_address()?, |program| {
        process::command(program)
    })?;
    let target = format!("/v2/registry.test/team/app/blobs/{digest}");
    let shown = format!(
        "client_cert = {:?}\nclient_key = {:?}\n",
        at("client.pem"),
        at("client.key"),
    );
    let (status, body) = ask(&registry, directory.path(), &shown, &target)?;
    ensure!((status, &body) == (200, &bytes), "{status}");
    let (status, body) = ask(&registry, directory.path(), "", &target)?;
    ensure!(
        status == 502,
        "{status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(())
}
