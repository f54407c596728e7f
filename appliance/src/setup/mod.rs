//! Points a container runtime at this host, and away again: `darter setup`.
//!
//! What is written where is decided in pure files (`plan`, `edit`, `change`); `run` reads, records and
//! writes. Every change is recorded before it is made, so that `--undo` finds its way back from any
//! point at which a setup was cut off.

mod change;
mod edit;
mod file;
mod intercept;
mod plan;
mod record;
mod run;
mod runtime;
mod state;
mod wish;

use std::path::{Path, PathBuf};

pub(crate) use run::run;
pub(crate) use runtime::Runtime;
pub(crate) use state::{State, is_installed, state};

/// How a runtime reaches the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// The proxy is a mirror of registries, in plain HTTP on the loopback.
    Mirror,
    /// The proxy is the runtime's HTTPS proxy, and opens the TLS of the registries that it intercepts.
    Intercept,
}

/// What was typed after `darter setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetupArguments {
    #[arg(value_enum)]
    pub(crate) runtime: Runtime,
    /// A mirror of registries, or the HTTPS proxy of the runtime.
    #[arg(long, value_enum, default_value = "mirror")]
    pub(crate) mode: Mode,
    /// This registry, any number of times; default: the well-known ones and those of the configuration,
    /// or those that it intercepts.
    #[arg(long = "registry", value_name = "NAME")]
    pub(crate) registries: Vec<String>,
    /// The port of the proxy; default: that of the configuration.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Show what would be changed, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take back what an earlier setup of this runtime has changed.
    #[arg(long)]
    pub(crate) undo: bool,
    /// Find the files of the runtime below this directory, as in an image that is being built.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
}

/// The port of the proxy where nothing else is said.
pub(crate) const PROXY_PORT: u16 = 65001;

/// How `runtime` is pointed at the proxy on `port`, in one line.
pub(crate) fn hint(runtime: Runtime, port: u16) -> String {
    let name = runtime.as_str();
    match port {
        PROXY_PORT => format!("darter setup {name}"),
        _ => format!("darter setup {name} --port {port}"),
    }
}

/// `path` as it lies below `root`.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
