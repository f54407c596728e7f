//! dockerd with `registry-mirrors`, and the BuildKit inside it.
//!
//! The daemon runs without bridge and firewall rules and with the plain-copy storage driver: it
//! pulls and saves, and starts no container.

use anyhow::{Context as _, Result};

use super::{MIRROR, Naming, PULL_LIMIT, START_LIMIT, Visit, archive};
use crate::process::{self, Process};

const SOCKET: &str = "unix:///run/docker.sock";

/// `docker pull`, then `docker save`.
pub(super) fn pull(visit: &Visit<'_>) -> Result<()> {
    let mut daemon = start(visit)?;
    let name = visit.hub_name();
    docker(visit, &["pull", "--quiet", &name]).with_context(|| tail_of(&daemon))?;
    save(visit, &name, 0)?;
    end(visit, &mut daemon)
}

/// `docker build` of `FROM` the image and one file more, then `docker save`.
pub(super) fn build(visit: &Visit<'_>) -> Result<()> {
    let mut daemon = start(visit)?;
    let context = visit.empty_directory("/root/context")?;
    let name = visit.hub_name();
    std::fs::write(context.join("own"), "one file more\n")?;
    std::fs::write(
        context.join("Dockerfile"),
        format!("FROM {name}\nCOPY own /own\n"),
    )?;
    // It is the command that asks for tokens then, and not the daemon.
    let mut build = visit.command("/usr/bin/docker");
    build
        .env("DOCKER_BUILDKIT", "1")
        .args([
            "--host",
            SOCKET,
            "build",
            "--progress",
            "plain",
            "--network",
            "none",
        ])
        .args(["--tag", "built:latest", "/root/context"]);
    process::check(build, PULL_LIMIT).with_context(|| tail_of(&daemon))?;
    save(visit, "built:latest", 1)?;
    end(visit, &mut daemon)
}

fn start(visit: &Visit<'_>) -> Result<Process> {
    visit.empty_directory("/var/lib/docker")?;
    visit.empty_directory("/run/docker")?;
    visit.empty_directory("/etc/docker")?;
    visit.log_in(&visit.hub_name())?;
    match visit.naming {
        Naming::Mirror(_) => visit.room.write(
            "/etc/docker/daemon.json",
            &format!("{{\"registry-mirrors\": [\"http://{MIRROR}\"]}}\n"),
        )?,
        Naming::Explicit(_) => {}
        Naming::SetUp(set_up) => visit.write(&set_up.files)?,
        Naming::Own(own) => visit.write(&own.files)?,
        Naming::Secured(own) => own.write(visit.room)?,
    }
    // It gives its own containerd a moment to come up, and on a busy machine gives up.
    run(visit).or_else(|_| run(visit))
}

fn run(visit: &Visit<'_>) -> Result<Process> {
    let mut command = visit.command("/usr/sbin/dockerd");
    command.args(["--host", SOCKET, "--pidfile", "/run/docker/dockerd.pid"]);
    command.args(["--storage-driver", "vfs"]);
    command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
    let log = visit.room.directory().join("dockerd.log");
    let mut daemon = Process::start("dockerd", command, &log)?;
    let socket = visit.room.host_path("/run/docker.sock")?;
    daemon.wait_ready(START_LIMIT, || {
        socket.exists() && docker(visit, &["version"]).is_ok()
    })?;
    Ok(daemon)
}

/// The next daemon is not to be taken for this one.
fn end(visit: &Visit<'_>, daemon: &mut Process) -> Result<()> {
    daemon.stop()?;
    process::wait_until("dockerd answers no more", START_LIMIT, || {
        docker(visit, &["version"]).is_err()
    })
}

fn save(visit: &Visit<'_>, name: &str, more: usize) -> Result<()> {
    let directory = visit.empty_directory("/var/tmp/saved")?;
    docker(
        visit,
        &["save", "--output", "/var/tmp/saved/image.tar", name],
    )?;
    archive::compare(&directory.join("image.tar"), visit.image.native()?, more)?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

fn docker(visit: &Visit<'_>, arguments: &[&str]) -> Result<String> {
    let mut command = visit.room.client("/usr/bin/docker");
    command.args(["--host", SOCKET]).args(arguments);
    process::check(command, PULL_LIMIT)
}

fn tail_of(daemon: &Process) -> String {
    let log = daemon.log().unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
