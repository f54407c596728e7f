//! `up` and `run`: from a configuration file, or none, to a running node.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};

use crate::{
    accept::ListenerName,
    config::{Config, Problem, Problems, RawConfig, read},
    environment, logging,
    node::{self, Endpoint},
    reload,
    setup::{self, Runtime},
    terminal,
};

/// Every role in one process, on loopback addresses only.
pub(crate) fn up(data_dir: Option<PathBuf>, file: Option<&Path>) -> anyhow::Result<()> {
    let mut raw = file.map(load).transpose()?.unwrap_or_default();
    if let Some(data_dir) = data_dir {
        raw.data_dir = data_dir;
    } else if !file.map(names_data_dir).transpose()?.unwrap_or_default() {
        raw.data_dir = environment::user_data_dir()
            .context("this user has no home directory; name a place with --data-dir")?;
    }
    for (key, address) in raw.listeners() {
        if !address.ip().is_loopback() {
            bail!(
                "`darter up` binds loopback addresses only; {key} is {address}: use `darter run`"
            );
        }
    }
    let shown = raw.clone();
    let config = check(raw, "the configuration")?;
    start(config, None, move |endpoints| welcome(&shown, endpoints))
}

/// The roles that the file names, or `roles` where any are given.
pub(crate) fn run(file: &Path, roles: Vec<String>) -> anyhow::Result<()> {
    let file = file.to_owned();
    let read = move || {
        let mut raw = load(&file)?;
        if !roles.is_empty() {
            raw.roles = roles.clone();
        }
        let config = check(raw.clone(), "--roles")?;
        Ok((raw, config))
    };
    let (raw, config): (RawConfig, Config) = read()?;
    let source = reload::Source {
        raw,
        read: Arc::new(read),
    };
    start(config, Some(source), |endpoints| {
        for endpoint in endpoints {
            tracing::info!(listener = endpoint.name.label(), addresses = ?endpoint.addresses, "listening");
        }
    })
}

/// The file as written; an error names every problem in it.
pub(crate) fn load(file: &Path) -> anyhow::Result<RawConfig> {
    let (raw, _checked) = read(&text_of(file)?).map_err(|problems| Problems {
        source: file.display().to_string(),
        problems,
    })?;
    Ok(raw)
}

fn text_of(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn names_data_dir(file: &Path) -> anyhow::Result<bool> {
    let table: toml::Table = text_of(file)?.parse()?;
    Ok(table.contains_key("data_dir"))
}

fn check(raw: RawConfig, source: &str) -> anyhow::Result<Config> {
    let told = |problems: Vec<Problem>| Problems {
        source: source.to_owned(),
        problems,
    };
    Ok(raw.check().map_err(told)?)
}

fn start(
    config: Config,
    source: Option<reload::Source>,
    announce: impl FnOnce(&[Endpoint]),
) -> anyhow::Result<()> {
    logging::start(config.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(node::run(config, source, announce));
    // What is still on the blocking pool works on files that hold at any instruction.
    runtime.shutdown_background();
    ended
}

/// What a person who typed `darter up` reads.
fn welcome(raw: &RawConfig, endpoints: &[Endpoint]) {
    let mut text = format!(
        "Darter {} is up. Data: {}\n",
        env!("CARGO_PKG_VERSION"),
        raw.data_dir.display()
    );
    for Endpoint { name, addresses } in endpoints {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            "  {:<10} {}\n",
            name.label(),
            addresses.join(" and ")
        ));
    }
    let proxy = endpoints
        .iter()
        .find(|endpoint| endpoint.name == ListenerName::Proxy);
    if let Some(port) = proxy
        .and_then(|proxy| proxy.addresses.first())
        .map(std::net::SocketAddr::port)
    {
        text.push_str("Point a runtime here:\n");
        for runtime in Runtime::ALL {
            text.push_str(&format!(
                "  {:<10} {}\n",
                runtime.as_str(),
                setup::hint(runtime, port)
            ));
        }
    }
    terminal::say(text.trim_end());
}
