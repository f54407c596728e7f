//! Connections that are meant for other hosts: CONNECT, connections that the kernel redirected, and
//! TLS on the mirror's own port. Intercepted registries are answered here, with a certificate of a
//! local authority; everything else is passed on untouched.
//!
//! Invariant: whatever cannot be served is passed on. The client believes that it speaks to the
//! registry and goes nowhere else, so what is wrong here must not take the registry away.

mod connect;
mod handshake;
pub(crate) mod hello;
mod http2;
mod redirected;
mod rejections;
pub(crate) mod rules;
mod tunnel;

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use protocol::RegistryName;
use rustls::ServerConfig;
use rustls_pki_types::ServerName;
use swarm::source::{ClientPlace, Tunnels};

pub(crate) use connect::{Handover, Next};
pub use rules::{Intercepted, Rules, TunnelFor, server_names};

use rejections::Rejections;

use crate::answer::Whence;

/// Both ends of a client's connection.
#[derive(Debug, Clone, Copy)]
pub struct Met {
    pub client: SocketAddr,
    /// Where the client reached this process.
    pub own: SocketAddr,
}

/// Whose certificate a client is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// An intercepted registry.
    Registry(RegistryName),
    /// This host by its loopback names.
    Loopback,
}

/// Gives certificates that the local clients trust.
#[async_trait]
pub trait Certificates: Send + Sync + fmt::Debug + 'static {
    /// TLS as `name`, which is one of `owner`'s, for HTTP/2 and HTTP/1.1.
    async fn tls(
        &self,
        owner: &Owner,
        name: &ServerName<'static>,
    ) -> Result<Arc<ServerConfig>, CertificateError>;
}

/// Why there is no certificate: always this host's fault.
#[derive(Debug, thiserror::Error)]
#[error("no certificate can be made for {name}: {reason}")]
pub struct CertificateError {
    pub name: String,
    pub reason: String,
}

/// What connections to other hosts share.
#[derive(Debug)]
pub(crate) struct Interceptor {
    pub(crate) tunnels: Tunnels,
    pub(crate) certificates: Arc<dyn Certificates>,
    rejections: Mutex<Rejections>,
    /// Our own ends of what is passed on for redirected connections: one that comes in from there
    /// was redirected although it is ours. As many as there are connections.
    own_ends: Mutex<HashSet<SocketAddr>>,
}

// === impl Met ===

impl Met {
    pub(crate) fn place(&self) -> ClientPlace {
        let client = self.client.ip().to_canonical();
        if client.is_loopback() || client == self.own.ip().to_canonical() {
            ClientPlace::Local
        } else {
            ClientPlace::Elsewhere
        }
    }

    /// From where a request comes that is spoken by `scheme`.
    pub(crate) fn whence(&self, scheme: &'static str) -> Whence {
        let is_local = self.place() == ClientPlace::Local;
        Whence { is_local, scheme }
    }
}

// === impl Interceptor ===

impl Interceptor {
    pub(crate) fn new(tunnels: Tunnels, certificates: Arc<dyn Certificates>) -> Self {
        Self {
            tunnels,
            certificates,
            rejections: Mutex::default(),
            own_ends: Mutex::default(),
        }
    }

    fn rejections(&self) -> MutexGuard<'_, Rejections> {
        self.rejections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn own_ends(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.own_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same address, whether or not a socket of IPv6 has told it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the driver of these connections is their clock"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(client: &str, own: &str, expect: ClientPlace) {
        let met = Met {
            client: client.parse().unwrap(),
            own: own.parse().unwrap(),
        };
        assert_eq!(met.place(), expect, "{client} at {own}");
    }

    #[test]
    fn a_client_of_this_host_is_known_by_its_address() {
        check("127.0.0.1:4", "127.0.0.1:65001", ClientPlace::Local);
        check("[::1]:4", "[::1]:65001", ClientPlace::Local);
        check("[::ffff:127.0.0.1]:4", "[::]:65001", ClientPlace::Local);
        check("172.17.0.1:4", "172.17.0.1:65001", ClientPlace::Local);
        check("172.17.0.2:4", "172.17.0.1:65001", ClientPlace::Elsewhere);
        check("[fd00::2]:4", "[fd00::1]:65001", ClientPlace::Elsewhere);
    }
}
