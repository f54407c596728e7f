//! Takes a connection that is to be answered as another host: reads whom the client names, ends its
//! TLS with a certificate of that name and serves it; or passes it on.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::uri::Authority;
use rustls::AlertDescription;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    Met, Owner,
    connect::Next,
    hello::{self, OPENING_LEN_MAX, Opening},
    http2, now,
    rejections::{Asking, Rejection},
    rules::Served,
    tunnel::Onward,
};
use crate::{
    line::{Cut, Ending, Line},
    metrics::ConnectWay,
    serve::{Proxy, Stage},
};

/// A client that has not begun by then is passed on: some protocols let the server speak first.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);

/// From the ClientHello to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read of an opening at once.
const OPENING_CHUNK: usize = 4096;

const HTTP2: &[u8] = b"h2";

// === impl Proxy ===

impl Proxy {
    /// Goes on with a connection whose CONNECT was answered, to its end.
    pub(crate) async fn go_on<S>(
        self: &Arc<Self>,
        mut line: Line<S>,
        next: Next,
        met: Met,
        shutdown: &CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Next { asking, onward } = next;
        if onward.far.is_none() {
            let opening = read_opening(&mut line).await;
            if opening == Opening::Incomplete {
                return line.close().await;
            }
            let config = self.config();
            let rules = &config.rules;
            if let Some(served) = rules.opened(&onward.place, &opening, &config.source) {
                let meant = (asking, onward);
                return self.serve_as(line, served, meant, met, shutdown).await;
            }
        }
        self.pass_on(line, onward, met, shutdown).await;
    }

    /// Answers as the registry that the client named.
    pub(super) async fn serve_as<S>(
        self: &Arc<Self>,
        line: Line<S>,
        served: Served,
        (asking, onward): (Asking, Onward),
        met: Met,
        shutdown: &CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let owner = Owner::Registry(served.registry.clone());
        let certificates = &self.intercept.certificates;
        let inside = served.place.authority().parse::<Authority>();
        let (inside, config) = match (inside, certificates.tls(&owner, &served.name).await) {
            (Ok(inside), Ok(config)) => (inside, config),
            (inside, config) => {
                let error = config.err().map(|error| error.to_string());
                let error = error.or(inside.err().map(|error| error.to_string()));
                tracing::warn!(host = %served.place, error, "a connection is passed on, not answered");
                return self.pass_on(line, onward, met, shutdown).await;
            }
        };
        self.metrics.connect(ConnectWay::Intercepted);
        match handshake(line, TlsAcceptor::from(config)).await {
            Ok(stream) => {
                self.intercept.rejections().forget(&asking);
                self.serve_tls(stream, Some(inside), met, shutdown).await;
            }
            Err(error) => self.note_rejection(asking, &served, &error),
        }
    }

    fn note_rejection(&self, asking: Asking, served: &Served, error: &io::Error) {
        let Some(rejection) = rejection(error) else {
            tracing::debug!(client = %asking.client, host = asking.host, %error, "no TLS handshake");
            return;
        };
        let (client, agent, host) = (asking.client, asking.agent.clone(), asking.host.clone());
        let is_sure = self.intercept.rejections().note(asking, rejection, now());
        if !is_sure {
            tracing::info!(%client, agent, host, %error, "a client left in the handshake");
            return;
        }
        self.metrics.rejections.inc();
        let registry = &served.registry;
        tracing::warn!(
            %client,
            agent,
            host,
            %error,
            "a client does not trust the certificate for {registry} and is passed on to it for a \
             while: run `darter ca install RUNTIME --registry {registry}`",
        );
    }

