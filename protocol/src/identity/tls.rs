//! The TLS of a cluster: both ends show a certificate, the one that counts when the handshake begins.
//!
//! No session is resumed: it would go on with the certificates of the handshake before, which may
//! have been replaced or have expired since. Without early data a resumption saves no round trip.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    client::{ResolvesClientCert, Resumption},
    server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    version::TLS13,
};

use super::{Identity, IdentityError};

impl Identity {
    /// TLS for a listener: a client without a certificate of this CA is refused. The cluster is
    /// checked by [`Identity::peer`] once the handshake is done.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, IdentityError> {
        let inner = &self.inner;
        let roots = Arc::clone(&inner.roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&inner.provider))
                .build()
                .map_err(tls_error)?;
        let shown: Arc<dyn ResolvesServerCert> = inner.shown.clone();
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&inner.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(tls_error)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(shown);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// TLS for connections to other hosts; dial with [`Identity::server_name`].
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<ClientConfig, IdentityError> {
        let inner = &self.inner;
        let shown: Arc<dyn ResolvesClientCert> = inner.shown.clone();
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&inner.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(tls_error)?
            .with_root_certificates(Arc::clone(&inner.roots))
            .with_client_cert_resolver(shown);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn tls_error(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Tls(error.to_string())
}
