//! What is wished of a setup, by what was typed and what the node is configured with; and whom the
//! runtime is to believe for it.

use std::{path::Path, time::SystemTime};

use anyhow::ensure;

use super::{
    Mode, PROXY_PORT, SetupArguments, intercept,
    plan::{ANY, Authority, Registry, Wish},
};
use crate::{ca, config::RawConfig};

/// What a dry run shows of a certificate that is not there yet.
const UNMADE: &str = "(the certificate that is made then)\n";

/// Whom it names and how; the registries that were typed, else those that are configured.
pub(super) fn read(arguments: &SetupArguments, raw: &RawConfig) -> anyhow::Result<Wish> {
    let configured = configured(raw);
    let named = |name: &String| {
        ensure!(Registry::check(name), "`{name}` is no name of a registry");
        let known = configured.iter().find(|registry| registry.name == *name);
        Ok(known.cloned().unwrap_or_else(|| Registry::well_known(name)))
    };
    let intercepted = match arguments.mode {
        Mode::Mirror => Vec::new(),
        Mode::Intercept => intercept::named(&raw.proxy.intercept),
    };
    let registries = match arguments.registries.is_empty() {
        true if !intercepted.is_empty() => intercepted,
        true => arguments.runtime.default_registries(&configured),
        false => arguments
            .registries
            .iter()
            .map(named)
            .collect::<anyhow::Result<_>>()?,
    };
    let listens = raw.proxy.listen.port();
    Ok(Wish {
        runtime: arguments.runtime,
        mode: arguments.mode,
        port: arguments
            .port
            .unwrap_or(if listens == 0 { PROXY_PORT } else { listens }),
        registries,
        authorities: Vec::new(),
    })
}

/// Gathers the authorities that the runtime is to believe, and what to say of those it cannot. They
/// are made where there are none, but for a dry run.
pub(super) fn believe(
    wish: &mut Wish,
    arguments: &SetupArguments,
    raw: &RawConfig,
    data_dir: &Path,
    now: SystemTime,
) -> anyhow::Result<Vec<String>> {
    let mut told: Vec<String> = Vec::new();
    told.extend(intercept::unlisted(&wish.registries, &raw.proxy.intercept));
    for registry in wish.registries.iter().filter(|one| one.name != ANY) {
        let name = registry.name.parse()?;
        let path = match ca::place(wish.runtime, &name) {
            Ok(path) => path,
            Err(why) => {
                told.push(why.to_owned());
                continue;
            }
        };
        let certificate = match arguments.dry_run {
            true => ca::made_certificate(data_dir, &name).unwrap_or_else(|| UNMADE.to_owned()),
            false => ca::certificate(data_dir, &name, now)?,
        };
        wish.authorities.push(Authority {
            registry: registry.name.clone(),
            path,
            certificate,
        });
    }
    Ok(told)
}

/// The registries that `raw` configures.
fn configured(raw: &RawConfig) -> Vec<Registry> {
    let entries = raw.proxy.registry.iter();
    entries
        .map(|entry| Registry::configured(&entry.name, &entry.endpoint))
        .collect()
}