    /// Serves the requests on a connection whose TLS ended here; they are for `inside`, or for the
    /// mirror where there is none.
    pub(crate) async fn serve_tls<S>(
        self: &Arc<Self>,
        stream: TlsStream<Line<S>>,
        inside: Option<Authority>,
        met: Met,
        shutdown: &CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        let stage = Arc::new(Stage {
            proxy: Arc::clone(self),
            met,
            inside,
            is_http2,
            is_tls: true,
        });
        let underway = stream.get_ref().0.underway();
        let cut = Cut::new(Ending::Fin, Arc::clone(underway));
        let line = Line::new(
            stream,
            Bytes::new(),
            Arc::clone(&cut),
            self.config().client_stall_timeout,
        );
        if is_http2 {
            http2::serve(line, stage, shutdown).await;
        } else {
            let (line, _) = Self::speak(&stage, line, cut, shutdown.clone()).await;
            line.close().await;
        }
    }

    /// TLS on the mirror's own port, by the loopback names; `line` begins with a ClientHello. Gives
    /// the line back where it is for nobody here.
    pub(crate) async fn serve_loopback<S>(
        self: &Arc<Self>,
        mut line: Line<S>,
        met: Met,
        shutdown: &CancellationToken,
    ) -> Option<Line<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let own = met.own.ip().to_canonical();
        let Opening::Tls(hello) = read_opening(&mut line).await else {
            return Some(line);
        };
        let name = match hello.sni.as_deref() {
            None => ServerName::from(own),
            Some("localhost") => ServerName::try_from("localhost").ok()?,
            Some(_) => return Some(line),
        };
        if !own.is_loopback() {
            return Some(line);
        }
        let config = match self
            .intercept
            .certificates
            .tls(&Owner::Loopback, &name)
            .await
        {
            Ok(config) => config,
            Err(error) => {
                tracing::warn!(%error, "the mirror cannot speak TLS");
                return Some(line);
            }
        };
        match handshake(line, TlsAcceptor::from(config)).await {
            Ok(stream) => self.serve_tls(stream, None, met, shutdown).await,
            Err(error) => tracing::warn!(
                client = %met.client.ip(),
                %error,
                "a client does not trust the certificate of the mirror: see `darter ca show`"
            ),
        }
        None
    }
}

async fn handshake<S>(line: Line<S>, acceptor: TlsAcceptor) -> io::Result<TlsStream<Line<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(line)).await {
        Ok(accepted) => accepted,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// What the client begins with; [`Opening::Incomplete`] where it is gone without a word. All that was
/// read stands before the line again.
pub(super) async fn read_opening<S>(line: &mut Line<S>) -> Opening
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = BytesMut::new();
    let reading = async {
        loop {
            match hello::read(&read) {
                Opening::Incomplete if read.len() < OPENING_LEN_MAX => {}
                opening => return opening,
            }
            read.reserve(OPENING_CHUNK);
            match line.read_buf(&mut read).await {
                Ok(len) if len > 0 => {}
                Ok(_) | Err(_) if read.is_empty() => return Opening::Incomplete,
                Ok(_) | Err(_) => return Opening::Other,
            }
        }
    };
    let opening = timeout(OPENING_TIMEOUT, reading)
        .await
        .unwrap_or(Opening::Other);
    line.unread(read.freeze());
    opening
}

/// How a client whose handshake ended with `error` rejected our certificate; `None` where it did
/// something else.
fn rejection(error: &io::Error) -> Option<Rejection> {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied,
        )) => Some(Rejection::Told),
        Some(_) => None,
        None => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        )
        .then_some(Rejection::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ended(
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
        expect: Option<Rejection>,
    ) {
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        assert_eq!(rejection(&error), expect, "{error}");
    }

    #[test]
    fn a_client_that_does_not_trust_us_is_told_from_one_that_cannot_speak() {
        let alert = rustls::Error::AlertReceived;
        ended(alert(AlertDescription::UnknownCA), Some(Rejection::Told));
        ended(
            alert(AlertDescription::BadCertificate),
            Some(Rejection::Told),
        );
        ended(alert(AlertDescription::ProtocolVersion), None);
        ended(alert(AlertDescription::UserCanceled), None);
        ended(rustls::Error::DecryptError, None);
        let left = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(rejection(&left), Some(Rejection::Silent));
        let slow = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(rejection(&slow), None);
    }
}
