//! A newer certificate for a host that runs.
//!
//! Invariant: what takes the place of a certificate is of the same authority, and names the same
//! host, cluster and roles: nobody else notices. It is checked before anything is changed.

use std::sync::Arc;

use super::{Identity, IdentityError, authority, names, papers::Papers};

#[cfg(test)]
mod tests;

/// A certificate that may take the place of the one that a host shows.
#[derive(Debug)]
pub struct Renewal(Arc<Papers>);

/// Why a certificate cannot take the place of the one that a host shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewalError {
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error("the certificate has the {what} `{told}`, and this host has `{ours}`")]
    OtherHost {
        what: &'static str,
        told: String,
        ours: String,
    },
}

// === impl Identity ===

impl Identity {
    /// The certificate of `wanted`, if it may take the place of this one.
    ///
    /// # Errors
    /// The authorities that this host began with did not issue it, it does not hold now, or it is of
    /// another id, cluster or roles.
    pub fn renewal(&self, wanted: &Self) -> Result<Renewal, RenewalError> {
        let papers = wanted.papers();
        let certificate = papers.certificate().into();
        let now = authority::wall_time();
        self.inner.verifier.check_own(&certificate, now)?;
        let differing = [
            ("id", wanted.id().to_string(), self.id().to_string()),
            (
                "cluster",
                wanted.cluster().to_owned(),
                self.cluster().to_owned(),
            ),
            (
                "roles",
                names::role_words(wanted.roles()),
                names::role_words(self.roles()),
            ),
        ];
        let mut differing = differing.into_iter().filter(|(_, told, ours)| told != ours);
        match differing.next() {
            Some((what, told, ours)) => Err(RenewalError::OtherHost { what, told, ours }),
            None => Ok(Renewal(papers)),
        }
    }

    /// From here on this host shows the certificate of `renewal`, and signs with its key.
    pub fn renew(&self, renewal: Renewal) {
        self.inner.shown.replace(renewal.0);
    }

    /// Whether both trust the same authorities.
    pub fn trusts_as(&self, other: &Self) -> bool {
        self.inner.roots.roots == other.inner.roots.roots
    }
}
