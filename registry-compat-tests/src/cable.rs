//! A TCP relay before a host that goes dead after so many bytes, to the byte: a network that is cut.
//! Connections stay open and new ones are taken, but nothing more comes from the host.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    runtime::Runtime,
    task::JoinSet,
};

/// A running cable; it ends with this value, and every connection through it.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    left: Arc<AtomicU64>,
    _runtime: Runtime,
}

// === impl Cable ===

impl Cable {
    /// A cable to the host at `target` that carries `pass` bytes of what it says, over all
    /// connections.
    ///
    /// # Errors
    /// No socket or no runtime is to be had.
    pub fn start(target: SocketAddr, pass: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let left = Arc::new(AtomicU64::new(pass));
        runtime.spawn(accept(listener, target, Arc::clone(&left)));
        Ok(Self {
            address,
            left,
            _runtime: runtime,
        })
    }

    /// Where the others reach the host.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it has carried all that it carries.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, left: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connect(client, target, Arc::clone(&left)));
    }
}

/// Either side's end ends both, as a broken connection would.
async fn connect(client: TcpStream, target: SocketAddr, left: Arc<AtomicU64>) {
    let Ok(host) = TcpStream::connect(target).await else {
        return;
    };
    let (mut from_client, to_client) = client.into_split();
    let (from_host, mut to_host) = host.into_split();
    tokio::select! {
        _ended = copy(&mut from_client, &mut to_host) => {}
        _ended = carry(from_host, to_client, &left) => {}
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    left: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let take = |left: u64| Some(left.saturating_sub(count as u64));
        let before = left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        let room = before.unwrap_or_default().min(count as u64) as usize;
        to.write_all(&buffer[..room]).await?;
        if room < count {
            // Nothing more is carried, and nobody is told why.
            return std::future::pending().await;
        }
    }
}
