//! The one accept loop. Every listener of every role runs through it: a limit of connections, a
//! handler that owns each, and an end when the process drains.
//!
//! Invariant: a connection is never accepted before there is a slot for it; further ones wait in
//! the kernel. After the drain began none is accepted.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{net::TcpListener, net::TcpStream, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    drain::{Group, Groups},
    metrics::{ListenerMetrics, Metrics},
};

/// How long the loop rests after the process ran out of descriptors or memory.
const REST: Duration = Duration::from_millis(100);

/// Which listener a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ListenerName {
    Proxy,
    Transparent,
    Swarm,
    Scheduler,
    Admin,
}

/// What is done with the connections of one listener.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Serves one connection to its end. Once `closing` is cancelled it takes no further request
    /// and ends when the running one is answered.
    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        closing: CancellationToken,
    ) -> BoxFuture<'static, ()>;
}

/// What all loops of a process share.
#[derive(Debug, Clone)]
pub(crate) struct AcceptContext {
    /// Own the loops and the connections.
    pub(crate) groups: Groups,
    pub(crate) connections_max: usize,
    pub(crate) metrics: Metrics,
}

/// One listener's loop.
struct AcceptLoop {
    listener: TcpListener,
    name: ListenerName,
    handler: Arc<dyn Handler>,
    slots: Arc<Semaphore>,
    closing: CancellationToken,
    connections: Group,
    metrics: ListenerMetrics,
}

// === impl ListenerName ===

impl ListenerName {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Transparent => "transparent",
            Self::Swarm => "swarm",
            Self::Scheduler => "scheduler",
            Self::Admin => "admin",
        }
    }

    /// With what its connections end. Those of other hosts bring pieces to bodies that run there.
    fn group(self, groups: &Groups) -> &Group {
        match self {
            Self::Proxy | Self::Transparent | Self::Scheduler | Self::Admin => &groups.answers,
            Self::Swarm => &groups.services,
        }
    }
}

// === impl AcceptContext ===

impl AcceptContext {
    /// Serves `listeners`, which share one limit, until the process drains.
    pub(crate) fn accept(
        &self,
        name: ListenerName,
        listeners: Vec<TcpListener>,
        handler: Arc<dyn Handler>,
    ) {
        let slots = Arc::new(Semaphore::new(self.connections_max));
        for listener in listeners {
            let accept_loop = AcceptLoop {
                listener,
                name,
                handler: Arc::clone(&handler),
                slots: Arc::clone(&slots),
                closing: self.groups.answers.stop.clone(),
                connections: name.group(&self.groups).clone(),
                metrics: self.metrics.listener(name),
            };
            self.groups.answers.tasks.spawn(accept_loop.run());
        }
    }
}

// === impl AcceptLoop ===

impl AcceptLoop {
    async fn run(self) {
        let closing = self.closing.clone();
        let accepting = async {
            loop {
                self.accept_one().await;
            }
        };
        // Cancelled between two connections or while waiting; a connection that was accepted has
        // been handed to its task already.
        closing.run_until_cancelled(accepting).await;
    }

    async fn accept_one(&self) {
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return std::future::pending().await;
        };
        let (stream, peer) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => return,
            Err(error) => {
                tracing::warn!(listener = self.name.label(), %error, "no connection can be accepted");
                tokio::time::sleep(REST).await;
                return;
            }
        };
        // Small answers must not wait for the acknowledgement of what went before.
        let _best_effort = stream.set_nodelay(true);
        let Group { stop, tasks } = &self.connections;
        let connection = self.handler.serve(stream, peer, stop.clone());
        let open = self.metrics.opened();
        tasks.spawn(async move {
            connection.await;
            drop((open, slot));
        });
    }
}

/// Whether the error speaks of the connection that was to be accepted, not of this process.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
