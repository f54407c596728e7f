//! A registry whose answers wait until a test lets them go.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::{Digest, TaskId};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Serves until it is dropped, on a port of the loopback that was free.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

struct State {
    bodies: Mutex<HashMap<String, Vec<u8>>>,
    is_open: watch::Sender<bool>,
    /// The last part of the path of each request so far.
    asked: Mutex<Vec<String>>,
}

// === impl Registry ===

impl Registry {
    /// An empty registry that answers nobody.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback has a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let state = Arc::new(State {
            bodies: Mutex::default(),
            is_open: watch::Sender::new(false),
            asked: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // A client that is gone needs no answer.
                connections.spawn(async move { drop(state.serve(stream).await) });
            }
        });
        Self {
            address,
            state,
            _serving: serving,
        }
    }

    /// Has `body`, and tells its name.
    pub(crate) fn put(&self, body: Vec<u8>) -> TaskId {
        let task = TaskId(Digest::sha256_of(&body));
        let bodies = self.state.bodies.lock();
        let mut bodies = bodies.unwrap_or_else(PoisonError::into_inner);
        bodies.insert(task.to_string(), body);
        task
    }

    /// Answers everybody from now on.
    pub(crate) fn open(&self) {
        self.state.is_open.send_replace(true);
    }

    /// How many requests have come.
    pub(crate) fn asked(&self) -> usize {
        self.log().len()
    }

    /// How many requests for `task` have come.
    pub(crate) fn asked_for(&self, task: TaskId) -> usize {
        let log = self.log();
        log.iter().filter(|name| **name == task.to_string()).count()
    }

    fn log(&self) -> Vec<String> {
        let asked = self.state.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

// === impl State ===

impl State {
    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut first = String::new();
        stream.read_line(&mut first).await?;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let asked = self.asked.lock();
        asked
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.clone());
        let mut is_open = self.is_open.subscribe();
        // The sender lives as long as what is borrowed here.
        drop(is_open.wait_for(|is_open| *is_open).await);
        let body = {
            let bodies = self.bodies.lock();
            bodies
                .unwrap_or_else(PoisonError::into_inner)
                .get(&name)
                .cloned()
        };
        let status = if body.is_some() {
            "200 OK"
        } else {
            "404 Not Found"
        };
        let body = body.unwrap_or_default();
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.get_mut().shutdown().await
    }
}
