//! TLS on the mirror's own port, where that is wanted.

use std::fs;

use anyhow::{Result, ensure};
use registry_compat_tests::{can_run, darter::Home, process};

use super::{LIMIT, darter};

#[test]
fn the_mirror_speaks_tls_by_the_loopback_names_beside_plain_http() -> Result<()> {
    if !can_run(&["curl", "openssl", "setpriv", "skopeo"])? {
        return Ok(());
    }
    let (home, directory) = (Home::new()?, tempfile::tempdir()?);
    let darter = darter(&home, "tls = true", "")?;
    let authority = directory.path().join("ca.crt");
    fs::write(&authority, home.ca_of("localhost")?)?;
    let port = darter.proxy()?.port();
    for (url, expect) in [
        (format!("https://localhost:{port}/v2/"), "200 2"),
        (format!("https://127.0.0.1:{port}/v2/"), "200 2"),
        (format!("https://[::1]:{port}/v2/"), "200 2"),
        (format!("http://localhost:{port}/v2/"), "200 1.1"),
    ] {
        let mut curl = process::command("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "50",
            "--noproxy",
            "*",
        ]);
        curl.args([
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %{http_version}",
        ]);
        curl.arg("--cacert").arg(&authority).arg(&url);
        let seen = process::check(curl, LIMIT)?;
        ensure!(seen == expect, "{url}: {seen}");
    }
    // A client in Go, which names the registry in the path, trusts it too.
    let mut inspect = process::command("skopeo");
    inspect
        .arg("inspect")
        .arg("--cert-dir")
        .arg(directory.path());
    inspect.arg(format!(
        "docker://localhost:{port}/evil.example/team/app:latest"
    ));
    let told = process::run(inspect, LIMIT)?.output;
    ensure!(
        told.contains("is not a registry this mirror asks"),
        "{told}"
    );
    // A name that is not this host's is told in clear that there is no TLS for it.
    let mut other = process::command("openssl");
    other.args(["s_client", "-servername", "other.example"]);
    other.args(["-connect", &format!("localhost:{port}")]);
    let told = process::run(other, LIMIT)?.output;
    ensure!(!told.contains("BEGIN CERTIFICATE"), "{told}");
    darter.stop()
}
