//! The certificates that are shown to clients, made when they are first wanted and kept in memory.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use moka::future::Cache;
use proxy::{CertificateError, Certificates, Owner};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;

use super::{
    files::{Authorities, Stamp},
    issue,
};

/// Gives certificates of the authorities of one data directory.
pub(crate) struct Leaves {
    authorities: Authorities,
    clock: fn() -> SystemTime,
    made: Cache<(Owner, ServerName<'static>), Made>,
}

#[derive(Clone)]
struct Made {
    tls: Arc<ServerConfig>,
    renew_at: SystemTime,
    /// The authority's certificate as it was then: a new authority makes new ones.
    by: Option<Stamp>,
}

/// Certificates that are kept at once; patterns may intercept any number of names.
const MADE_MAX: u64 = 1024;

/// What is offered to clients, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

// === impl Leaves ===

impl Leaves {
    pub(crate) fn new(authorities: Authorities, clock: fn() -> SystemTime) -> Self {
        Self {
            authorities,
            clock,
            made: Cache::new(MADE_MAX),
        }
    }
}

#[async_trait]
impl Certificates for Leaves {
    async fn tls(
        &self,
        owner: &Owner,
        name: &ServerName<'static>,
    ) -> Result<Arc<ServerConfig>, CertificateError> {
        let key = (owner.clone(), name.clone());
        let now = (self.clock)();
        let kept = self.made.get(&key).await;
        // One look at a file of this host: a runtime that was given a new authority trusts no other.
        let is_good = |made: &Made| now < made.renew_at && made.by == self.authorities.stamp(owner);
        if let Some(made) = kept.filter(is_good) {
            return Ok(made.tls);
        }
        let authorities = self.authorities.clone();
        let wanted = key.clone();
        let making =
            tokio::task::spawn_blocking(move || make(&authorities, &wanted.0, &wanted.1, now));
        let made = match making.await {
            Ok(made) => made,
            Err(error) => Err(error.into()),
        };
        let made = made.map_err(|error| CertificateError {
            name: name.to_str().into_owned(),
            reason: format!("{error:#}"),
        })?;
        self.made.insert(key, made.clone()).await;
        Ok(made.tls)
    }
}

impl std::fmt::Debug for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaves")
            .field("authorities", &self.authorities)
            .finish_non_exhaustive()
    }
}

fn make(
    authorities: &Authorities,
    owner: &Owner,
    name: &ServerName<'static>,
    now: SystemTime,
) -> anyhow::Result<Made> {
    let authority = authorities.open(owner, now)?;
    let leaf = issue::leaf(owner, &authority.key, name, now)?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.certificate], leaf.key)?;
    tls.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Made {
        tls: Arc::new(tls),
        renew_at: leaf.renew_at,
        by: authorities.stamp(owner),
    })
}
