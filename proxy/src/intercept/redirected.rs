//! Serves connections that the kernel redirected here although their client asked for another host:
//! what is intercepted by the name in the ClientHello is answered, the rest passed on to where it
//! was going.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use swarm::source::ClientPlace;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{
    Met, canonical, handshake::read_opening, hello::Opening, rejections::Asking, rules::Place,
    tunnel::Onward,
};
use crate::{
    activity::{Activity, Underway},
    line::{Cut, Ending, Line},
    metrics::ConnectWay,
    serve::Proxy,
};

// === impl Proxy ===

impl Proxy {
    /// Serves one connection that was going to `original`.
    pub async fn serve_redirected<S>(
        self: Arc<Self>,
        stream: S,
        met: Met,
        original: SocketAddr,
        shutdown: CancellationToken,
        activity: Arc<dyn Activity>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _open = self.metrics.connection();
        let stall_limit = self.config().client_stall_timeout;
        let cut = Cut::new(Ending::Fin, Underway::new(activity));
        let line = Line::new(stream, Bytes::new(), cut, stall_limit);
        self.redirect(line, met, original, &shutdown).await;
    }

    async fn redirect<S>(
        self: &Arc<Self>,
        mut line: Line<S>,
        met: Met,
        original: SocketAddr,
        shutdown: &CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let place = Place::from(original);
        let opening = read_opening(&mut line).await;
        if opening == Opening::Incomplete {
            return line.close().await;
        }
        // A connection of ours is known by now: it says nothing before it is.
        let is_ours = self.intercept.own_ends().contains(&canonical(met.client));
        if is_ours || canonical(original) == canonical(met.own) {
            self.metrics.connect(ConnectWay::Refused);
            tracing::warn!(
                client = %met.client,
                %original,
                "a redirected connection leads back to this process: the rules must leave out its user"
            );
            return line.close().await;
        }
        let config = self.config();
        let rules = &config.rules;
        let onward = Onward {
            place: place.clone(),
            far: None,
            // The kernel would have let it go there: nothing is gained by passing through here.
            reach: ClientPlace::Local,
        };
        if let Some(served) = rules.opened(&place, &opening, &config.source) {
            let asking = Asking {
                client: met.client.ip(),
                agent: agent(&opening),
                host: served.place.to_string(),
            };
            if !self.intercept.rejections().holds(&asking, super::now()) {
                let meant = (asking, onward);
                return Box::pin(self.serve_as(line, served, meant, met, shutdown)).await;
            }
        }
        self.pass_on(line, onward, met, shutdown).await;
    }
}

/// What stands for the name of a client that has told none.
fn agent(opening: &Opening) -> String {
    match opening {
        Opening::Tls(hello) => format!("tls-{:016x}", hello.shape),
        Opening::Incomplete | Opening::Other => String::new(),
    }
}
