//! Carries bytes between a client and the host that it asked for, untouched: each side may end its
//! half before the other, and a tunnel on which nothing moves is ended.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use swarm::source::ClientPlace;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Interceptor, Met, canonical, now, rules::Place};
use crate::{
    line::Line,
    metrics::{ConnectWay, Direction, Metrics},
    serve::Proxy,
};

/// Where a connection was meant to go.
#[derive(Debug)]
pub(super) struct Onward {
    pub(super) place: Place,
    /// The connection to there, where it is open already.
    pub(super) far: Option<TcpStream>,
    /// As whose connection it is judged.
    pub(super) reach: ClientPlace,
}

/// What is said of a tunnel when it ends.
struct Tunnel<'a> {
    met: Met,
    place: Place,
    metrics: &'a Metrics,
}

/// Our own end of a tunnel, remembered while there is one.
struct OwnEnd<'a> {
    interceptor: &'a Interceptor,
    address: Option<SocketAddr>,
}

/// Bytes that were read of each side, and whether one has said all.
#[derive(Debug, Default)]
struct Carried {
    up: AtomicU64,
    down: AtomicU64,
    is_half_closed: AtomicBool,
}

/// A stream whose bytes are counted as they are read.
struct Counted<'a, S> {
    stream: &'a mut S,
    count: &'a AtomicU64,
    is_half_closed: &'a AtomicBool,
    bytes: prometheus::IntCounter,
}

/// A tunnel on which nothing moves for this long is ended.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The same once one side has said all: a client that is gone ends its half like one that waits.
const IDLE_TIMEOUT_HALF_CLOSED: Duration = Duration::from_secs(2 * 60);

/// The same while the process drains: a connection that somebody keeps for later ends then.
const IDLE_TIMEOUT_DRAINING: Duration = Duration::from_secs(2);

/// How often it is looked whether something has moved.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// How long the far end may take to take the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that are held for each direction.
const BUFFER_LEN: usize = 16 * 1024;

// === impl Proxy ===

impl Proxy {
    /// Passes a connection on to where it was meant to go, and ends it.
    pub(super) async fn pass_on<S>(
        &self,
        mut line: Line<S>,
        onward: Onward,
        met: Met,
        shutdown: &CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hold = line.hold();
        let Onward { place, far, reach } = onward;
        let far = match far {
            Some(far) => Ok(far),
            None => {
                let tunnels = &self.intercept.tunnels;
                tunnels.connect(&place.host, place.port, reach).await
            }
        };
        match far {
            Ok(far) => {
                self.metrics.connect(ConnectWay::Tunnelled);
                let _own_end = OwnEnd::new(&self.intercept, &far);
                let tunnel = Tunnel {
                    met,
                    place,
                    metrics: &self.metrics,
                };
                tunnel.carry(&mut line, far, shutdown).await;
            }
            Err(error) => {
                self.metrics.connect(ConnectWay::Refused);
                tracing::info!(client = %met.client.ip(), host = %place, %error, "tunnel refused");
            }
        }
        drop(hold);
        line.close().await;
    }
}

// === impl OwnEnd ===

impl<'a> OwnEnd<'a> {
    fn new(interceptor: &'a Interceptor, far: &TcpStream) -> Self {
        let address = far.local_addr().ok().map(canonical);
        interceptor.own_ends().extend(address);
        Self {
            interceptor,
            address,
        }
    }
}

impl Drop for OwnEnd<'_> {
    fn drop(&mut self) {
        if let Some(address) = &self.address {
            self.interceptor.own_ends().remove(address);
        }
    }
}

// === impl Tunnel ===

