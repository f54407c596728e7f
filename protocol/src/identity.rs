//! Who a host is: its certificate, its key, and the authority it trusts.
//!
//! Invariant: the id, the cluster and the roles of a peer come from its certificate and from
//! nothing it says. A certificate of another authority, or of another cluster of the same one, is
//! refused. A host may be given a newer certificate while it runs; who it is stays. No file is read
//! here: the appliance hands over the text.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use rustls::{RootCertStore, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

mod authority;
mod names;
mod papers;
mod renewal;
mod signature;
#[cfg(test)]
mod tests;
mod tls;

pub use authority::{Authority, IssuedPem, LIFETIME};
pub use renewal::{Renewal, RenewalError};
pub use signature::Signed;

use crate::host::{HostId, Roles};
use names::CertifiedNames;
use papers::{Papers, Shown};
use signature::Verifier;

/// The certificate and key of this host, and the authority of its cluster. Cheap to clone; a newer
/// certificate is that of every clone.
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
    Chain(ChainFault),
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

/// Why a certificate does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("another authority has issued it")]
    OtherAuthority,
    #[error("it must be for both clientAuth and serverAuth")]
    Usage,
    #[error("the peer has shown none")]
    Absent,
    #[error("{0}")]
    Broken(String),
}

struct Inner {
    id: HostId,
    cluster: String,
    roles: Roles,
    shown: Arc<Shown>,
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

    /// An identity under an authority of its own that lives in memory: nobody else trusts it, and it
    /// holds for as long as any process runs.
    pub fn ephemeral(id: HostId, cluster: &str, roles: Roles) -> Result<Self, IdentityError> {
        let authority = Authority::lasting(cluster, EPHEMERAL_LIFETIME)?;
        let issued = authority.issue_for(&id, roles, EPHEMERAL_LIFETIME)?;
        Self::from_pem(authority.ca_pem(), &issued.certificate, &issued.key)
    }

    pub fn id(&self) -> &HostId {
        &self.inner.id
    }

    pub fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    pub fn roles(&self) -> Roles {
        self.inner.roles
    }

    /// The certificate that this host shows now, DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.papers().certificate().to_vec()
    }

    /// Whether `certificate` (DER) is the one that this host shows now.
    pub fn shows(&self, certificate: &[u8]) -> bool {
        self.papers().certificate() == certificate
    }

    /// When the certificate that this host shows now holds, in seconds since 1970.
    pub fn validity(&self) -> RangeInclusive<u64> {
        self.papers().names.validity.clone()
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
            .ok_or(IdentityError::Chain(ChainFault::Absent))?;
        CertifiedNames::read(certificate)?.peer_in(self.cluster())
    }

    /// Signs `message` with the key of the certificate that this host shows now. A signature that
    /// could not be made is empty, and holds nowhere.
    pub fn sign(&self, message: &[u8]) -> Signed {
        self.papers().sign(message)
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

    /// As [`Identity::verify`], at the time nearest to `now` at which `certificate` holds.
    pub(crate) fn verify_once(
        &self,
        certificate: &[u8],
        message: &[u8],
        signature: &[u8],
        now: UnixTime,
    ) -> Result<PeerIdentity, IdentityError> {
        let names = CertifiedNames::read(&CertificateDer::from(certificate))?;
        self.verify(certificate, message, signature, names.nearest(now))
    }

    fn papers(&self) -> Arc<Papers> {
        self.inner.shown.now()
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
        let papers = Papers::load(certificate, &key, &provider, &verifier)?;
        let CertifiedNames {
            id, cluster, roles, ..
        } = papers.names.clone();
        let inner = Inner {
            id,
            cluster,
            roles,
            shown: Arc::new(Shown::new(papers)),
            roots: Arc::new(roots),
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
            .field("id", &self.inner.id)
            .field("cluster", &self.inner.cluster)
            .field("roles", &self.inner.roles)
            .finish_non_exhaustive()
    }
}

/// Of certificates that die with the process: a hundred years.
const EPHEMERAL_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn pem_error(what: &'static str, error: rustls_pki_types::pem::Error) -> IdentityError {
    let problem = match error {
        rustls_pki_types::pem::Error::NoItemsFound => "it holds none".to_owned(),
        other => other.to_string(),
    };
    IdentityError::Pem { what, problem }
}
