//! How log lines are written: text for a person, JSON for a collector.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::{
    config::LogFormat,
    environment::{self, LOG_VARIABLE},
    terminal,
};

/// What is logged where nothing else is said.
const DEFAULT_FILTER: &str = "info";

/// Starts logging for the whole process, to standard error.
pub(crate) fn start(format: LogFormat) -> anyhow::Result<()> {
    let filter = environment::log_filter().unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    let filter = EnvFilter::try_new(&filter).with_context(|| {
        format!("{LOG_VARIABLE}={filter} is no filter; write for example info,swarm=debug")
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let as_json = match format {
        LogFormat::Auto => !terminal::is_attended(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let started = if as_json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_ansi(terminal::is_attended()).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}