impl Tunnel<'_> {
    /// Carries until both sides have ended, one is gone, or nothing moves. The client's side is left
    /// open for its end.
    async fn carry<S>(self, line: &mut Line<S>, mut far: TcpStream, shutdown: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let began = now();
        self.metrics.tunnels.inc();
        let carried = Carried::default();
        let ended = {
            let mut client = Counted {
                stream: line,
                count: &carried.up,
                is_half_closed: &carried.is_half_closed,
                bytes: self.metrics.tunnel_bytes(Direction::Up),
            };
            let mut host = Counted {
                stream: &mut far,
                count: &carried.down,
                is_half_closed: &carried.is_half_closed,
                bytes: self.metrics.tunnel_bytes(Direction::Down),
            };
            let copied =
                copy_bidirectional_with_sizes(&mut client, &mut host, BUFFER_LEN, BUFFER_LEN);
            tokio::select! {
                copied = copied => copied.map_or("broken", |_| "whole"),
                () = carried.stands_still(shutdown) => "idle",
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, far.shutdown()).await;
        self.metrics.tunnels.dec();
        tracing::info!(
            client = %self.met.client.ip(),
            host = %self.place,
            bytes_up = carried.up.load(Ordering::Relaxed),
            bytes_down = carried.down.load(Ordering::Relaxed),
            total_ms = (now() - began).as_millis() as u64,
            ended,
            "tunnel"
        );
    }
}

// === impl Carried ===

impl Carried {
    fn total(&self) -> u64 {
        self.up.load(Ordering::Relaxed) + self.down.load(Ordering::Relaxed)
    }

    async fn stands_still(&self, shutdown: &CancellationToken) {
        let mut still = Duration::ZERO;
        loop {
            let (before, is_draining) = (self.total(), shutdown.is_cancelled());
            let limit = match (is_draining, self.is_half_closed.load(Ordering::Relaxed)) {
                (true, _) => IDLE_TIMEOUT_DRAINING,
                (false, true) => IDLE_TIMEOUT_HALF_CLOSED,
                (false, false) => IDLE_TIMEOUT,
            };
            if still >= limit {
                return;
            }
            tokio::select! {
                () = sleep(IDLE_LOOK) => {}
                () = shutdown.cancelled(), if !is_draining => still = Duration::ZERO,
            }
            still = match self.total() == before {
                true => still + IDLE_LOOK,
                false => Duration::ZERO,
            };
        }
    }
}

// === impl Counted ===

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *self.stream).poll_read(context, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        if read == 0 {
            self.is_half_closed.store(true, Ordering::Relaxed);
        }
        self.count.fetch_add(read, Ordering::Relaxed);
        self.bytes.inc_by(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How long a tunnel is waited for that carries a byte after each of `pauses`.
    async fn stood_still_after(pauses: &[Duration], shutdown: &CancellationToken) -> Duration {
        let carried = Carried::default();
        stood_still(carried, pauses, shutdown).await
    }

    async fn stood_still(
        carried: Carried,
        pauses: &[Duration],
        shutdown: &CancellationToken,
    ) -> Duration {
        #[expect(clippy::disallowed_methods, reason = "the clock of the test is paused")]
        let began = Instant::now();
        let bytes = async {
            for pause in pauses {
                sleep(*pause).await;
                carried.up.fetch_add(1, Ordering::Relaxed);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = bytes => {}
            () = carried.stands_still(shutdown) => {}
            // One that never ends is told as that, and does not hang the test.
            () = sleep(100 * IDLE_TIMEOUT) => {}
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_ends_when_nothing_has_moved_for_long() {
        let running = CancellationToken::new();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let idle = stood_still_after(&[], &running).await;
        assert!(idle >= minutes(15) && idle < minutes(16), "{idle:?}");
        let busy = stood_still_after(&[minutes(10); 3], &running).await;
        assert!(busy >= minutes(45) && busy < minutes(46), "{busy:?}");
        let half = Carried {
            is_half_closed: AtomicBool::new(true),
            ..Carried::default()
        };
        let half = stood_still(half, &[minutes(1)], &running).await;
        assert!(half >= minutes(3) && half < minutes(4), "{half:?}");
        let draining = CancellationToken::new();
        draining.cancel();
        let drained = stood_still_after(&[Duration::from_secs(1)], &draining).await;
        assert!(drained < Duration::from_secs(5), "{drained:?}");
    }
}
