//! Connects to another host: its address, then mutual TLS under the name of its id.
//!
//! The authority of a URI is `id@address:port`, so that the pool never hands a connection of one
//! host to a request for another, and no name is ever looked up.

use std::{future::Future, io, pin::Pin, sync::Arc, task::Poll, time::Duration};

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use prometheus::IntCounter;
use protocol::{Host, Identity, identity::IdentityError};
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service;

type DialError = Box<dyn std::error::Error + Send + Sync>;
type Dialling<T> = Pin<Box<dyn Future<Output = Result<T, DialError>> + Send>>;

/// What a connection to another host speaks (ALPN).
const ALPN: &[u8] = b"http/1.1";

/// Opens connections for the piece client, each within `connect_timeout`.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    https: HttpsConnector<Tcp>,
    connect_timeout: Duration,
    opened: IntCounter,
}

/// The connection before TLS.
#[derive(Debug, Clone, Copy)]
struct Tcp;

// === impl Dialer ===

impl Dialer {
    pub(super) fn new(
        identity: &Identity,
        connect_timeout: Duration,
        opened: IntCounter,
    ) -> Result<Self, IdentityError> {
        let tls = identity.client_config(&[ALPN])?;
        let identity = identity.clone();
        let server_name = move |uri: &Uri| host_of(uri).map(|host| identity.server_name(&host.id));
        let https = HttpsConnector::new(Tcp, tls, true, Arc::new(server_name));
        Ok(Self {
            https,
            connect_timeout,
            opened,
        })
    }
}

impl Service<Uri> for Dialer {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = DialError;
    type Future = Dialling<Self::Response>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.call(uri);
        let (connect_timeout, opened) = (self.connect_timeout, self.opened.clone());
        Box::pin(async move {
            let connection = timeout(connect_timeout, connecting).await??;
            opened.inc();
            Ok(connection)
        })
    }
}

// === impl Tcp ===

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = Dialling<Self::Response>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let socket = TcpStream::connect(host_of(&uri)?.address).await?;
            socket.set_nodelay(true)?;
            Ok(TokioIo::new(socket))
        })
    }
}

fn host_of(uri: &Uri) -> io::Result<Host> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    authority.parse().map_err(io::Error::other)
}
