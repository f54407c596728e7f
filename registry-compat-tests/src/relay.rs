//! A TCP relay before a registry that stops in the middle of a body, to the byte, and goes on when
//! told: a real registry, paused. A stopped process would not do: what it has written already is
//! still in socket buffers, megabytes of it.
//!
//! It reads as much of HTTP/1.1 as it needs to know where a body begins. Nothing is changed, and
//! nothing is held back but the bodies that are longer than what it lets through.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
    task::JoinSet,
};

/// The blank line after the head of a message.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A running relay; it ends with this value.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    gate: Arc<Gate>,
    _runtime: Runtime,
}

#[derive(Debug)]
struct Gate {
    /// Bytes of each body that go through while the gate is shut.
    pass: u64,
    open: watch::Sender<bool>,
    arrived: AtomicUsize,
}

/// Where in the current answer a connection is; a new request begins a new one.
#[derive(Debug, Default)]
struct Meter {
    head: Vec<u8>,
    /// Bytes of the body that went through; `None` while the head is still coming.
    body: Option<u64>,
}

// === impl Relay ===

impl Relay {
    /// Relays to `registry`, and stops every body after `pass` bytes until [`Relay::open`].
    ///
    /// # Errors
    /// No socket or no runtime is to be had.
    pub fn start(registry: SocketAddr, pass: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let gate = Arc::new(Gate {
            pass,
            open: watch::Sender::new(false),
            arrived: AtomicUsize::new(0),
        });
        let address = listener.local_addr()?;
        runtime.spawn(accept(listener, registry, Arc::clone(&gate)));
        Ok(Self {
            address,
            gate,
            _runtime: runtime,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bodies have come to the gate, whether it was shut or open then.
    #[must_use]
    pub fn bodies(&self) -> usize {
        self.gate.arrived.load(Ordering::Acquire)
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.gate.open.send_replace(true);
    }
}

// === impl Gate ===

impl Gate {
    async fn wait(&self) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let mut open = self.open.subscribe();
        // The sender lives as long as the gate that is borrowed here.
        let _never_gone = open.wait_for(|open| *open).await;
    }
}

// === impl Meter ===

impl Meter {
    /// How many bytes of `chunk`, the next of the answer, lie before the one that follows the
    /// first `pass` bytes of the body.
    fn before_gate(&mut self, chunk: &[u8], pass: u64) -> usize {
        let (head, before) = match self.body {
            Some(before) => (0, before),
            None => {
                self.head.extend_from_slice(chunk);
                let end = self
                    .head
                    .windows(HEAD_END.len())
                    .position(|window| window == HEAD_END);
                let Some(end) = end else {
                    return chunk.len();
                };
                let body = self.head.len() - end - HEAD_END.len();
                (chunk.len() - body, 0)
            }
        };
        let body = (chunk.len() - head) as u64;
        self.body = Some(before + body);
        let room = pass.saturating_sub(before);
        match before <= pass {
            true => head + usize::try_from(room.min(body)).unwrap_or(chunk.len()),
            false => chunk.len(),
        }
    }
}

async fn accept(listener: TcpListener, registry: SocketAddr, gate: Arc<Gate>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(relay(client, registry, Arc::clone(&gate)));
    }
}

async fn relay(client: TcpStream, registry: SocketAddr, gate: Arc<Gate>) {
    let Ok(server) = TcpStream::connect(registry).await else {
        return;
    };
    let meter = Mutex::new(Meter::default());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Either side's end ends both, as a broken connection would.
    tokio::select! {
        _ended = requests(from_client, to_server, &meter) => {}
        _ended = answers(from_server, to_client, (&meter, &gate)) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    meter: &Mutex<Meter>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        *meter.lock().unwrap_or_else(PoisonError::into_inner) = Meter::default();
        to.write_all(&buffer[..count]).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (meter, gate): (&Mutex<Meter>, &Gate),
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let chunk = &buffer[..count];
        let before = meter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .before_gate(chunk, gate.pass);
        to.write_all(&chunk[..before]).await?;
        if before < count {
            gate.wait().await;
            to.write_all(&chunk[before..]).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_stands_after_so_many_bytes_of_the_body_wherever_the_head_ends() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
        let head = answer.len() - 10;
        for cut in 1..answer.len() {
            let mut meter = Meter::default();
            let (first, second) = answer.split_at(cut);
            let told = [first, second].map(|chunk| (meter.before_gate(chunk, 4), chunk.len()));
            let stopped: Vec<bool> = told.iter().map(|(before, len)| before < len).collect();
            let at = match stopped[0] {
                true => told[0].0,
                false => cut + told[1].0,
            };
            assert_eq!(at, head + 4, "cut at {cut}: {told:?}");
            assert_eq!(stopped.iter().filter(|stop| **stop).count(), 1, "{cut}");
        }
    }
}
