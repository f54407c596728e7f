//! One connection to another host, as a channel: TCP, mutual TLS, HTTP/2.

use std::{error::Error as _, io, sync::Arc};

use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{
    ALPN, CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, OPEN_TIMEOUT, STREAM_WINDOW,
};
use crate::{
    host::{Host, Role},
    identity::{Identity, PeerIdentity},
    scheduler::SessionError,
};

/// A channel over a new connection to `host`, and who its certificate says it is. The channel
/// never reconnects: a session that breaks is opened anew by whoever wants it.
pub(super) async fn connect(
    identity: &Identity,
    host: &Host,
) -> Result<(Channel, PeerIdentity), SessionError> {
    let stream = timeout(CONNECT_TIMEOUT, handshake(identity, host))
        .await
        .map_err(|_| unreachable(format!("{host} did not answer within {CONNECT_TIMEOUT:?}")))?
        .map_err(|error| unreachable(format!("{host}: {error}")))?;
    let chain: &[CertificateDer<'_>] = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = identity
        .peer(chain)
        .map_err(|error| unreachable(format!("{host}: {error}")))?;
    if peer.id != host.id {
        return Err(unreachable(format!("{host} says it is {}", peer.id)));
    }
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let taken = stream.take();
        async move { taken.ok_or_else(|| io::Error::other("the connection is over")) }
    });
    let endpoint = Endpoint::from_shared(format!("http://{}", host.address))
        .map_err(|error| unreachable(error.to_string()))?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW);
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| unreachable(format!("{host}: {error}")))?;
    Ok((channel, peer))
}

/// A channel to a host whose certificate says that it is a scheduler.
pub(super) async fn connect_scheduler(
    identity: &Identity,
    host: &Host,
) -> Result<(Channel, PeerIdentity), SessionError> {
    let (channel, peer) = connect(identity, host).await?;
    if !peer.roles.contains(Role::Scheduler) {
        return Err(unreachable(format!(
            "the certificate of {} lacks the scheduler role",
            peer.id
        )));
    }
    Ok((channel, peer))
}

/// Waits for `opening`, and says in our words why it failed.
pub(super) async fn open_within<T>(
    host: &Host,
    opening: impl Future<Output = Result<T, Status>>,
) -> Result<T, SessionError> {
    match timeout(OPEN_TIMEOUT, opening).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(status)) => Err(session_error(&status)),
        Err(_) => Err(unreachable(format!(
            "{host} opened no stream within {OPEN_TIMEOUT:?}"
        ))),
    }
}

async fn handshake(identity: &Identity, host: &Host) -> io::Result<TlsStream<TcpStream>> {
    let config = identity.client_config(&[ALPN]).map_err(io::Error::other)?;
    let stream = TcpStream::connect(host.address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config))
        .connect(identity.server_name(&host.id), stream)
        .await
}

fn session_error(status: &Status) -> SessionError {
    match status.code() {
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::OutOfRange
        | Code::Unimplemented => SessionError::Refused(status.message().to_owned()),
        _ => unreachable(with_causes(status)),
    }
}

/// The message of `status` and of everything beneath it: the transport says "transport error" and
/// hides the alert that tells why.
fn with_causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn unreachable(problem: String) -> SessionError {
    SessionError::Unreachable(problem)
}
