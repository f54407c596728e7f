//! The one accept loop. Every listener of every role runs through it: a limit of connections, a
//! handler that owns each, and an end when the process drains.
//!
//! Invariant: a connection is served only with a slot. Where none is free, one that is idle is let go
//! for it; where none is idle either it waits, with further ones in the kernel. After the drain began
//! none is accepted.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use proxy::Activity;
use rustix::{io::Errno, net::sockopt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    drain::{Group, Groups},
    metrics::{ListenerMetrics, Metrics},
    presence::{Presence, Presences},
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

/// How long a connection that was asked to go may take before another one is asked too.
const GOING: Duration = Duration::from_millis(100);

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
    fn serve(&self, stream: TcpStream, visit: Visit) -> BoxFuture<'static, ()>;
}

/// What is known of a connection, and how it and the accept loop tell each other what they are at.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) peer: SocketAddr,
    pub(crate) closing: CancellationToken,
    /// A connection on which nothing is under way may be dropped to make room for others.
    pub(crate) activity: Arc<dyn Activity>,
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
    presences: Arc<Presences>,
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
        let presences = Arc::new(Presences::default());
        for listener in listeners {
            let accept_loop = AcceptLoop {
                listener,
                name,
                handler: Arc::clone(&handler),
                slots: Arc::clone(&slots),
                presences: Arc::clone(&presences),
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
        let (stream, peer) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => return,
            // What holds the descriptors or the memory may be connections that are idle.
            Err(error) if is_want(&error) && self.presences.one_goes(REST).await => return,
            Err(error) => {
                tracing::warn!(listener = self.name.label(), %error, "no connection can be accepted");
                tokio::time::sleep(REST).await;
                return;
            }
        };
        let slot = self.room().await;
        // Small answers must not wait for the acknowledgement of what went before.
        let _best_effort = stream.set_nodelay(true);
        if self.name.is_for_clients() {
            let _best_effort = sockopt::set_socket_send_buffer_size(&stream, CLIENT_SEND_BUFFER);
        }
        let Group { stop, tasks } = &self.connections;
        let presence = self.presences.enter();
        let visit = Visit {
            peer,
            closing: stop.clone(),
            activity: Arc::<Presence>::clone(&presence),
        };
        let connection = self.handler.serve(stream, visit);
        let (open, metrics) = (self.metrics.opened(), self.metrics.clone());
        tasks.spawn(async move {
            // What has come meanwhile is seen first. Dropped, the socket ends with FIN: all that was
            // said to it has left, and all that it has said was read.
            tokio::select! {
                biased;
                () = connection => {}
                () = presence.let_go() => metrics.shed.inc(),
            }
            drop((open, slot, presence));
        });
    }

    /// Room for one more connection, which an idle one makes where there is none.
    async fn room(&self) -> OwnedSemaphorePermit {
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned();
            let mut slot = pin!(slot);
            if let Some(Ok(slot)) = slot.as_mut().now_or_never() {
                return slot;
            }
            self.presences.ask();
            // One that was asked has become busy, or there was none that is idle.
            if let Ok(Ok(slot)) = timeout(GOING, slot).await {
                return slot;
            }
        }
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

/// Whether the process, or the machine, has no more of what a connection takes.
fn is_want(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Says back each byte that comes; `b` begins something and `e` ends it.
    #[derive(Debug, Default)]
    struct Echo {
        served: Arc<AtomicUsize>,
    }

    impl Handler for Echo {
        fn serve(&self, mut stream: TcpStream, visit: Visit) -> BoxFuture<'static, ()> {
            self.served.fetch_add(1, Ordering::SeqCst);
            async move {
                while let Ok(byte) = stream.read_u8().await {
                    match byte {
                        b'b' => visit.activity.begin(),
                        b'e' => visit.activity.end(),
                        _ => {}
                    }
                    let _gone = stream.write_u8(byte).await;
                }
            }
            .boxed()
        }
    }

    async fn heard(stream: &mut TcpStream) -> anyhow::Result<u8> {
        Ok(timeout(DEADLINE, stream.read_u8()).await??)
    }

    /// A new connection that has been answered to all of `said`.
    async fn connect(address: SocketAddr, said: &[u8]) -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(address).await?;
        for byte in said {
            stream.write_u8(*byte).await?;
            assert_eq!(heard(&mut stream).await?, *byte);
        }
        Ok(stream)
    }

    async fn has_ended(mut stream: TcpStream) -> anyhow::Result<()> {
        assert_eq!(timeout(DEADLINE, stream.read(&mut [0])).await??, 0);
        Ok(())
    }

    #[tokio::test]
    async fn where_all_slots_are_taken_an_idle_one_makes_room_and_a_busy_one_does_not()
    -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let context = AcceptContext {
            groups: Groups::default(),
            connections_max: 2,
            metrics: Metrics::new(&prometheus::Registry::new())?,
        };
        let echo = Echo::default();
        let served = Arc::clone(&echo.served);
        context.accept(ListenerName::Proxy, vec![listener], Arc::new(echo));

        let mut busy = connect(address, b"b").await?;
        let silent = connect(address, b"").await?;
        // It was busy once, and is idle for less long than the one that never spoke.
        let mut third = connect(address, b"xbe").await?;
        has_ended(silent).await?;
        third.write_u8(b'b').await?;
        assert_eq!(heard(&mut third).await?, b'b');

        // Both are busy: the next one is served once one of them is over.
        let mut fourth = TcpStream::connect(address).await?;
        fourth.write_u8(b'x').await?;
        busy.write_u8(b'y').await?;
        assert_eq!(heard(&mut busy).await?, b'y');
        assert_eq!(served.load(Ordering::SeqCst), 3);
        busy.write_u8(b'e').await?;
        assert_eq!(heard(&mut fourth).await?, b'x');
        assert_eq!(heard(&mut busy).await?, b'e');
        has_ended(busy).await?;
        third.write_u8(b'z').await?;
        assert_eq!(heard(&mut third).await?, b'z');
        let shed = context.metrics.listener(ListenerName::Proxy);
        assert_eq!(shed.shed.get(), 2);
        Ok(())
    }
}
