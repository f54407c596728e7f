//! Connections of one trust: with which authorities, shown which certificate, to which addresses.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;

use super::{
    super::{
        registry::SourceConfigError,
        resolve::{JudgedNames, Rule},
        trust::ClientIdentity,
    },
    Shared,
};

/// Connections of one trust.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    direct: reqwest::Client,
    /// Through the proxy, if there is one.
    proxied: Option<reqwest::Client>,
}

/// Idle connections kept to one host.
const IDLE_CONNECTIONS_MAX: usize = 16;

// === impl Pool ===

impl Pool {
    pub(super) fn new(
        shared: &Shared,
        rule: Rule,
        ca: &[CertificateDer<'static>],
        identity: Option<&ClientIdentity>,
    ) -> Result<Self, SourceConfigError> {
        let direct = client(shared, rule, ca, identity)?.build();
        let proxied = match &shared.proxy {
            Some(proxy) => {
                let mut builder = client(shared, Rule::Proxy, ca, identity)?;
                for proxy in proxy.for_client().map_err(|error| problem(&error))? {
                    builder = builder.proxy(proxy);
                }
                Some(builder.build().map_err(|error| problem(&error))?)
            }
            None => None,
        };
        Ok(Self {
            direct: direct.map_err(|error| problem(&error))?,
            proxied,
        })
    }

    pub(super) fn way(&self, is_proxied: bool) -> &reqwest::Client {
        let proxied = self.proxied.as_ref().filter(|_| is_proxied);
        proxied.unwrap_or(&self.direct)
    }
}

fn client(
    shared: &Shared,
    rule: Rule,
    ca: &[CertificateDer<'static>],
    identity: Option<&ClientIdentity>,
) -> Result<reqwest::ClientBuilder, SourceConfigError> {
    let names = JudgedNames {
        names: Arc::clone(&shared.names),
        rule,
    };
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(ca, identity)?)
        .dns_resolver(Arc::new(names))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(shared.timeouts.connect)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .user_agent(concat!("darter/", env!("CARGO_PKG_VERSION")))
        .default_headers(HeaderMap::from_iter([
            (
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            ),
            (header::VIA, shared.via.clone()),
        ]));
    Ok(builder)
}

/// TLS with the system's authorities and those in `ca`, and `identity` for who asks for one. A system without any is no reason not
/// to start: nothing is then reached by TLS, and the error says why.
fn tls(
    ca: &[CertificateDer<'static>],
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, SourceConfigError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| problem(&error))?;
    let mut config = match Verifier::new_with_extra_roots(ca.iter().cloned(), provider) {
        Ok(verifier) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
        Err(error) if !ca.is_empty() => return Err(problem(&error)),
        Err(error) => {
            tracing::warn!(%error, "no upstream can be reached by TLS");
            builder
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth()
        }
    };
    if let Some(identity) = identity {
        config.client_auth_cert_resolver = identity.resolver();
    }
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn problem(error: &dyn std::error::Error) -> SourceConfigError {
    SourceConfigError {
        key: "proxy.registry".to_owned(),
        problem: format!("TLS cannot be set up: {error}"),
    }
}
