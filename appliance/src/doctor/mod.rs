//! Looks for what keeps pulls from going through this host: `darter doctor`.
//!
//! What is found is gathered first, each thing within a limit (`local`, `remote`, `pull`); what it means
//! and what mends it is decided in `judge` alone.

mod facts;
mod judge;
mod local;
mod pull;
mod remote;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::SystemTime};

use anyhow::bail;

use crate::{config::RawConfig, terminal};
use facts::{Facts, Node};
use judge::Level;

/// What was typed after `darter doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArguments {
    /// The image that is pulled through the node.
    #[arg(long, default_value = DEFAULT_IMAGE)]
    pub(crate) image: String,
    /// As JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
    /// Find the files of runtimes below this directory, as `darter setup` does.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
}

/// What the node is configured with, as far as it can be read, and where its data is.
#[derive(Debug)]
pub(crate) struct Patient {
    pub(crate) raw: anyhow::Result<RawConfig>,
    pub(crate) data_dir: PathBuf,
}

/// The smallest image that everybody may pull.
const DEFAULT_IMAGE: &str = "docker.io/library/hello-world:latest";

/// Looks, tells, and fails where something fails.
pub(crate) fn run(
    arguments: &DoctorArguments,
    patient: Patient,
    now: impl Fn() -> SystemTime,
) -> anyhow::Result<()> {
    let facts = gather(arguments, patient, now)?;
    let findings = judge::judge(&facts);
    match arguments.json {
        true => terminal::say(&serde_json::to_string(&findings)?),
        false => findings
            .iter()
            .for_each(|finding| terminal::say(finding.to_string().trim_end())),
    }
    let failed = findings.iter().filter(|one| one.level == Level::Fail);
    match failed.count() {
        0 => Ok(()),
        1 => bail!("one thing is to be mended"),
        count => bail!("{count} things are to be mended"),
    }
}

fn gather(
    arguments: &DoctorArguments,
    Patient { raw, data_dir }: Patient,
    now: impl Fn() -> SystemTime,
) -> anyhow::Result<Facts> {
    let checked = raw.and_then(local::checked);
    let (config, problem) = match checked {
        Ok(config) => (Some(config), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let node = remote::node(&data_dir);
    let told = node.as_ref().ok();
    let mirror = told.and_then(Node::mirror);
    let port = mirror.map_or_else(|| local::port_of(config.as_ref()), |mirror| mirror.port());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (listeners, upstreams, pull) = runtime.block_on(async {
        let listeners = remote::listeners(told, config.as_ref()).await;
        let upstreams = match &config {
            Some((_, config)) => remote::upstreams(config, &now).await,
            None => Ok(Vec::new()),
        };
        let pull = match mirror {
            Some(mirror) => Some(pull::pull(&arguments.image, mirror).await),
            None => None,
        };
        upstreams.map(|upstreams| (listeners, upstreams, pull))
    })?;
    Ok(Facts {
        now: now(),
        configuration_problem: problem,
        disk: local::disk(&data_dir, config.as_ref()),
        certificates: local::certificates(&data_dir, config.as_ref()),
        runtimes: local::runtimes(&arguments.root, &data_dir, port),
        data_dir,
        node,
        listeners,
        upstreams,
        pull,
        is_default_image: arguments.image == DEFAULT_IMAGE,
        port,
    })
}
