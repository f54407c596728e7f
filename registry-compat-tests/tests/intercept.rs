//! HTTPS through Darter as its clients' proxy: registries that it answers for, with the authority
//! that `darter ca install` gives to each runtime, and hosts that it passes on.

mod clients;
mod constraints;
mod down;
mod mirror;
mod papers;
mod refusals;
mod transparent;

use std::process::Command;

use anyhow::{Context as _, Result};
use registry_compat_tests::{
    darter::{Darter, Home},
    process,
};

use self::papers::Papers;

/// One request over a real network stack, on busy cores.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// A Darter on ports that the kernel chooses, whose `[proxy]` begins with `more`, and whose
/// registries follow.
fn darter(home: &Home, more: &str, registries: &str) -> Result<Darter> {
    let free = "listen = \"127.0.0.1:0\"";
    let config = format!(
        "data_dir = {:?}\n[proxy]\n{free}\n{more}\n{registries}\n\
         [swarm]\n{free}\n[scheduler]\n{free}\n[admin]\n{free}\n",
        home.path().join("data"),
    );
    Darter::run(&config, home)
}

/// The entry of a registry that is reached by TLS.
fn entry(name: &str, endpoint: &str, papers: &Papers) -> String {
    format!(
        "[[proxy.registry]]\nname = \"{name}\"\nendpoint = \"https://{endpoint}\"\nca = {:?}\n",
        papers.ca(),
    )
}

/// curl through `darter` as its proxy, which trusts what is in `authority` alone.
fn curl(darter: &Darter, authority: &std::path::Path, more: &[&str]) -> Result<Command> {
    let mut curl = process::command("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "50",
        "--noproxy",
        "",
    ]);
    curl.arg("--proxy")
        .arg(format!("http://{}", darter.proxy()?));
    curl.arg("--cacert").arg(authority).args(more);
    Ok(curl)
}

/// The status and the protocol of an answer to curl, or how curl ended.
fn seen(mut curl: Command) -> Result<String> {
    curl.args([
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} %{http_version} %{num_redirects}",
    ]);
    let finished = process::run(curl, LIMIT)?;
    let code = finished.status.code().context("curl was killed")?;
    Ok(match code {
        0 => finished.output,
        code => format!("ended with {code}"),
    })
}
