//! Pure: what a host certificate says, and how it is written.
//!
//! A host certificate has exactly one DNS name `<id>.<cluster>.darter.internal` and exactly one
//! URI `darter:roles:<role>+<role>`. Other names in it mean nothing to Darter.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{IdentityError, PeerIdentity};
use crate::host::{HostId, Role, Roles};

const DOMAIN: &str = ".darter.internal";
const ROLES_SCHEME: &str = "darter:roles:";

/// What one certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertifiedNames {
    pub(super) id: HostId,
    pub(super) cluster: String,
    pub(super) roles: Roles,
    /// When the certificate holds, in seconds since 1970.
    pub(super) validity: std::ops::RangeInclusive<u64>,
}

// === impl CertifiedNames ===

impl CertifiedNames {
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| unreadable(&format!("it is no X.509 certificate ({error})")))?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| unreadable(&format!("its alternative names are broken ({error})")))?
            .ok_or_else(|| unreadable("it has no alternative names"))?;
        let names = &names.value.general_names;
        let host = only(names.iter().filter_map(host_labels)).ok_or_else(|| {
            unreadable("it must have one DNS name of the form <id>.<cluster>.darter.internal")
        })?;
        let roles = only(names.iter().filter_map(roles_text)).ok_or_else(|| {
            unreadable("it must have one URI of the form darter:roles:<role>+<role>")
        })?;
        let (id, cluster) = host
            .split_once('.')
            .ok_or_else(|| unreadable("its DNS name lacks the id or the cluster"))?;
        let validity = parsed.validity();
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        Ok(Self {
            id: id
                .parse()
                .map_err(|error| unreadable(&format!("{error}")))?,
            cluster: checked_cluster(cluster)?,
            roles: read_roles(roles),
            validity: seconds(validity.not_before.timestamp())
                ..=seconds(validity.not_after.timestamp()),
        })
    }

    /// The time nearest to `now` at which the certificate holds.
    pub(super) fn nearest(&self, now: UnixTime) -> UnixTime {
        let (from, until) = (*self.validity.start(), *self.validity.end());
        let seconds = now.as_secs().max(from).min(until);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// The holder, if it is of the cluster `ours`.
    pub(super) fn peer_in(self, ours: &str) -> Result<PeerIdentity, IdentityError> {
        if self.cluster != ours {
            return Err(IdentityError::OtherCluster {
                told: self.cluster,
                ours: ours.to_owned(),
            });
        }
        Ok(PeerIdentity {
            id: self.id,
            roles: self.roles,
        })
    }
}

/// `<id>.<cluster>.darter.internal`
pub(super) fn dns_name(id: &HostId, cluster: &str) -> String {
    format!("{id}.{cluster}{DOMAIN}")
}

/// `darter:roles:proxy+seed`
pub(super) fn roles_uri(roles: Roles) -> String {
    format!("{ROLES_SCHEME}{}", role_words(roles))
}

/// `proxy+seed`; the order is that of [`Role::ALL`].
pub(super) fn role_words(roles: Roles) -> String {
    let words: Vec<&str> = roles.iter().map(Role::as_str).collect();
    words.join("+")
}

/// A cluster is named by a DNS label, as a host is.
pub(super) fn checked_cluster(name: &str) -> Result<String, IdentityError> {
    match name.parse::<HostId>() {
        Ok(label) => Ok(label.as_str().to_owned()),
        Err(_) => Err(IdentityError::Cluster(name.to_owned())),
    }
}

/// A role that this version does not know gives its holder nothing, so a newer authority may name
/// it without shutting older hosts out.
fn read_roles(text: &str) -> Roles {
    text.split('+')
        .filter_map(|word| word.parse::<Role>().ok())
        .collect()
}

fn host_labels<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::DNSName(name) => name.strip_suffix(DOMAIN),
        _ => None,
    }
}

fn roles_text<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => uri.strip_prefix(ROLES_SCHEME),
        _ => None,
    }
}

/// The item of an iterator that has exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

fn unreadable(problem: &str) -> IdentityError {
    IdentityError::Names(problem.to_owned())
}
