//! A registry that answers by script, down to how its connections end.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Serves until it is dropped, on a port of the loopback that was free.
pub(super) struct Registry {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _serving: JoinSet<()>,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// How many came before it.
    pub(super) earlier: usize,
    pub(super) method: String,
    pub(super) target: String,
    head: String,
}

/// One answer, and how the connection ends.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    Reset,
    /// Nothing more comes, and the connection stays.
    Stall,
}

// === impl Registry ===

impl Registry {
    pub(super) async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback has a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), Arc::clone(&asked));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                connections.spawn(async move { serve(stream, log, &*script).await });
            }
        });
        Self {
            address,
            asked,
            _serving: serving,
        }
    }

    /// What was asked so far, in order.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// One header of every request so far, `-` where it was missing.
    pub(super) fn header_of_each(&self, name: &str) -> Vec<String> {
        self.asked()
            .iter()
            .map(|asked| asked.header(name).unwrap_or("-").to_owned())
            .collect()
    }
}

// === impl Asked ===

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .next()
    }

    /// The first byte that is asked for, and the first that is not.
    pub(super) fn range(&self, size: usize) -> Option<(usize, usize)> {
        let (start, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let end = if last.is_empty() {
            size
        } else {
            last.parse::<usize>().ok()? + 1
        };
        Some((start.parse().ok()?, end))
    }
}

// === impl Reply ===

impl Reply {
    /// `head` is the status and perhaps further lines: `404 Not Found\r\nX: y`.
    pub(super) fn new(head: &str, body: &[u8]) -> Self {
        Self::raw(&format!("{head}\r\nContent-Length: {}", body.len()), body)
    }

    /// As [`Reply::new`], with no length told but in `head`.
    pub(super) fn raw(head: &str, body: &[u8]) -> Self {
        let mut bytes = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").into_bytes();
        bytes.extend_from_slice(body);
        Self {
            bytes,
            end: End::Close,
        }
    }

    pub(super) fn status(head: &str) -> Self {
        Self::new(head, b"")
    }

    /// What a healthy registry answers to `asked` of `body`.
    pub(super) fn serve(asked: &Asked, body: &[u8]) -> Self {
        match asked.range(body.len()) {
            None => Self::new("200 OK", body),
            Some((start, end)) => {
                let head = format!(
                    "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}",
                    end - 1,
                    body.len()
                );
                Self::new(&head, &body[start..end])
            }
        }
    }

    /// All but the last `missing` bytes, then the end of the connection.
    pub(super) fn cut(mut self, missing: usize) -> Self {
        self.bytes
            .truncate(self.bytes.len().saturating_sub(missing));
        self
    }

    pub(super) fn then_reset(mut self) -> Self {
        self.end = End::Reset;
        self
    }

    pub(super) fn then_stall(mut self) -> Self {
        self.end = End::Stall;
        self
    }
}

async fn serve(
    mut stream: TcpStream,
    log: Arc<Mutex<Vec<Asked>>>,
    script: &(dyn Fn(&Asked) -> Reply + Send + Sync),
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ').map(ToOwned::to_owned);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let asked = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = Asked {
            earlier: log.len(),
            method,
            target,
            head,
        };
        log.push(asked.clone());
        asked
    };
    let reply = script(&asked);
    if stream.write_all(&reply.bytes).await.is_err() {
        return;
    }
    match reply.end {
        End::Close => {
            let _ = stream.shutdown().await;
        }
        End::Reset => {
            let _ = stream.set_zero_linger();
        }
        // Ends when the client does.
        End::Stall => {
            let _ = stream.read_u8().await;
        }
    }
}
