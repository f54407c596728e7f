//! Connections: how they begin, and that they end with FIN and never with RST.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::fixture::{DEADLINE, FakeContent, Fixture, Reply, Watched, met, unwatched};

/// A real socket to the proxy, since only the kernel sends RST.
async fn connect(
    fixture: &Fixture,
    serving: &mut JoinSet<()>,
) -> anyhow::Result<(TcpStream, CancellationToken)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;
    let shutdown = CancellationToken::new();
    serving.spawn(Arc::clone(&fixture.proxy).serve_connection(
        server,
        met(),
        shutdown.clone(),
        unwatched(),
    ));
    Ok((client, shutdown))
}

async fn read_to_end(client: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut answer = Vec::new();
    timeout(DEADLINE, client.read_to_end(&mut answer)).await??;
    Ok(answer)
}

#[tokio::test]
async fn a_broken_body_ends_with_fin_though_the_client_has_sent_more() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let body = vec![7; 3_000_000];
    let broken = FakeContent {
        breaks_at: Some(2_000_000),
        ..FakeContent::public(&body)
    };
    let digest = fixture.engine.put(broken);
    let mut serving = JoinSet::new();
    let (mut client, _) = connect(&fixture, &mut serving).await?;
    let head = format!("GET /v2/a/blobs/{digest}?ns=quay.io HTTP/1.1\r\nHost: x\r\n\r\n");
    let (mut reading, mut writing) = client.split();
    writing.write_all(head.as_bytes()).await?;
    let more = vec![b'x'; 4_000_000];
    let mut answer = Vec::new();
    let both = async { tokio::join!(writing.write_all(&more), reading.read_to_end(&mut answer)).1 };
    timeout(DEADLINE, both).await??;
    let reply = Reply::parse(&answer)?;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, "3000000")
    );
    assert_eq!(reply.body.len(), 2_000_000);
    Ok(())
}

#[tokio::test]
async fn a_write_is_refused_without_a_reset_though_its_body_is_not_read() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let mut serving = JoinSet::new();
    let (mut client, _) = connect(&fixture, &mut serving).await?;
    let head = "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n";
    client.write_all(head.as_bytes()).await?;
    client.write_all(&vec![1; 5_000_000]).await?;
    let reply = Reply::parse(&read_to_end(&mut client).await?)?;
    assert_eq!(
        (reply.status, reply.code()),
        (405, "UNSUPPORTED".to_owned())
    );
    Ok(())
}

/// A client with `Expect: 100-continue` sends its body once it is told to, and is not told to.
#[tokio::test]
async fn a_write_that_waits_to_be_told_to_go_on_is_refused_at_once() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let mut serving = JoinSet::new();
    let (mut client, _) = connect(&fixture, &mut serving).await?;
    let head = "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\
        Expect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await?;
    let answer = read_to_end(&mut client).await?;
    assert!(answer.starts_with(b"HTTP/1.1 405 "), "told to go on");
    assert_eq!(Reply::parse(&answer)?.code(), "UNSUPPORTED");
    Ok(())
}

#[tokio::test]
async fn a_tls_client_hello_is_answered_in_clear() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let mut serving = JoinSet::new();
    let (mut client, _) = connect(&fixture, &mut serving).await?;
    client
        .write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3])
        .await?;
    let answer = read_to_end(&mut client).await?;
    assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    let reply = Reply::parse(&answer)?;
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    Ok(())
}

#[tokio::test]
async fn a_connection_is_used_again_until_the_proxy_stops() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let mut serving = JoinSet::new();
    let (mut client, shutdown) = connect(&fixture, &mut serving).await?;
    let mut buffer = vec![0; 4096];
    for _ in 0..3 {
        client
            .write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            .await?;
        let len = timeout(DEADLINE, client.read(&mut buffer)).await??;
        assert!(buffer[..len].starts_with(b"HTTP/1.1 200"));
    }
    shutdown.cancel();
    assert!(read_to_end(&mut client).await?.is_empty());
    drop(client);
    timeout(DEADLINE, serving.join_next()).await?;
    Ok(())
}

/// Whoever accepted a connection may drop it while nothing is under way: nothing is lost then.
#[tokio::test]
async fn a_request_is_under_way_until_its_answer_has_left() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    // The kernel takes so few bytes that the answer is over long before it has left.
    let (mut client, server) = tokio::io::duplex(16);
    let (watched, shutdown) = (unwatched(), CancellationToken::new());
    let proxy = Arc::clone(&fixture.proxy);
    let activity = Arc::<Watched>::clone(&watched);
    let mut serving = JoinSet::new();
    serving.spawn(proxy.serve_connection(server, met(), shutdown.clone(), activity));
    for _ in 0..2 {
        let (begin, end) = ("GET /v2/ HTTP/1.1\r\nHost: x\r\n", "\r\n");
        client.write_all(begin.as_bytes()).await?;
        assert_eq!(*watched.0.borrow(), 0, "half a head is no request");
        client.write_all(end.as_bytes()).await?;
        watched.comes_to(1).await?;
        let mut answer = [0; 64];
        timeout(DEADLINE, client.read_exact(&mut answer)).await??;
        assert_eq!(*watched.0.borrow(), 1, "more of it is to come");
        let mut answer = answer.to_vec();
        while !answer.ends_with(b"{}") {
            answer.push(timeout(DEADLINE, client.read_u8()).await??);
        }
        watched.comes_to(0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_has_shut_its_side_down_is_still_answered() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let mut serving = JoinSet::new();
    let (mut client, _) = connect(&fixture, &mut serving).await?;
    client
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        .await?;
    client.shutdown().await?;
    assert_eq!(Reply::parse(&read_to_end(&mut client).await?)?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_long_head_is_read_and_a_longer_one_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let header = |len| format!("Authorization: Bearer {}\r\n", "a".repeat(len));
    assert_eq!(
        fixture.ask("GET", "/v2/", &header(32 * 1024)).await?.status,
        200
    );
    assert_eq!(
        fixture
            .ask("GET", "/v2/", &header(100 * 1024))
            .await?
            .status,
        431
    );
    Ok(())
}
