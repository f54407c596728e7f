//! An HTTP proxy as a company has one: CONNECT and absolute form, and what it was asked as data. Every
//! name leads to one place, so that a test may use names that nobody else knows.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    task::JoinSet,
};

/// A running proxy; it ends with this value.
#[derive(Debug)]
pub struct WebProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: Runtime,
}

/// One request to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub target: String,
    /// `Proxy-Authorization`, where there was one.
    pub authorization: Option<String>,
}

/// A longer head is refused.
const HEAD_LEN_MAX: usize = 64 << 10;

// === impl WebProxy ===

impl WebProxy {
    /// A proxy on the loopback that connects to `behind`, whatever it is asked for.
    ///
    /// # Errors
    /// No socket or no runtime is to be had.
    pub fn start(behind: SocketAddr) -> Result<Self> {
        let runtime = Runtime::new()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let log = Arc::clone(&asked);
        #[expect(clippy::disallowed_methods, reason = "the runtime ends with the proxy")]
        runtime.handle().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                connections.spawn(async move {
                    let _ended = serve(client, behind, &log).await;
                });
            }
        });
        Ok(Self {
            address,
            asked,
            _runtime: runtime,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

async fn serve(mut client: TcpStream, behind: SocketAddr, log: &Mutex<Vec<Asked>>) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_LEN_MAX {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next(), words.next());
    let (method, target) = (method.unwrap_or_default(), target.unwrap_or_default());
    let authorization = lines.filter_map(|line| line.split_once(": "));
    let authorization = authorization
        .filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"))
        .map(|(_, value)| value.to_owned())
        .next();
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Asked {
            method: method.to_owned(),
            target: target.to_owned(),
            authorization,
        });
    let mut server = TcpStream::connect(behind).await?;
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    } else {
        // One request per connection: the next may be for another place.
        let (_, rest) = target.split_once("://").unwrap_or_default();
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        let head = head.replacen(target, path, 1);
        let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        server.write_all(head.as_bytes()).await?;
    }
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
