//! Gathers what lies on this host: the configuration, the data directory, certificates, and the files
//! of runtimes.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{Access, access, statvfs};
use x509_parser::pem::parse_x509_pem;

use super::facts::{Certificate, Disk, Runtime, Setup};
use crate::{
    ca,
    config::{Config, Problems, RawConfig},
    setup,
};

/// A configuration as written and as run.
pub(super) type Checked = (RawConfig, Config);

/// The longest certificate file that is read, in bytes.
const CERTIFICATE_LEN_MAX: u64 = 1 << 20;

pub(super) fn checked(raw: RawConfig) -> anyhow::Result<Checked> {
    let config = raw.clone().check().map_err(|problems| Problems {
        source: "the configuration".to_owned(),
        problems,
    })?;
    Ok((raw, config))
}

/// Where runtimes ask a node that does not run.
pub(super) fn port_of(checked: Option<&Checked>) -> u16 {
    let listens = checked.map(|(raw, _)| raw.proxy.listen.port());
    listens
        .filter(|port| *port != 0)
        .unwrap_or(setup::PROXY_PORT)
}

pub(super) fn disk(data_dir: &Path, checked: Option<&Checked>) -> Result<Disk, String> {
    let metadata = fs::metadata(data_dir).map_err(|error| error.to_string())?;
    if !metadata.is_dir() {
        return Err("it is no directory".to_owned());
    }
    let room = statvfs(data_dir).map_err(|error| error.to_string())?;
    let min_free = checked.map_or_else(
        || swarm::config::RawConfig::default().min_free.as_u64(),
        |(_, config)| config.swarm.min_free,
    );
    Ok(Disk {
        free: room.f_bavail.saturating_mul(room.f_frsize),
        min_free,
        is_writable: access(data_dir, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        is_open: metadata.mode() & 0o022 != 0,
    })
}

/// The certificate by which other hosts know this one, and the local authorities.
pub(super) fn certificates(data_dir: &Path, checked: Option<&Checked>) -> Vec<Certificate> {
    let mut certificates = Vec::new();
    let file = checked.map(|(raw, _)| &raw.identity.cert);
    if let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) {
        let text = read(file);
        certificates.push(Certificate {
            of: format!("the certificate of this host, {},", file.display()),
            renewal: "issue a new one, put it and its key there, and reload darter".to_owned(),
            validity: text.and_then(|text| validity(&text)),
        });
    }
    let made = ca::made(data_dir)
        .unwrap_or_else(|error| vec![("the registries".to_owned(), Err(format!("{error:#}")))]);
    for (of, certificate) in made {
        certificates.push(Certificate {
            renewal: format!("darter ca show {of}, then darter ca install for each runtime again"),
            of: format!("the local authority for {of}"),
            validity: certificate.and_then(|text| validity(&text)),
        });
    }
    certificates
}

pub(super) fn runtimes(root: &Path, data_dir: &Path, port: u16) -> Vec<Runtime> {
    let all = setup::Runtime::ALL.into_iter();
    all.map(|runtime| Runtime {
        name: runtime.as_str(),
        is_installed: setup::is_installed(root, runtime),
        setup: setup::state(root, data_dir, runtime, port)
            .map(|state| match state {
                setup::State::Unset => Setup::None,
                setup::State::ByHand => Setup::ByHand,
                setup::State::Recorded {
                    missing,
                    is_port_named,
                } => Setup::Recorded {
                    missing,
                    is_port_named,
                },
            })
            .map_err(|error| format!("{error:#}")),
    })
    .collect()
}

fn read(file: &Path) -> Result<String, String> {
    let len = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if CERTIFICATE_LEN_MAX < len {
        return Err("it is too long to be a certificate".to_owned());
    }
    fs::read_to_string(file).map_err(|error| error.to_string())
}

/// From when until when the first certificate in `text` holds.
fn validity(text: &str) -> Result<(SystemTime, SystemTime), String> {
    let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|_| "it is no PEM".to_owned())?;
    let parsed = pem.parse_x509().map_err(|error| error.to_string())?;
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
    let validity = parsed.validity();
    Ok((
        time(validity.not_before.timestamp()),
        time(validity.not_after.timestamp()),
    ))
}
