//! The one accept loop. Every listener of every role runs through it: a limit of connections, a
//! handler that owns each, and an end when the process drains.
//!
//! Invariant: a connection is never accepted before there is a slot for it; further ones wait in
//! the kernel. After the drain began none is accepted.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use rustix::net::sockopt;
use tokio::{net::TcpListener, net::TcpStream, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    drain::{Group, Groups},
    metrics::{ListenerMetrics, Metrics},
};

/// How long the loop rests after the process ran out of descriptors or memory.
const REST: Duration = Duration::from_millis(100);

/// What the kernel may hold of an answer that its client has not taken yet, in bytes; it allows itself
/// twice as much, for its own bookkeeping. A client that leaves in the middle of a body, as those do
/// that read a part by an open range, was sent no more than that for nothing.
///
/// On the loopback a hot blob is given out faster so than with the megabytes that the kernel would
/// take by itself, which pass through no processor's cache. Machines allow 208 KiB and more
/// (`net.core.wmem_max`), so this is what they all do.
const CLIENT_SEND_BUFFER: usize = 192 * 1024;

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

    /// Whether those who connect are clients of this host, near it, and no hosts elsewhere.
    fn is_for_clients(self) -> bool {
        match self {
            Self::Proxy | Self::Transparent => true,
            Self::Swarm | Self::Scheduler | Self::Admin => false,
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
        if self.name.is_for_clients() {
            let _best_effort = sockopt::set_socket_send_buffer_size(&stream, CLIENT_SEND_BUFFER);
        }
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
