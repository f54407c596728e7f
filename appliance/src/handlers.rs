//! Hands accepted connections to the roles. Connections of other hosts are opened with mutual TLS
//! here, so that a role is given the decrypted stream and the name in the certificate.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{self, BoxFuture},
};
use protocol::{
    Identity, PeerIdentity,
    grpc::{self, SchedulerServices, ServeError},
    identity::IdentityError,
};
use proxy::{Met, Proxy};
use rustix::net::sockopt;
use scheduler::SchedulerService;
use swarm::peer::PeerServer;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    accept::{Handler, Visit},
    metrics::{RefusedFor, RefusedHosts},
};

/// A host that has not shown its certificate by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What carries pieces, beside gRPC on the same port.
const HTTP1: &[u8] = b"http/1.1";

/// Container runtimes, in plain HTTP.
pub(crate) struct ProxyHandler(pub(crate) Arc<Proxy>);

/// Connections that the kernel redirected, and that were going elsewhere.
pub(crate) struct RedirectedHandler(pub(crate) Arc<Proxy>);

/// Other hosts that want pieces, or to know who has them.
pub(crate) struct PeerHandler {
    door: Door,
    server: PeerServer,
}

/// Hosts that open their session, and what their operators ask.
pub(crate) struct SchedulerHandler {
    door: Door,
    services: SchedulerServices,
}

/// Lets in who has a certificate of the cluster.
#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    identity: Identity,
    refused: RefusedHosts,
}

// === impl ProxyHandler ===

impl Handler for ProxyHandler {
    fn serve(&self, stream: TcpStream, visit: Visit) -> BoxFuture<'static, ()> {
        let client = visit.peer;
        let proxy = Arc::clone(&self.0);
        let Ok(own) = stream.local_addr() else {
            return future::ready(()).boxed();
        };
        let met = Met { client, own };
        proxy
            .serve_connection(stream, met, visit.closing, visit.activity)
            .boxed()
    }
}

// === impl RedirectedHandler ===

impl Handler for RedirectedHandler {
    fn serve(&self, stream: TcpStream, visit: Visit) -> BoxFuture<'static, ()> {
        let client = visit.peer;
        let proxy = Arc::clone(&self.0);
        let ends = stream.local_addr().and_then(|own| {
            let original = original_destination(&stream, own)?;
            Ok((Met { client, own }, original))
        });
        match ends {
            Ok((met, original)) => proxy
                .serve_redirected(stream, met, original, visit.closing, visit.activity)
                .boxed(),
            Err(error) => {
                tracing::warn!(%client, %error, "a connection was not redirected here by the kernel");
                future::ready(()).boxed()
            }
        }
    }
}

/// Where the client of a redirected connection was going.
fn original_destination(stream: &TcpStream, own: SocketAddr) -> io::Result<SocketAddr> {
    Ok(match own.ip().to_canonical() {
        IpAddr::V4(_) => sockopt::ip_original_dst(stream)?.into(),
        IpAddr::V6(_) => sockopt::ipv6_original_dst(stream)?.into(),
    })
}

// === impl PeerHandler ===

impl PeerHandler {
    pub(crate) fn new(
        identity: &Identity,
        server: PeerServer,
        refused: RefusedHosts,
    ) -> Result<Self, IdentityError> {
        let door = Door::new(identity, &[grpc::ALPN, HTTP1], refused)?;
        Ok(Self { door, server })
    }
}

impl Handler for PeerHandler {
    fn serve(&self, stream: TcpStream, visit: Visit) -> BoxFuture<'static, ()> {
        let (address, closing) = (visit.peer, visit.closing);
        let (door, server) = (self.door.clone(), self.server.clone());
        let serving = async move {
            let Some((stream, peer)) = door.open(stream, address).await else {
                return;
            };
            visit.activity.begin();
            if stream.get_ref().1.alpn_protocol() == Some(grpc::ALPN) {
                let served =
                    grpc::serve_availability(stream, peer, Arc::new(server), closing.cancelled())
                        .await;
                tell(address, served);
            } else {
                server.serve_pieces(stream, peer, closing).await;
            }
        };
        serving.boxed()
    }
}

// === impl SchedulerHandler ===

impl SchedulerHandler {
    pub(crate) fn new(
        identity: &Identity,
        scheduler: Arc<SchedulerService>,
        refused: RefusedHosts,
    ) -> Result<Self, IdentityError> {
        let door = Door::new(identity, &[grpc::ALPN], refused.clone())?;
        let services = SchedulerServices {
            scheduler: scheduler.clone(),
            operator: scheduler,
            refusals: Arc::new(refused),
        };
        Ok(Self { door, services })
    }
}

impl Handler for SchedulerHandler {
    fn serve(&self, stream: TcpStream, visit: Visit) -> BoxFuture<'static, ()> {
        let (address, closing) = (visit.peer, visit.closing);
        let (door, services) = (self.door.clone(), self.services.clone());
        let serving = async move {
            let Some((stream, peer)) = door.open(stream, address).await else {
                return;
            };
            visit.activity.begin();
            let served = grpc::serve_scheduler(stream, peer, services, closing.cancelled()).await;
            tell(address, served);
        };
        serving.boxed()
    }
}

// === impl Door ===

impl Door {
    fn new(
        identity: &Identity,
        alpn: &[&[u8]],
        refused: RefusedHosts,
    ) -> Result<Self, IdentityError> {
        let acceptor = TlsAcceptor::from(identity.server_config(alpn)?);
        Ok(Self {
            acceptor,
            identity: identity.clone(),
            refused,
        })
    }

    /// The decrypted stream and who is at its other end; who may not come in is told, logged and
    /// counted.
    async fn open(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Option<(TlsStream<TcpStream>, PeerIdentity)> {
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::warn!(%address, %error, "a host was refused: no certificate of this cluster");
                self.refused.count(RefusedFor::Certificate);
                return None;
            }
            Err(_) => {
                tracing::warn!(%address, "a host was let go: it did not finish its TLS handshake");
                self.refused.count(RefusedFor::Handshake);
                return None;
            }
        };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        match self.identity.peer(chain) {
            Ok(peer) => Some((stream, peer)),
            Err(error) => {
                tracing::warn!(%address, %error, "a host was refused");
                self.refused.count(RefusedFor::Certificate);
                None
            }
        }
    }
}

fn tell(address: SocketAddr, served: Result<(), ServeError>) {
    if let Err(error) = served {
        tracing::debug!(%address, %error, "a stream ended with an error");
    }
}
