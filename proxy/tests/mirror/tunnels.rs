//! Tunnels: each side ends its half in its time, one on which nothing moves is ended while the
//! process drains, and what cannot be opened is refused before it is promised.

use std::sync::Arc;

use anyhow::ensure;
use futures_util::FutureExt as _;
use proxy::Met;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::fixture::{DEADLINE, Fixture, Watched, met, unwatched};

/// A tunnel through a proxy: what the client holds, what the far end holds, and what tells the proxy
/// to drain.
struct Tunnel {
    client: TcpStream,
    far: TcpStream,
    shutdown: CancellationToken,
    serving: JoinSet<()>,
    watched: Arc<Watched>,
    _directory: tempfile::TempDir,
}

// === impl Tunnel ===

impl Tunnel {
    /// `early` is sent right behind the CONNECT, before it is answered.
    async fn open(early: &[u8]) -> anyhow::Result<Self> {
        Self::open_by("", early).await
    }

    /// To a registry that is intercepted, as far as that is possible.
    async fn open_intercepted(early: &[u8]) -> anyhow::Result<Self> {
        Self::open_by("intercept = [\"ADDRESS\"]\n", early).await
    }

    async fn open_by(proxy: &str, early: &[u8]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let directory = tempfile::tempdir()?;
        // An address of this host is reached only where the configuration has it.
        let raw = toml::from_str(&format!(
            "{}tunnel_ports = [{}]\n[[registry]]\nname = \"{address}\"\n",
            proxy.replace("ADDRESS", &address.to_string()),
            address.port()
        ))?;
        let fixture = Fixture::with(directory.path(), raw).await?;
        let own = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(own.local_addr()?).await?;
        let (server, _) = own.accept().await?;
        let shutdown = CancellationToken::new();
        let mut serving = JoinSet::new();
        let (proxy, watched) = (Arc::clone(&fixture.proxy), unwatched());
        let activity = Arc::<Watched>::clone(&watched);
        serving.spawn(proxy.serve_connection(server, met(), shutdown.clone(), activity));
        let head = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        client.write_all(&[head.as_bytes(), early].concat()).await?;
        let (far, _) = timeout(DEADLINE, listener.accept()).await??;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(DEADLINE, client.read_u8()).await??);
        }
        let answer = String::from_utf8(answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        ensure!(
            !answer.to_ascii_lowercase().contains("content-length"),
            "{answer}"
        );
        Ok(Self {
            client,
            far,
            shutdown,
            serving,
            watched,
            _directory: directory,
        })
    }

    async fn is_over(&mut self) -> anyhow::Result<()> {
        while let Some(served) = timeout(DEADLINE, self.serving.join_next()).await? {
            served?;
        }
        Ok(())
    }
}

async fn rest(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut read = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut read)).await??;
    Ok(read)
}

#[tokio::test]
async fn each_side_ends_its_half_when_it_has_said_all() -> anyhow::Result<()> {
    let mut tunnel = Tunnel::open(b"early ").await?;
    tunnel.client.write_all(b"question").await?;
    tunnel.client.shutdown().await?;
    assert_eq!(rest(&mut tunnel.far).await?, b"early question");
    let answer = vec![7; 3_000_000];
    let sent = async {
        tunnel.far.write_all(&answer).await?;
        tunnel.far.shutdown().await
    };
    let (sent, read) = tokio::join!(sent, rest(&mut tunnel.client));
    sent?;
    assert!(read? == answer);
    tunnel.is_over().await
}

#[tokio::test]
async fn a_tunnel_is_under_way_for_as_long_as_there_is_one() -> anyhow::Result<()> {
    let mut tunnel = Tunnel::open(b"").await?;
    tunnel.client.write_all(b"x").await?;
    assert_eq!(timeout(DEADLINE, tunnel.far.read_u8()).await??, b'x');
    assert_eq!(*tunnel.watched.0.borrow(), 1);
    tunnel.client.shutdown().await?;
    tunnel.far.shutdown().await?;
    tunnel.is_over().await?;
    tunnel.watched.comes_to(0).await
}

#[tokio::test]
async fn the_far_end_may_be_the_first_to_end() -> anyhow::Result<()> {
    let mut tunnel = Tunnel::open(b"").await?;
    tunnel.far.write_all(b"bye").await?;
    tunnel.far.shutdown().await?;
    assert_eq!(rest(&mut tunnel.client).await?, b"bye");
    tunnel.client.write_all(b"last word").await?;
    tunnel.client.shutdown().await?;
    assert_eq!(rest(&mut tunnel.far).await?, b"last word");
    tunnel.is_over().await
}

#[tokio::test]
async fn a_drain_ends_a_tunnel_on_which_nothing_moves() -> anyhow::Result<()> {
    let mut tunnel = Tunnel::open(b"").await?;
    tunnel.client.write_all(b"x").await?;
    assert_eq!(timeout(DEADLINE, tunnel.far.read_u8()).await??, b'x');
    tunnel.shutdown.cancel();
    assert_eq!(rest(&mut tunnel.client).await?, b"");
    drop(tunnel.client.shutdown().await);
    assert_eq!(rest(&mut tunnel.far).await?, b"");
    tunnel.is_over().await
}

