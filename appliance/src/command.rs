//! What was typed, and which part of the appliance answers it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use http::Method;
use protocol::{Digest, HostId, RegistryName};

use crate::{
    ca::{self, CaCommand},
    cache::{CacheList, CachePin, CacheRemoval},
    config::{CONFIG_FILE, DATA_DIR, RawConfig},
    control::client,
    data_dir::DataDir,
    doctor::{self, DoctorArguments, Patient},
    environment,
    explain::Explained,
    preheat::{self, PreheatScope, Wish},
    roles,
    setup::{self, SetupArguments},
    start::{self, load},
    status::{self, View},
    terminal,
};

/// A registry mirror for every container runtime of a host, and a swarm between hosts.
#[derive(Debug, Parser)]
#[command(name = "darter", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every role in one process, on loopback addresses, with no configuration needed.
    Up {
        /// Where the data is kept; default: the user's data directory.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// The roles that the file names.
    Run {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// These roles instead of those in the file.
        #[arg(long, value_delimiter = ',', value_name = "ROLE,...")]
        roles: Vec<String>,
    },
    /// What the running node does.
    Status {
        #[command(flatten)]
        view: View,
        #[command(flatten)]
        node: NodeArguments,
    },
    /// Has an image in the swarm before anybody pulls it.
    Preheat {
        /// As for `docker pull`.
        image: String,
        /// As in linux/amd64, any number of times; default: that of the node.
        #[arg(long = "platform", value_name = "OS/ARCHITECTURE")]
        platforms: Vec<String>,
        #[arg(long, conflicts_with = "platforms")]
        all_platforms: bool,
        #[arg(long, value_enum, default_value = "seeds")]
        scope: PreheatScope,
        #[command(flatten)]
        node: NodeArguments,
    },
    /// Why the hosts that are getting a content have the parents that they have.
    Explain {
        /// As in sha256:…
        task: Digest,
        /// This host alone, whether or not it is getting it.
        #[arg(long, value_name = "ID")]
        host: Option<HostId>,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: NodeArguments,
    },
    /// The resolved configuration, or every problem in the file at once.
    CheckConfig { file: PathBuf },
    /// What the node keeps.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// The authorities by which this host answers as a registry, and who trusts them.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Looks for what keeps pulls from going through this host, and says what mends it.
    Doctor {
        #[command(flatten)]
        doctor: DoctorArguments,
        #[command(flatten)]
        node: NodeArguments,
    },
    /// Points a container runtime at this host, and away again.
    Setup {
        #[command(flatten)]
        setup: SetupArguments,
        #[command(flatten)]
        node: NodeArguments,
    },
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Every content, the last used first.
    Ls {
        #[command(flatten)]
        node: NodeArguments,
    },
    /// Removes one content; whoever reads it now reads on.
    Rm {
        /// As in sha256:…
        digest: Digest,
        #[command(flatten)]
        node: NodeArguments,
    },
    /// Keeps one content, whatever else wants its room, until it is unpinned or removed.
    Pin {
        /// As in sha256:…
        digest: Digest,
        #[command(flatten)]
        node: NodeArguments,
    },
    /// Lets one content go again when its room is wanted.
    Unpin {
        /// As in sha256:…
        digest: Digest,
        #[command(flatten)]
        node: NodeArguments,
    },
}

/// Which running node is meant.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArguments {
    /// The data directory of the node; default: the user's, then the system's.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Take the data directory from this configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    config: Option<PathBuf>,
}

/// Runs the command of this process and tells how it ended.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::fail(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up { data_dir, config } => start::up(data_dir, config.as_deref()),
        Command::Run { config, roles } => start::run(&config, roles),
        Command::Status { view, node } => status::show(&node.data_dirs()?, view),
        Command::Preheat {
            image,
            platforms,
            all_platforms,
            scope,
            node,
        } => {
            let wish = Wish {
                image,
                platforms,
                all_platforms,
                scope,
            };
            preheat::run(&node.data_dirs()?, &wish)
        }
        Command::Explain {
            task,
            host,
            json,
            node,
        } => explain(task, host, json, &node),
        Command::Cache(command) => cache(&command),
        Command::Ca(command) => ca::run(command, roles::wall_clock()),
        Command::CheckConfig { file } => check_config(&file),
        Command::Doctor { doctor, node } => examine(&doctor, &node),
        Command::Setup { setup, node } => set_up(&setup, &node),
    }
}

fn check_config(file: &Path) -> anyhow::Result<()> {
    let raw = load(file)?;
    terminal::say(
        toml::to_string(&raw)
            .context("the configuration cannot be printed")?
            .trim_end(),
    );
    Ok(())
}

