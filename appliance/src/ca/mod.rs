//! The local authorities: what a host proves to be to its own clients when it answers as a registry.
//!
//! One for each intercepted registry and one for the loopback names, each limited to its own names,
//! so that to trust one is to trust it with one registry. Never for the trust of the whole system.

mod constraints;
mod files;
mod install;
mod issue;
mod leaves;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use protocol::{RegistryName, digest};
use proxy::Owner;

pub(crate) use files::Authorities;
pub(crate) use install::CERTIFICATE;
pub(crate) use leaves::Leaves;

use crate::{command::NodeArguments, setup::Runtime, terminal, whole_file};
use constraints::Permitted;
use files::Authority;

/// `darter ca`.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Prints authorities: for whom they can speak, until when, and the certificates as PEM.
    Show {
        /// As image names spell it, or `localhost`; default: every one that was made or is configured.
        registry: Option<String>,
        #[command(flatten)]
        node: NodeArguments,
    },
    /// Has a runtime trust the authority of one registry, for that registry alone.
    Install {
        #[arg(value_enum)]
        runtime: Runtime,
        /// As image names spell it.
        #[arg(long)]
        registry: String,
        /// Below which directory the runtime's /etc is; for images and tests.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        #[command(flatten)]
        node: NodeArguments,
    },
}

/// Who may read what a runtime reads.
const INSTALLED_MODE: u32 = 0o644;

/// Runs `darter ca`.
pub(crate) fn run(command: CaCommand, now: SystemTime) -> anyhow::Result<()> {
    match command {
        CaCommand::Show { registry, node } => show(registry.as_deref(), &node, now),
        CaCommand::Install {
            runtime,
            registry,
            root,
            node,
        } => {
            let owner = constraints::owner(&registry)?;
            let authority = authorities(&node)?.open(&owner, now)?;
            install(runtime, &owner, &authority, &root)
        }
    }
}

fn show(registry: Option<&str>, node: &NodeArguments, now: SystemTime) -> anyhow::Result<()> {
    let authorities = authorities(node)?;
    let owners = match registry {
        Some(text) => vec![constraints::owner(text)?],
        None => {
            let mut owners = node
                .intercepted()?
                .into_iter()
                .map(Owner::Registry)
                .collect();
            for made in authorities.made()? {
                push_once(&mut owners, made);
            }
            owners
        }
    };
    if owners.is_empty() {
        bail!(
            "no authority was made yet: name a registry, as in `darter ca show registry.example`"
        );
    }
    for owner in owners {
        let authority = authorities.open(&owner, now)?;
        terminal::say(&described(&owner, &authority)?);
    }
    Ok(())
}

fn push_once(owners: &mut Vec<Owner>, owner: Owner) {
    if !owners.contains(&owner) {
        owners.push(owner);
    }
}

/// The certificate, with what a person wants to know of it in lines that PEM leaves out.
fn described(owner: &Owner, authority: &Authority) -> anyhow::Result<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(authority.certificate.as_bytes())
        .context("the certificate is no PEM")?;
    let fingerprint = digest::Digest::sha256_of(&pem.contents);
    let fingerprint = fingerprint.as_bytes().iter();
    let fingerprint: Vec<_> = fingerprint.map(|byte| format!("{byte:02X}")).collect();
    Ok(format!(
        "# {}\n# speaks for: {}; for no other name and no other address\n# until: {}\n# SHA-256: {}\n{}",
        constraints::directory(owner),
        Permitted::of(owner).told(),
        humantime::format_rfc3339_seconds(authority.not_after),
        fingerprint.join(":"),
        authority.certificate.trim_end(),
    ))
}

/// Where `runtime` reads whom to believe for `registry`, or why it has no such place.
pub(crate) fn place(runtime: Runtime, registry: &RegistryName) -> Result<PathBuf, &'static str> {
    let placed = install::placement(runtime, registry)?;
    Ok(PathBuf::from(placed.certificate))
}

/// The certificate of the authority for `registry` in `data_dir`, made where there is none.
pub(crate) fn certificate(
    data_dir: &Path,
    registry: &RegistryName,
    now: SystemTime,
) -> anyhow::Result<String> {
    let owner = Owner::Registry(registry.clone());
    Ok(Authorities::new(data_dir).open(&owner, now)?.certificate)
}

/// For whom authorities were made in `data_dir`, and their certificates.
pub(crate) fn made(data_dir: &Path) -> anyhow::Result<Vec<(String, Result<String, String>)>> {
    let authorities = Authorities::new(data_dir);
    let told = |owner: Owner| {
        let certificate = authorities.certificate(&owner);
        let certificate = certificate.ok_or_else(|| "its certificate cannot be read".to_owned());
        let name = match &owner {
            Owner::Registry(registry) => registry.to_string(),
            Owner::Loopback => "localhost".to_owned(),
        };
        (name, certificate)
    };
    Ok(authorities.made()?.into_iter().map(told).collect())
}

/// The same, where there is one.
pub(crate) fn made_certificate(data_dir: &Path, registry: &RegistryName) -> Option<String> {
    Authorities::new(data_dir).certificate(&Owner::Registry(registry.clone()))
}

fn install(
    runtime: Runtime,
    owner: &Owner,
    authority: &Authority,
    root: &Path,
) -> anyhow::Result<()> {
    let Owner::Registry(registry) = owner else {
        bail!(
            "runtimes go to localhost in plain HTTP; `darter ca show localhost` prints its authority"
        );
    };
    let placed = install::placement(runtime, registry).map_err(anyhow::Error::msg)?;
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let certificate = below(&placed.certificate);
    write(&certificate, &authority.certificate)?;
    terminal::say(&format!("wrote {}", certificate.display()));
    if let Some(file) = placed.names_it {
        let path = below(&file.path);
        match fs::read_to_string(&path) {
            Ok(text) if text.contains(&placed.certificate) => {}
            Ok(_) => terminal::say(&format!(
                "add this line to {}, {}:\n{}",
                path.display(),
                file.place,
                file.line
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write(&path, &file.text)?;
                terminal::say(&format!("wrote {}", path.display()));
            }
            Err(error) => return Err(error).context(path.display().to_string()),
        }
    }
    terminal::say(placed.then);
    Ok(())
}

/// Writes a file of a runtime, with the directories that it lacks.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let directory = path.parent().context("a file has a directory")?;
    let made = fs::create_dir_all(directory);
    let readable = Permissions::from_mode(INSTALLED_MODE);
    made.and_then(|()| {
        whole_file::write(path, text, |fresh| {
            fresh.as_file().set_permissions(readable)
        })
    })
    .with_context(|| format!("{} cannot be written", path.display()))
}

/// The authorities of the node that is meant: it may run, or be started later.
fn authorities(node: &NodeArguments) -> anyhow::Result<Authorities> {
    let candidates = node.data_dirs()?;
    let chosen = match candidates.as_slice() {
        [one] => Some(one),
        several => several.iter().find(|path| path.is_dir()),
    };
    let chosen = chosen.context("no node has run here; name its directory with --data-dir")?;
    Ok(Authorities::new(chosen))
}