#[tokio::test]
async fn what_cannot_be_reached_or_may_not_be_is_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let raw = toml::from_str(&format!(
        "tunnel_ports = [443, {}]\n[[registry]]\nname = \"r.example\"\nendpoint = \"https://{closed}\"\n",
        closed.port()
    ))?;
    let fixture = Fixture::with(directory.path(), raw).await?;
    for (target, status, code) in [
        (closed.to_string(), 502, "UNAVAILABLE"),
        ("127.0.0.1:443".to_owned(), 403, "DENIED"),
        ("[::1]:443".to_owned(), 403, "DENIED"),
        ("169.254.169.254:443".to_owned(), 403, "DENIED"),
        ("example.com:25".to_owned(), 403, "DENIED"),
        ("u:p@example.com:443".to_owned(), 400, "NAME_INVALID"),
    ] {
        let reply = fixture.ask("CONNECT", &target, "").await?;
        let seen = (reply.status, reply.code());
        assert_eq!(seen, (status, code.to_owned()), "{target}");
    }
    Ok(())
}

/// The first bytes of a ClientHello that names nobody: rustls sends no name for an address.
fn client_hello() -> anyhow::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), "127.0.0.1".try_into()?)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}

/// There is no authority here, and much is no TLS: neither takes the registry away.
#[tokio::test]
async fn what_cannot_be_answered_in_the_name_of_a_registry_is_passed_on_to_it() -> anyhow::Result<()>
{
    for said in [client_hello()?, b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let mut tunnel = Tunnel::open_intercepted(&said).await?;
        let mut heard = vec![0; said.len()];
        timeout(DEADLINE, tunnel.far.read_exact(&mut heard)).await??;
        assert!(heard == said);
        tunnel.far.write_all(b"answer").await?;
        tunnel.far.shutdown().await?;
        assert_eq!(rest(&mut tunnel.client).await?, b"answer");
        tunnel.client.shutdown().await?;
        tunnel.is_over().await?;
    }
    Ok(())
}

#[tokio::test]
async fn nobody_is_asked_for_a_client_that_leaves_without_a_word() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let raw = toml::from_str(&format!(
        "intercept = [\"{address}\"]\n[[registry]]\nname = \"{address}\"\n"
    ))?;
    let fixture = Fixture::with(directory.path(), raw).await?;
    let (mut client, server) = tokio::io::duplex(1024);
    let shutdown = CancellationToken::new();
    let serving = Arc::clone(&fixture.proxy).serve_connection(server, met(), shutdown, unwatched());
    let asking = async {
        let head = format!("CONNECT {address} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.write_all(head.as_bytes()).await?;
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await?;
        drop(client);
        anyhow::Ok(answer)
    };
    let ((), answer) = timeout(DEADLINE, async { tokio::join!(serving, asking) }).await?;
    assert_eq!(&answer?, b"HTTP/1.1 200");
    assert!(listener.accept().now_or_never().is_none());
    Ok(())
}

/// The status that a client of another host is given for its CONNECT to `target`.
async fn asked_from_elsewhere(proxy: &str, target: &str) -> anyhow::Result<u16> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::with(directory.path(), toml::from_str(proxy)?).await?;
    let (mut client, server) = tokio::io::duplex(4096);
    let elsewhere = Met {
        client: "10.0.0.9:40000".parse()?,
        own: "10.0.0.1:65001".parse()?,
    };
    let shutdown = CancellationToken::new();
    let proxy = Arc::clone(&fixture.proxy);
    let serving = proxy.serve_connection(server, elsewhere, shutdown.clone(), unwatched());
    let asking = async {
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).await?;
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await?;
        // The far end of a tunnel never ends here.
        shutdown.cancel();
        drop(client);
        Ok(std::str::from_utf8(&answer[9..])?.parse()?)
    };
    let ((), status) = timeout(DEADLINE, async { tokio::join!(serving, asking) }).await?;
    status
}

#[tokio::test]
async fn a_client_of_another_host_is_passed_on_where_that_is_wanted() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let port = listener.local_addr()?.port();
    let to = |tunnel: &str| {
        format!(
            "tunnel = \"{tunnel}\"\ntunnel_ports = [443, {port}]\n\
             [[registry]]\nname = \"r.example\"\nendpoint = \"https://{address}\"\n"
        )
    };
    for (tunnel, target, status) in [
        ("local", address.as_str(), 403),
        ("none", &address, 403),
        ("any", &address, 200),
        ("any", "127.0.0.1:443", 403),
        ("any", "10.0.0.7:443", 403),
    ] {
        let seen = asked_from_elsewhere(&to(tunnel), target).await?;
        assert_eq!(seen, status, "{tunnel} {target}");
    }
    Ok(())
}
