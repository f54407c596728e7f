//! containerd, asked by `ctr` and by the container runtime interface as a kubelet does.
//!
//! Both leave the compressed blobs in the content store, so that every blob of the platform is
//! compared as it was sent.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{MIRROR, Naming, PULL_LIMIT, START_LIMIT, Visit, cri};
use crate::process::{self, Process};

const SOCKET: &str = "/run/containerd/containerd.sock";
const CONTENT: &str = "/var/lib/containerd/io.containerd.content.v1.content/blobs";
const HOSTS: &str = "/etc/containerd/certs.d";

/// `ctr images pull`.
pub(super) fn pull(visit: &Visit<'_>) -> Result<()> {
    let mut daemon = start(visit)?;
    let mut pull = visit.command("ctr");
    pull.args([
        "--address",
        SOCKET,
        "images",
        "pull",
        "--snapshotter",
        "native",
    ]);
    if !matches!(visit.naming, Naming::Explicit(_)) {
        pull.args(["--hosts-dir", HOSTS]);
    }
    if let Some((user, password)) = visit.login {
        pull.args(["--user", &format!("{user}:{password}")]);
    }
    pull.arg(visit.registry_name());
    process::check(pull, PULL_LIMIT)?;
    compare(visit)?;
    daemon.stop()
}

/// PullImage, as a kubelet asks.
pub(super) fn pull_by_cri(visit: &Visit<'_>) -> Result<()> {
    let mut daemon = start(visit)?;
    let socket = visit.room.host_path(SOCKET)?;
    cri::pull_image(&socket, &visit.registry_name(), visit.login, PULL_LIMIT)
        .with_context(|| daemon.log().unwrap_or_default())?;
    compare(visit)?;
    daemon.stop()
}

fn start(visit: &Visit<'_>) -> Result<Process> {
    visit.empty_directory("/var/lib/containerd")?;
    visit.empty_directory("/run/containerd")?;
    visit.empty_directory("/etc/containerd")?;
    visit.room.write(
        "/etc/containerd/config.toml",
        &format!(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
             config_path = \"{HOSTS}\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
             snapshotter = \"native\"\n"
        ),
    )?;
    match visit.naming {
        Naming::Mirror(names) => visit.room.write(
            &format!("{HOSTS}/{}/hosts.toml", names.registry),
            &format!(
                "server = \"http://{}\"\n[host.\"http://{MIRROR}\"]\n\
                 capabilities = [\"pull\", \"resolve\"]\n",
                names.registry
            ),
        )?,
        Naming::Explicit(_) => {}
        Naming::SetUp(set_up) => visit.write(&set_up.files)?,
        Naming::Own(own) => visit.write(&own.files)?,
        Naming::Secured(own) => {
            own.write(visit.room)?;
            let directory = format!("{HOSTS}/{}", own.registry);
            visit.room.write(&format!("{directory}/ca.crt"), &own.ca)?;
            visit.room.write(
                &format!("{directory}/hosts.toml"),
                &format!(
                    "server = \"https://{0}\"\n[host.\"https://{0}\"]\n\
                     capabilities = [\"pull\", \"resolve\"]\nca = \"{directory}/ca.crt\"\n",
                    own.registry
                ),
            )?;
        }
    }
    let mut command = visit.command("containerd");
    command.args(["--config", "/etc/containerd/config.toml"]);
    let log = visit.room.directory().join("containerd.log");
    let mut daemon = Process::start("containerd", command, &log)?;
    daemon.wait_ready(START_LIMIT, || {
        let mut version = visit.room.client("ctr");
        version.args(["--address", SOCKET, "version"]);
        process::check(version, PULL_LIMIT).is_ok()
    })?;
    Ok(daemon)
}

fn compare(visit: &Visit<'_>) -> Result<()> {
    let content = visit.room.host_path(CONTENT)?;
    let platform = visit.image.native()?;
    let named = [&visit.image.index, &platform.manifest, &platform.config];
    for blob in named.into_iter().chain(&platform.layers) {
        let held = fs::read(content.join(blob.digest.replace(':', "/")))
            .with_context(|| format!("containerd has no {}", blob.digest))?;
        ensure!(
            held == visit.image.bytes(&blob.digest)?,
            "{} differs",
            blob.digest
        );
    }
    Ok(())
}
