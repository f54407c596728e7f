//! Makes the certificates of local authorities and of what they prove; keeps and reads nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use proxy::Owner;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::constraints::{self, Permitted};

/// A certificate of an authority, and its key.
pub(super) struct Leaf {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
    /// When the next one is to be made.
    pub(super) renew_at: SystemTime,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an authority holds. Runtimes are given its certificate once.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(5 * 365 * DAY.as_secs());

/// How long before its end an authority gets its next certificate, for the same key, so that
/// runtimes that have the last one need not be told at once.
pub(super) const RENEW_BEFORE: Duration = Duration::from_secs(365 * DAY.as_secs());

/// How long a certificate holds that an authority gives out; half of it is used.
const LEAF_LIFETIME: Duration = Duration::from_secs(7 * DAY.as_secs());

/// How far back certificates begin, for clocks that are behind or set back.
const BACKDATING: Duration = Duration::from_secs(60 * 60);

pub(super) fn new_key() -> anyhow::Result<KeyPair> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// The PEM certificate of `owner`'s authority, which has `key`.
pub(super) fn authority(owner: &Owner, key: &KeyPair, now: SystemTime) -> anyhow::Result<String> {
    let params = authority_params(owner, now)?;
    Ok(params.self_signed(key)?.pem())
}

/// A certificate for `name` by the authority of `owner`, which has `key`.
pub(super) fn leaf(
    owner: &Owner,
    key: &KeyPair,
    name: &ServerName<'static>,
    now: SystemTime,
) -> anyhow::Result<Leaf> {
    let told = name.to_str().into_owned();
    ensure!(
        Permitted::of(owner).holds(name),
        "{told} is none of the names of {}",
        constraints::directory(owner)
    );
    let mut params = params(now, LEAF_LIFETIME)?;
    params.subject_alt_names = vec![match name {
        ServerName::IpAddress(address) => SanType::IpAddress((*address).into()),
        other => SanType::DnsName(other.to_str().into_owned().try_into()?),
    }];
    params.distinguished_name = common_name("Darter");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let own_key = new_key()?;
    // Name and key of the issuer tell which it is, whatever its certificate's dates are.
    let issuer = Issuer::new(authority_params(owner, now)?, key);
    let certificate = params.signed_by(&own_key, &issuer)?;
    Ok(Leaf {
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::Pkcs8(own_key.serialize_der().into()),
        renew_at: now + LEAF_LIFETIME / 2,
    })
}

fn authority_params(owner: &Owner, now: SystemTime) -> anyhow::Result<CertificateParams> {
    let mut params = params(now, AUTHORITY_LIFETIME)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.name_constraints = Some(Permitted::of(owner).constraints());
    let name = format!("Darter on this host for {}", constraints::directory(owner));
    params.distinguished_name = common_name(&name);
    Ok(params)
}

fn params(now: SystemTime, lifetime: Duration) -> anyhow::Result<CertificateParams> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = now.duration_since(UNIX_EPOCH)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.not_before = epoch + since - BACKDATING;
    params.not_after = epoch + since + lifetime;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
