//! The server against raw bytes on a connection in memory, in virtual time.

use std::sync::Arc;

use prometheus::Registry;
use protocol::{PeerIdentity, Role};
use swarm::peer::{PeerServer, PeerServerConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{ATTEMPT, Stored, TestShelf, counted, metrics};

/// The child's end of a connection, and what serves the other.
pub(super) struct Connection {
    pub(super) child: DuplexStream,
    pub(super) serving: JoinSet<()>,
    shutdown: CancellationToken,
    pub(super) server: PeerServer,
}

pub(super) fn server(shelf: TestShelf, config: PeerServerConfig) -> (PeerServer, Registry) {
    let (metrics, registry) = metrics();
    (PeerServer::new(Arc::new(shelf), config, metrics), registry)
}

fn connect(shelf: TestShelf) -> Connection {
    connect_as("child", &server(shelf, PeerServerConfig::default()).0)
}

pub(super) fn connect_as(id: &str, server: &PeerServer) -> Connection {
    let (child, parent) = duplex(16 * 1024);
    let peer = PeerIdentity {
        id: id.parse().expect("a host id"),
        roles: [Role::Proxy].into_iter().collect(),
    };
    let (mut serving, shutdown) = (JoinSet::new(), CancellationToken::new());
    let (serves, token) = (server.clone(), shutdown.clone());
    serving.spawn(async move { serves.serve_pieces(parent, peer, token).await });
    Connection {
        child,
        serving,
        shutdown,
        server: server.clone(),
    }
}

impl Connection {
    /// Asks for `path` and gives the status of the answer, whose body is left where it is.
    pub(super) async fn ask(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        self.send(request.as_bytes()).await
    }

    async fn send(&mut self, request: &[u8]) -> String {
        // A head that is too long is answered before it was read to its end.
        let _ = self.child.write_all(request).await;
        let mut status = [0; 12];
        self.child
            .read_exact(&mut status)
            .await
            .expect("the other side is there");
        String::from_utf8_lossy(&status[9..]).into_owned()
    }
}

/// The status that `request` is answered with on a connection of its own.
async fn status_of(request: &[u8]) -> String {
    connect(TestShelf::default()).send(request).await
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_no_run_of_pieces_is_refused() {
    let task = protocol::Digest::sha256_of(b"");
    let path = format!("/tasks/{task}/{ATTEMPT}/pieces/0-0");
    for (request, expect) in [
        (format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"), "404"),
        (
            format!("GET {path}?as=sibling HTTP/1.1\r\nhost: a\r\n\r\n"),
            "404",
        ),
        (
            format!("GET {path}?as=cousin HTTP/1.1\r\nhost: a\r\n\r\n"),
            "400",
        ),
        (format!("GET {path}x HTTP/1.1\r\nhost: a\r\n\r\n"), "400"),
        (format!("POST {path} HTTP/1.1\r\nhost: a\r\n\r\n"), "400"),
        (
            format!("GET {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody"),
            "400",
        ),
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
        ("\x16\x03\x01 garbage\r\n\r\n".to_owned(), "400"),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)),
            "431",
        ),
    ] {
        let shown: String = request.chars().take(60).collect();
        assert_eq!(status_of(request.as_bytes()).await, expect, "{shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_moves_is_closed() {
    for sent in ["", "GET /tasks", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let mut connection = connect(TestShelf::default());
        connection.child.write_all(sent.as_bytes()).await.unwrap();
        connection.serving.join_next().await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_read_gives_its_slot_back_in_time() {
    let (mut connection, _) = asked_for_a_run().await;
    connection.child.read_u8().await.unwrap();
    assert_eq!(connection.server.uploads(), 1);
    connection.serving.join_next().await.unwrap().unwrap();
    assert_eq!(connection.server.uploads(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_under_way_is_finished_at_shutdown() {
    let (mut connection, body) = asked_for_a_run().await;
    connection.child.read_u8().await.unwrap();
    connection.shutdown.cancel();
    let mut answer = Vec::new();
    connection.child.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&body));
    connection.serving.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn siblings_leave_slots_to_children_and_are_refused_at_once() {
    let stored = Stored::new(1 << 20);
    let shelf = TestShelf::default();
    shelf.put(stored.task, stored.progress.clone());
    let config = PeerServerConfig {
        upload_slots: 4,
        ..PeerServerConfig::default()
    };
    let (server, registry) = server(shelf, config);
    let path = format!("/tasks/{}/{ATTEMPT}/pieces/0-3", stored.task);
    let mut open = Vec::new();
    // Bodies that are not read hold their slots.
    for (id, query, expect) in [
        ("a", "?as=sibling", "200"),
        ("a", "?as=sibling", "503"),
        ("b", "?as=sibling", "200"),
        ("c", "?as=sibling", "200"),
        ("d", "?as=sibling", "503"),
        ("e", "", "200"),
        ("f", "", "503"),
    ] {
        let mut connection = connect_as(id, &server);
        assert_eq!(
            connection.ask(&format!("{path}{query}")).await,
            expect,
            "{id}"
        );
        open.push(connection);
    }
    assert_eq!(server.uploads(), 4);
    let counted = |name: &str, label: &str| counted(&registry, name, label);
    assert_eq!(counted("uploads_total", "sibling"), 3);
    assert_eq!(counted("uploads_total", "child"), 1);
    assert_eq!(counted("upload_refusals_total", "task_share"), 1);
    assert_eq!(counted("upload_refusals_total", "reserved"), 1);
    assert_eq!(counted("upload_refusals_total", "full"), 1);

    let mut left = open.remove(0);
    drop(left.child);
    left.serving.join_next().await;
    let mut again = connect_as("d", &server);
    assert_eq!(again.ask(&format!("{path}?as=sibling")).await, "200");
}

/// A connection on which a run of four pieces was asked for, and the bytes of that run.
pub(super) async fn asked_for_a_run() -> (Connection, Vec<u8>) {
    let stored = Stored::new(1 << 20);
    let shelf = TestShelf::default();
    shelf.put(stored.task, stored.progress.clone());
    let mut connection = connect(shelf);
    let request = format!(
        "GET /tasks/{}/{ATTEMPT}/pieces/0-3 HTTP/1.1\r\nhost: a\r\n\r\n",
        stored.task
    );
    connection
        .child
        .write_all(request.as_bytes())
        .await
        .expect("the other side is there");
    (connection, stored.body)
}
