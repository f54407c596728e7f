//! A certificate authority in memory: for a cluster of one host, and for tests.
//!
//! It issues what [`super::names`] reads. It keeps no record of what it issued.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::UnixTime;

use super::{IdentityError, names};
use crate::host::{HostId, Roles};

/// How long a certificate holds where nothing else is said.
pub const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far back a certificate begins, for hosts whose clocks are behind.
const BACKDATING: Duration = Duration::from_secs(5 * 60);

/// The authority of one cluster.
pub struct Authority {
    cluster: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    ca_pem: String,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct IssuedPem {
    pub certificate: String,
    pub key: String,
}

// === impl Authority ===

impl Authority {
    /// A new authority for `cluster`, with a key of its own.
    pub fn new(cluster: &str) -> Result<Self, IdentityError> {
        Self::lasting(cluster, LIFETIME)
    }

    /// As [`Authority::new`], for as long as `lifetime`.
    pub fn lasting(cluster: &str, lifetime: Duration) -> Result<Self, IdentityError> {
        let cluster = names::checked_cluster(cluster)?;
        let mut params = params_from(wall_time(), lifetime)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = common_name(&format!("Darter CA of {cluster}"));
        let issuer = CertifiedIssuer::self_signed(params, new_key()?).map_err(issue_error)?;
        let ca_pem = issuer.pem();
        Ok(Self {
            cluster,
            issuer,
            ca_pem,
        })
    }

    /// The certificate that hosts of the cluster trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A new key and a certificate that names `id` and `roles`.
    pub fn issue(&self, id: &HostId, roles: Roles) -> Result<IssuedPem, IdentityError> {
        self.issue_for(id, roles, LIFETIME)
    }

    /// As [`Authority::issue`], for as long as `lifetime` from now.
    pub fn issue_for(
        &self,
        id: &HostId,
        roles: Roles,
        lifetime: Duration,
    ) -> Result<IssuedPem, IdentityError> {
        let dns_name = names::dns_name(id, &self.cluster);
        self.issue_names(
            &[&dns_name],
            &[&names::roles_uri(roles)],
            new_key()?,
            (wall_time(), lifetime),
        )
    }

    /// A certificate for `key` with these DNS names and URIs, as of a time and for so long.
    pub(super) fn issue_names(
        &self,
        dns_names: &[&str],
        uris: &[&str],
        key: KeyPair,
        (now, lifetime): (UnixTime, Duration),
    ) -> Result<IssuedPem, IdentityError> {
        let mut params = params_from(now, lifetime)?;
        for name in dns_names {
            let name = (*name).try_into().map_err(issue_error)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        for uri in uris {
            let uri = (*uri).try_into().map_err(issue_error)?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.distinguished_name = common_name("Darter host");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).map_err(issue_error)?;
        Ok(IssuedPem {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for IssuedPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IssuedPem")
    }
}

/// The wall clock. Certificates are the one thing that depends on it.
pub(super) fn wall_time() -> UnixTime {
    UnixTime::now()
}

fn params_from(now: UnixTime, lifetime: Duration) -> Result<CertificateParams, IdentityError> {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs());
    let mut params = CertificateParams::new(Vec::new()).map_err(issue_error)?;
    params.not_before = now - BACKDATING;
    params.not_after = now + lifetime;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(issue_error)
}

fn issue_error(error: rcgen::Error) -> IdentityError {
    IdentityError::Issue(error.to_string())
}
