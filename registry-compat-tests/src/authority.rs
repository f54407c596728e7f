//! An authority of a test's own, and the certificates that it gives; made anew each time.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};

/// Trusted by nobody who is not told to.
pub struct TestAuthority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for TestAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestAuthority")
    }
}

// === impl TestAuthority ===

impl TestAuthority {
    /// A new one, with a key of its own.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self(issuer))
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names and addresses.
    ///
    /// # Errors
    /// One of them is neither.
    pub fn issue(&self, names: &[&str]) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut leaf = CertificateParams::new(names)?;
        // OpenSSL takes one that is called like its issuer for its own.
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name.push(DnType::CommonName, "registry");
        let leaf = leaf.signed_by(&key, &self.0)?;
        Ok(Issued {
            certificate: leaf.pem(),
            key: key.serialize_pem(),
        })
    }
}
