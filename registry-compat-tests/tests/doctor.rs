//! What `darter doctor` finds on a host where a node runs before a real registry, and where one link
//! after the other is broken.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    authority::TestAuthority,
    can_run,
    darter::{Darter, Home},
    image::Image,
    process::{self, Finished},
    registry::{Registry, free_address},
};

use crate::stage::workspace;

/// Each thing that it waits for has a limit of its own, and these together a longer one.
const DOCTOR_LIMIT: Duration = Duration::from_secs(120);

const RUNTIMES: [(&str, &str); 3] = [
    ("docker", "dockerd"),
    ("containerd", "containerd"),
    ("podman", "podman"),
];

/// A host with a node and with runtimes that are pointed at it, as far as files tell.
struct Host {
    home: Home,
    darter: Darter,
    root: tempfile::TempDir,
}

// === impl Host ===

impl Host {
    /// `registries` are entries of the configuration.
    fn start(registries: &str) -> Result<Self> {
        let home = Home::new()?;
        let free = "listen = \"127.0.0.1:0\"";
        let config = format!(
            "data_dir = {:?}\n[proxy]\nlisten = \"{}\"\n{registries}[swarm]\n{free}\n[scheduler]\n{free}\n[admin]\n{free}\n",
            home.path().join("data"),
            free_address()?,
        );
        let darter = Darter::run(&config, &home)?;
        let root = tempfile::tempdir()?;
        fs::create_dir_all(root.path().join("usr/bin"))?;
        let host = Self { home, darter, root };
        for (runtime, program) in RUNTIMES {
            fs::write(host.root.path().join("usr/bin").join(program), "")?;
            host.setup(runtime)?;
        }
        Ok(host)
    }

    fn command(&self, words: &[&str]) -> Result<Finished> {
        let mut command = process::command(self.home.binary());
        command.args(words).arg("--root").arg(self.root.path());
        command.arg("--config");
        command.arg(self.home.path().join("darter.toml"));
        process::run(command, DOCTOR_LIMIT)
    }

    fn setup(&self, runtime: &str) -> Result<()> {
        self.command(&["setup", runtime])?.success().map(drop)
    }

    /// The findings that are not ok, and whether the command failed.
    fn ill(&self) -> Result<(Vec<String>, bool)> {
        let ended = self.command(&["doctor", "--image", IMAGE])?;
        let lines = ended
            .output
            .lines()
            .filter(|line| !line.starts_with("ok  "));
        let lines = lines.filter(|line| !line.starts_with("darter: "));
        Ok((lines.map(str::to_owned).collect(), !ended.status.success()))
    }

    /// Fails unless `broken` alone is found, and by a finding that begins so.
    fn is_ill(&self, broken: &[&str]) -> Result<()> {
        let (lines, is_failure) = self.ill()?;
        let all = lines.len() == broken.len()
            && lines
                .iter()
                .zip(broken)
                .all(|(line, begins)| line.starts_with(begins));
        ensure!(all && is_failure, "not {broken:?}, but: {lines:#?}");
        Ok(())
    }

    fn is_well(&self) -> Result<()> {
        let (lines, is_failure) = self.ill()?;
        ensure!(lines.is_empty() && !is_failure, "{lines:#?}");
        Ok(())
    }
}

const IMAGE: &str = "registry.test/team/app:latest";

/// Entries for Docker Hub and another name, both of which are the registry at `endpoint`.
fn entries(endpoint: &str, more: &str) -> String {
    let entry = |name: &str| {
        format!("[[proxy.registry]]\nname = \"{name}\"\nendpoint = \"{endpoint}\"\n{more}")
    };
    ["docker.io", "registry.test"].map(entry).concat()
}

#[test]
fn a_host_that_is_well_is_told_so_and_each_broken_link_by_its_name() -> Result<()> {
    if !can_run(&["docker-registry", "gzip"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let image = Image::small(&directory.path().join("image"), "doctor")?;
    let registry = Registry::start(directory.path())?;
    registry.push(&image, "team/app")?;
    let host = Host::start(&entries(&format!("http://{}", registry.address()), ""))?;
    host.is_well()?;
    let told = host
        .command(&["doctor", "--image", IMAGE, "--json"])?
        .success()?;
    let findings: serde_json::Value = serde_json::from_str(&told)?;
    let findings = findings.as_array().context("a list")?;
    let levels = findings.iter().all(|finding| finding["level"] == "ok");
    ensure!(levels && 9 < findings.len(), "{told}");
    let pulled = |finding: &serde_json::Value| {
        finding["what"]
            .as_str()
            .is_some_and(|what| what.contains("came through the node"))
    };
    ensure!(findings.iter().any(pulled), "{told}");

    let daemon = host.root.path().join("etc/docker/daemon.json");
    fs::write(&daemon, "{}\n")?;
    host.is_ill(&[
        "fail  docker: /etc/docker/daemon.json was changed since its setup  darter setup docker --port ",
    ])?;
    host.setup("docker")?;
    host.is_well()?;

    registry.stop()?;
    host.is_ill(&["fail  docker.io: ", "fail  registry.test: "])?;
    host.darter.stop()?;
    Ok(())
}

/// An authority, and the files of a registry on the loopback that is certified by it.
fn write_papers(directory: &Path, authority: &str) -> Result<()> {
    let ca = TestAuthority::new()?;
    let leaf = ca.issue(&["127.0.0.1"])?;
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("leaf.pem", leaf.certificate),
        ("leaf.key", leaf.key),
    ] {
        fs::write(directory.join(format!("{authority}-{name}")), text)?;
    }
    Ok(())
}

#[test]
fn an_authority_that_is_not_the_registrys_is_told_of_with_the_key_to_name_it() -> Result<()> {
    if !can_run(&["docker-registry", "gzip"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let at = |name: &str| directory.path().join(name);
    write_papers(directory.path(), "right")?;
    write_papers(directory.path(), "wrong")?;
    let image = Image::small(&at("image"), "doctor")?;
    let plain = Registry::start(directory.path())?;
    plain.push(&image, "team/app")?;
    plain.stop()?;
    let tls = format!(
        "  tls: {{certificate: {:?}, key: {:?}}}\n",
        at("right-leaf.pem"),
        at("right-leaf.key"),
    );
    let registry = Registry::start_with(&tls, directory.path(), free_address()?, |program| {
        process::command(program)
    })?;
    let endpoint = format!("https://{}", registry.address());
    let naming = |authority: &str| {
        entries(
            &endpoint,
            &format!("ca = {:?}\n", at(&format!("{authority}-ca.pem"))),
        )
    };
    let host = Host::start(&naming("right"))?;
    host.is_well()?;
    host.darter.stop()?;

    let host = Host::start(&naming("wrong"))?;
    host.is_ill(&[
        "fail  docker.io: ",
        "fail  registry.test: ",
        "fail  registry.test/team/app:latest: ",
    ])?;
    let (lines, _) = host.ill()?;
    ensure!(
        lines[0].contains("name the PEM file of its authority as ca"),
        "{lines:#?}"
    );
    host.darter.stop()
}

#[test]
fn a_node_that_does_not_run_is_told_first_and_its_files_are_looked_at_all_the_same() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let registry = Registry::start(directory.path())?;
    let mut host = Host::start(&entries(&format!("http://{}", registry.address()), ""))?;
    host.darter.signal("TERM")?;
    host.darter.wait_end(DOCTOR_LIMIT)?;
    host.is_ill(&["fail  "])?;
    let (lines, _) = host.ill()?;
    ensure!(
        lines[0].ends_with("start it: systemctl start darter, or darter up"),
        "{lines:#?}"
    );
    Ok(())
}
