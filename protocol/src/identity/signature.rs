//! Signing with a host key, and checking that a signature is of a host of this cluster.
//!
//! A signature begins with two bytes that name its TLS signature scheme. The check ties the scheme
//! to the kind of key in the certificate, so naming another one only makes a signature fail.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    RootCertStore, SignatureScheme,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    sign::{Signer, SigningKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::{ChainFault, IdentityError, PeerIdentity, names::CertifiedNames};

/// What a host may sign with, best first.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
];

/// Signers whose chain is remembered; when one more comes, all are forgotten.
const KNOWN_MAX: usize = 1024;

/// A signature, and the certificate (DER) whose key made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub certificate: Vec<u8>,
    pub signature: Vec<u8>,
}

/// The key of this host's certificate.
pub(super) struct HostKey {
    key: Arc<dyn SigningKey>,
    signer: Box<dyn Signer>,
}

/// Checks certificates against the authorities of the cluster, and remembers those that hold, so
/// that many messages of one signer cost one signature check each.
pub(super) struct Verifier {
    anchors: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    known: Mutex<HashMap<[u8; 32], CertifiedNames>>,
}

// === impl HostKey ===

impl HostKey {
    pub(super) fn load(
        provider: &CryptoProvider,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        let key = provider
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|error| IdentityError::Key(error.to_string()))?;
        let signer = key.choose_scheme(&SCHEMES).ok_or_else(|| {
            IdentityError::Key("it must be ECDSA P-256 or P-384, Ed25519, or RSA".to_owned())
        })?;
        Ok(Self { key, signer })
    }

    pub(super) fn for_tls(&self) -> Arc<dyn SigningKey> {
        Arc::clone(&self.key)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let Ok(signature) = self.signer.sign(message) else {
            return Vec::new();
        };
        let mut signed = u16::from(self.signer.scheme()).to_be_bytes().to_vec();
        signed.extend_from_slice(&signature);
        signed
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKey")
    }
}

// === impl Verifier ===

impl Verifier {
    pub(super) fn new(roots: &RootCertStore, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self {
            anchors: roots.roots.clone(),
            algorithms,
            known: Mutex::default(),
        }
    }

    /// Checks that this host's own certificate may be used at both ends of a connection.
    pub(super) fn check_own(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<(), IdentityError> {
        self.check_chain(certificate, now, KeyUsage::server_auth())?;
        self.check_chain(certificate, now, KeyUsage::client_auth())
    }

    /// Who holds `certificate`, if it is of this cluster and holds at `now`.
    pub(super) fn holder(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
        cluster: &str,
    ) -> Result<PeerIdentity, IdentityError> {
        let fingerprint = *blake3::hash(certificate).as_bytes();
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&fingerprint)
            .cloned();
        if let Some(names) = known
            && names.validity.contains(&now.as_secs())
        {
            return names.peer_in(cluster);
        }
        self.check_chain(certificate, now, KeyUsage::client_auth())?;
        let names = CertifiedNames::read(certificate)?;
        let peer = names.clone().peer_in(cluster)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(fingerprint, names);
        Ok(peer)
    }

    /// Checks that the key in `certificate` has signed `message`.
    pub(super) fn check_signature(
        &self,
        certificate: &CertificateDer<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), IdentityError> {
        let (scheme, signature) = signature
            .split_first_chunk::<2>()
            .ok_or(IdentityError::Signature)?;
        let scheme = SignatureScheme::from(u16::from_be_bytes(*scheme));
        if !SCHEMES.contains(&scheme) {
            return Err(IdentityError::Signature);
        }
        let certificate = EndEntityCert::try_from(certificate).map_err(chain_error)?;
        let mapped = self
            .algorithms
            .mapping
            .iter()
            .find(|(mapped, _)| *mapped == scheme);
        let holds = mapped.is_some_and(|(_, algorithms)| {
            let mut algorithms = algorithms.iter();
            algorithms.any(|one| {
                certificate
                    .verify_signature(*one, message, signature)
                    .is_ok()
            })
        });
        if holds {
            Ok(())
        } else {
            Err(IdentityError::Signature)
        }
    }

    fn check_chain(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), IdentityError> {
        let certificate = EndEntityCert::try_from(certificate).map_err(chain_error)?;
        certificate
            .verify_for_usage(
                self.algorithms.all,
                &self.anchors,
                &[],
                now,
                usage,
                None,
                None,
            )
            .map(|_| ())
            .map_err(chain_error)
    }
}

fn chain_error(error: webpki::Error) -> IdentityError {
    IdentityError::Chain(match error {
        webpki::Error::CertExpired { .. } => ChainFault::Expired,
        webpki::Error::CertNotValidYet { .. } => ChainFault::NotYet,
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            ChainFault::OtherAuthority
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => ChainFault::Usage,
        other => ChainFault::Broken(other.to_string()),
    })
}
