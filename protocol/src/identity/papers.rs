//! The certificate that a host shows now, and its key.
//!
//! Invariant: a signature goes with the certificate whose key made it, also while another one takes
//! its place. Handshakes that begin after that are the new one's; what began before goes on.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    IdentityError, authority,
    names::CertifiedNames,
    signature::{HostKey, Signed, Verifier},
};

/// A certificate of this host and its key.
#[derive(Debug)]
pub(super) struct Papers {
    pub(super) names: CertifiedNames,
    shown: Arc<CertifiedKey>,
    host_key: HostKey,
}

/// Those that count now.
#[derive(Debug)]
pub(super) struct Shown(RwLock<Arc<Papers>>);

/// Signed once for each certificate, to see that the key is its own.
const KEY_PROBE: &[u8] = b"darter/key-probe/1";

// === impl Papers ===

impl Papers {
    /// Papers that hold now under the authorities of `verifier`, at both ends of a connection.
    pub(super) fn load(
        certificate: CertificateDer<'static>,
        key: &PrivateKeyDer<'static>,
        provider: &CryptoProvider,
        verifier: &Verifier,
    ) -> Result<Self, IdentityError> {
        verifier.check_own(&certificate, authority::wall_time())?;
        let names = CertifiedNames::read(&certificate)?;
        let host_key = HostKey::load(provider, key)?;
        verifier
            .check_signature(&certificate, KEY_PROBE, &host_key.sign(KEY_PROBE))
            .map_err(|_| IdentityError::OtherKey)?;
        let shown = CertifiedKey::new(vec![certificate], host_key.for_tls());
        Ok(Self {
            names,
            shown: Arc::new(shown),
            host_key,
        })
    }

    pub(super) fn certificate(&self) -> &[u8] {
        self.shown.cert.first().map_or(&[], AsRef::as_ref)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Signed {
        Signed {
            certificate: self.certificate().to_vec(),
            signature: self.host_key.sign(message),
        }
    }
}

// === impl Shown ===

impl Shown {
    pub(super) fn new(papers: Papers) -> Self {
        Self(RwLock::new(Arc::new(papers)))
    }

    pub(super) fn now(&self) -> Arc<Papers> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, papers: Arc<Papers>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = papers;
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().shown))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().shown))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