fn explain(
    task: Digest,
    host: Option<HostId>,
    as_json: bool,
    node: &NodeArguments,
) -> anyhow::Result<()> {
    let host = host.map_or_else(String::new, |host| format!("?{host}"));
    let path = format!("/explain/{task}{host}");
    let explained: Explained = client::ask(&node.data_dirs()?, &Method::GET, &path)?;
    match as_json {
        true => terminal::say(&serde_json::to_string(&explained)?),
        false => terminal::say(&explained.to_string()),
    }
    Ok(())
}

fn cache(command: &CacheCommand) -> anyhow::Result<()> {
    match command {
        CacheCommand::Ls { node } => {
            let list: CacheList = client::ask(&node.data_dirs()?, &Method::GET, "/cache")?;
            terminal::say(&list.to_string());
        }
        CacheCommand::Rm { digest, node } => {
            let path = format!("/cache/{digest}");
            let removal: CacheRemoval = client::ask(&node.data_dirs()?, &Method::DELETE, &path)?;
            anyhow::ensure!(removal.removed, "{digest} is not in the store");
            terminal::say(&format!("{digest} is removed"));
        }
        CacheCommand::Pin { digest, node } => {
            pin(node, &Method::POST, digest)?;
            terminal::say(&format!("{digest} stays"));
        }
        CacheCommand::Unpin { digest, node } => {
            pin(node, &Method::DELETE, digest)?;
            terminal::say(&format!("{digest} may go"));
        }
    }
    Ok(())
}

fn pin(node: &NodeArguments, method: &Method, digest: &Digest) -> anyhow::Result<()> {
    let path = format!("/cache/{digest}/pin");
    let pin: CachePin = client::ask(&node.data_dirs()?, method, &path)?;
    pin.problem.map_or(Ok(()), |problem| anyhow::bail!(problem))
}

fn set_up(arguments: &SetupArguments, node: &NodeArguments) -> anyhow::Result<()> {
    let raw = node.configuration()?;
    let data_dir = node.data_dir_of(&raw)?;
    setup::run(arguments, &raw, &data_dir, roles::wall_clock())
}

fn examine(arguments: &DoctorArguments, node: &NodeArguments) -> anyhow::Result<()> {
    let raw = node.configuration();
    let data_dir = match &raw {
        Ok(raw) => node.data_dir_of(raw)?,
        Err(_) => node
            .data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(DATA_DIR)),
    };
    let patient = Patient { raw, data_dir };
    doctor::run(arguments, patient, roles::wall_clock)
}

// === impl NodeArguments ===

impl NodeArguments {
    /// Where the node may run, likeliest first.
    pub(crate) fn data_dirs(&self) -> anyhow::Result<Vec<PathBuf>> {
        match (&self.data_dir, &self.config) {
            (Some(data_dir), _) => Ok(vec![data_dir.clone()]),
            (None, Some(config)) => Ok(vec![load(config)?.data_dir]),
            (None, None) => Ok(environment::user_data_dir()
                .into_iter()
                .chain([PathBuf::from(DATA_DIR)])
                .collect()),
        }
    }

    /// The configuration of the node; that of a node without one where none is named or lies at its
    /// customary place.
    fn configuration(&self) -> anyhow::Result<RawConfig> {
        match &self.config {
            Some(config) => load(config),
            None if self.data_dir.is_none() && Path::new(CONFIG_FILE).exists() => {
                load(Path::new(CONFIG_FILE))
            }
            None => Ok(RawConfig::default()),
        }
    }

    /// The one data directory of the node whose configuration is `raw`: the one that was named, else the
    /// first that a node or a setup has used, else the one that the configuration names.
    fn data_dir_of(&self, raw: &RawConfig) -> anyhow::Result<PathBuf> {
        if let Some(data_dir) = &self.data_dir {
            return Ok(data_dir.clone());
        }
        let is_used = |data_dir: &PathBuf| {
            DataDir::socket_in(data_dir).exists() || data_dir.join("setup").exists()
        };
        let used = [vec![raw.data_dir.clone()], self.data_dirs()?]
            .concat()
            .into_iter()
            .find(is_used);
        Ok(used.unwrap_or_else(|| raw.data_dir.clone()))
    }

    /// The registries that its configuration, where one is named, intercepts by name.
    pub(crate) fn intercepted(&self) -> anyhow::Result<Vec<RegistryName>> {
        let Some(config) = &self.config else {
            return Ok(Vec::new());
        };
        let intercept = load(config)?.proxy.intercept;
        let named = intercept.iter().filter_map(|text| text.parse().ok());
        Ok(named.collect())
    }
}
