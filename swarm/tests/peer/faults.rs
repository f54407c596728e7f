//! The client against parents that follow a script of bytes.

use std::time::Duration;

use protocol::{AttemptId, Host, Layout, TaskId, identity::Authority, scheduler::ParentFailure};
use swarm::peer::{Asker, PieceClient, PieceClientConfig, PieceError, PieceRun};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use super::{authority, client, fetch, identity, metrics};

/// What the scripted parent does after its answer.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Stall,
}

/// A parent that reads one request head, writes `answer`, and then closes or stalls.
async fn scripted(authority: &Authority, answer: &'static str, then: Then) -> (Host, JoinSet<()>) {
    let identity = identity(authority, "parent");
    let acceptor = tokio_rustls::TlsAcceptor::from(
        identity
            .server_config(&[b"http/1.1"])
            .expect("TLS for a listener"),
    );
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("the other side is there");
    let host = Host {
        id: identity.id().clone(),
        address: listener
            .local_addr()
            .expect("a bound listener has an address"),
    };
    let mut playing = JoinSet::new();
    playing.spawn(async move {
        let (socket, _) = listener.accept().await.expect("the other side is there");
        let mut tls = acceptor
            .accept(socket)
            .await
            .expect("the other side is there");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tls.read_u8().await.expect("the other side is there"));
        }
        assert!(head.starts_with(b"GET /tasks/sha256:"));
        tls.write_all(answer.as_bytes())
            .await
            .expect("the other side is there");
        tls.flush().await.expect("the other side is there");
        match then {
            Then::Close => tls.shutdown().await.expect("the other side is there"),
            Then::Stall => std::future::pending().await,
        }
    });
    (host, playing)
}

/// Five bytes in one piece.
fn run(layout: Layout) -> PieceRun {
    let task = TaskId(protocol::Digest::sha256_of(b"hello"));
    PieceRun {
        task,
        attempt: AttemptId(1),
        layout,
        pieces: 0..1,
        asker: Asker::Child,
    }
}

#[track_caller]
fn fails_as(fetched: &Result<Vec<u8>, PieceError>, expect: ParentFailure, case: &str) {
    let failure = fetched
        .as_ref()
        .map_err(PieceError::parent_failure)
        .map(Vec::len);
    assert_eq!(failure, Err(expect), "{case}: {fetched:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_the_run_is_a_failure_of_the_parent() {
    let authority = authority();
    let (client, _) = client(&authority);
    let known = Layout::for_size(Some(5));
    for (answer, expect) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
            ParentFailure::Unreachable,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhell",
            ParentFailure::Unreachable,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello!",
            ParentFailure::Unreachable,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", ParentFailure::Unreachable),
        (
            "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
            ParentFailure::Unreachable,
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            ParentFailure::Gone,
        ),
        (
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            ParentFailure::Busy,
        ),
        ("garbage\r\n\r\n", ParentFailure::Unreachable),
        ("", ParentFailure::Unreachable),
    ] {
        let (parent, _playing) = scripted(&authority, answer, Then::Close).await;
        fails_as(&fetch(&client, &parent, run(known)).await, expect, answer);
    }
}

#[tokio::test]
async fn the_last_piece_of_a_body_of_unknown_size_may_be_short() {
    let authority = authority();
    let (client, _) = client(&authority);
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let (parent, _playing) = scripted(&authority, answer, Then::Stall).await;
    let fetched = fetch(&client, &parent, run(Layout::for_size(None))).await;
    assert_eq!(fetched.as_deref(), Ok(b"hello".as_slice()));
    let empty = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let (parent, _playing) = scripted(&authority, empty, Then::Stall).await;
    let fetched = fetch(&client, &parent, run(Layout::for_size(None))).await;
    fails_as(&fetched, ParentFailure::Unreachable, empty);
}

#[tokio::test]
async fn a_parent_that_stalls_is_slow() {
    let authority = authority();
    let config = PieceClientConfig {
        run_timeout: Duration::from_millis(200),
        ..PieceClientConfig::default()
    };
    let client = PieceClient::new(&identity(&authority, "child"), config, metrics().0).unwrap();
    let known = Layout::for_size(Some(5));
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell"] {
        let (parent, _playing) = scripted(&authority, answer, Then::Stall).await;
        fails_as(
            &fetch(&client, &parent, run(known)).await,
            ParentFailure::Slow,
            answer,
        );
    }
}

#[tokio::test]
async fn a_parent_that_does_not_listen_is_unreachable() {
    let authority = authority();
    let (client, _) = client(&authority);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let parent = Host {
        id: "parent".parse().unwrap(),
        address,
    };
    let fetched = fetch(&client, &parent, run(Layout::for_size(Some(5)))).await;
    fails_as(&fetched, ParentFailure::Unreachable, "nobody listens");
}
