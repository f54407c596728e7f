//! Who a host is: its certificate, its key, and the authority it trusts.
//!
//! Invariant: the id, the cluster and the roles of a peer come from its certificate and from
//! nothing it says. A certificate of another authority, or of another cluster of the same one, is
//! refused. No file is read here: the appliance hands over the text.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto::CryptoProvider,
    server::WebPkiClientVerifier, version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

mod authority;
mod names;
mod signature;
#[cfg(test)]
mod tests;

pub use authority::{Authority, IssuedPem};

use crate::host::{HostId, Roles};
use names::CertifiedNames;
use signature::{HostKey, Verifier};

/// The certificate and key of this host, and the authority of its cluster. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

/// Who a certificate of this cluster names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub id: HostId,
    pub roles: Roles,
}

/// What is wrong with a certificate, a key or a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the {what} is not PEM as it should be: {problem}")]
    Pem { what: &'static str, problem: String },
    #[error("the key cannot be used: {0}")]
    Key(String),
    #[error("the key does not belong to the certificate")]
    OtherKey,
    #[error("the certificate does not hold under the CA of this cluster: {0}")]
    Chain(String),
    #[error("the names in the certificate cannot be read: {0}")]
    Names(String),
    #[error("the certificate is of cluster `{told}`, not of `{ours}`")]
    OtherCluster { told: String, ours: String },
    #[error("`{0}` cannot name a cluster: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")]
    Cluster(String),
    #[error("the signature does not match")]
    Signature,
    #[error("no certificate could be made: {0}")]
    Issue(String),
    #[error("TLS could not be set up: {0}")]
    Tls(String),
}

struct Inner {
    names: CertifiedNames,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    host_key: HostKey,
    roots: Arc<RootCertStore>,
    verifier: Verifier,
    provider: Arc<CryptoProvider>,
}

// === impl Identity ===

impl Identity {
    /// The identity in three PEM texts. `ca` may hold several authorities, all trusted alike;
    /// the certificate must have been issued by one of them directly.
    ///
    /// # Errors
    /// A text that is no PEM, a certificate that the CA did not issue, that has expired or that
    /// does not name a host, a key that is not the certificate's.
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Result<Self, IdentityError> {
        let authorities = CertificateDer::pem_slice_iter(ca.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| pem_error("CA certificate", error))?;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| pem_error("certificate", error))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| pem_error("key", error))?;
        Self::build(authorities, certificate, key)
    }

    /// An identity under an authority of its own that lives in memory: nobody else trusts it.
    pub fn ephemeral(id: HostId, cluster: &str, roles: Roles) -> Result<Self, IdentityError> {
        let authority = Authority::new(cluster)?;
        let issued = authority.issue(&id, roles)?;
        Self::from_pem(authority.ca_pem(), &issued.certificate, &issued.key)
    }

    pub fn id(&self) -> &HostId {
        &self.inner.names.id
    }

    pub fn cluster(&self) -> &str {
        &self.inner.names.cluster
    }

    pub fn roles(&self) -> Roles {
        self.inner.names.roles
    }

    /// The certificate of this host, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.inner.certificate
    }

    /// TLS for a listener: a client without a certificate of this CA is refused. The cluster is
    /// checked by [`Identity::peer`] once the handshake is done.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, IdentityError> {
        let inner = &self.inner;
        let roots = Arc::clone(&inner.roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&inner.provider))
                .build()
                .map_err(tls_error)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&inner.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(tls_error)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![inner.certificate.clone()], inner.key.clone_key())
            .map_err(tls_error)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// TLS for connections to other hosts; dial with [`Identity::server_name`].
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<ClientConfig, IdentityError> {
        let inner = &self.inner;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&inner.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(tls_error)?
            .with_root_certificates(Arc::clone(&inner.roots))
            .with_client_auth_cert(vec![inner.certificate.clone()], inner.key.clone_key())
            .map_err(tls_error)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }

    /// The name that the certificate of `host` must carry when it is dialled.
    pub fn server_name(&self, host: &HostId) -> ServerName<'static> {
        let name = names::dns_name(host, self.cluster());
        ServerName::try_from(name).expect("an id and a cluster are DNS labels, by their parsers")
    }

    /// Who the other end of a connection is, by the chain that the handshake has verified.
    ///
    /// # Errors
    /// No certificate, one that names no host, or one of another cluster.
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, IdentityError> {
        let certificate = chain
            .first()
            .ok_or_else(|| IdentityError::Chain("the peer has shown none".to_owned()))?;
        CertifiedNames::read(certificate)?.peer_in(self.cluster())
    }

    /// Signs `message` with the key of this host's certificate. A signature that could not be
    /// made is empty, and holds nowhere.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.inner.host_key.sign(message)
    }

    /// Who signed `message`, if `certificate` (DER) is of this cluster at the time `now` and the
    /// signature is its key's.
    pub fn verify(
        &self,
        certificate: &[u8],
        message: &[u8],
        signature: &[u8],
        now: UnixTime,
    ) -> Result<PeerIdentity, IdentityError> {
        let certificate = CertificateDer::from(certificate);
        let peer = self
            .inner
            .verifier
            .holder(&certificate, now, self.cluster())?;
        self.inner
            .verifier
            .check_signature(&certificate, message, signature)?;
        Ok(peer)
    }

    fn build(
        authorities: Vec<CertificateDer<'static>>,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        if authorities.is_empty() {
            let problem = "it holds no certificate".to_owned();
            return Err(IdentityError::Pem {
                what: "CA certificate",
                problem,
            });
        }
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| IdentityError::Pem {
                what: "CA certificate",
                problem: error.to_string(),
            })?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Verifier::new(&roots, provider.signature_verification_algorithms);
        verifier.check_own(&certificate, authority::wall_time())?;
        let names = CertifiedNames::read(&certificate)?;
        let host_key = HostKey::load(&provider, &key)?;
        verifier
            .check_signature(&certificate, KEY_PROBE, &host_key.sign(KEY_PROBE))
            .map_err(|_| IdentityError::OtherKey)?;
        let roots = Arc::new(roots);
        let inner = Inner {
            names,
            certificate,
            key,
            host_key,
            roots,
            verifier,
            provider,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("names", &self.inner.names)
            .finish_non_exhaustive()
    }
}

/// Signed once at the start, to see that the key is the certificate's.
const KEY_PROBE: &[u8] = b"darter/key-probe/1";

fn pem_error(what: &'static str, error: rustls_pki_types::pem::Error) -> IdentityError {
    let problem = match error {
        rustls_pki_types::pem::Error::NoItemsFound => "it holds none".to_owned(),
        other => other.to_string(),
    };
    IdentityError::Pem { what, problem }
}

fn tls_error(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Tls(error.to_string())
}
