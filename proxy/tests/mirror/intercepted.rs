//! HTTP/2 inside an intercepted connection: one stream that breaks is not the end of the others, a
//! connection that nobody uses is closed, and a drain lets running bodies end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy::{CertificateError, Certificates, Owner, RawConfig};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer,
};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::fixture::{DEADLINE, FakeContent, Fixture, Watched, met, status, unwatched};

/// One certificate for whatever name, as the test's client trusts it.
#[derive(Debug)]
struct OneCertificate {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// An HTTP/2 client inside an intercepted connection.
struct Inside {
    fixture: Fixture,
    client: SendRequest<Empty<Bytes>>,
    /// The proxy's side and the client's connection; each ends when the connection does.
    running: JoinSet<anyhow::Result<()>>,
    shutdown: CancellationToken,
    watched: Arc<Watched>,
    _directory: tempfile::TempDir,
}

// === impl OneCertificate ===

#[async_trait]
impl Certificates for OneCertificate {
    async fn tls(
        &self,
        owner: &Owner,
        name: &ServerName<'static>,
    ) -> Result<Arc<ServerConfig>, CertificateError> {
        let failed = |reason: &dyn std::fmt::Display| CertificateError {
            name: name.to_str().into_owned(),
            reason: reason.to_string(),
        };
        let is_asked = matches!(owner, Owner::Registry(own) if own.as_str() == "quay.io");
        if !is_asked || name.to_str() != "quay.io" {
            return Err(failed(&"nobody asked for that"));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(|error| failed(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

// === impl Inside ===

impl Inside {
    async fn open() -> anyhow::Result<Self> {
        let signed = rcgen::generate_simple_self_signed(["quay.io".to_owned()])?;
        let one = OneCertificate {
            certificate: signed.cert.der().clone(),
            key: PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into()),
        };
        let mut roots = RootCertStore::empty();
        roots.add(one.certificate.clone())?;
        let directory = tempfile::tempdir()?;
        let raw = RawConfig {
            intercept: vec!["quay.io".to_owned()],
            ..RawConfig::default()
        };
        let fixture = Fixture::proving(directory.path(), raw, Arc::new(one)).await?;

        let (mut near, far) = tokio::io::duplex(64 * 1024);
        let shutdown = CancellationToken::new();
        let mut running = JoinSet::new();
        let (proxy, watched) = (Arc::clone(&fixture.proxy), unwatched());
        let activity = Arc::<Watched>::clone(&watched);
        let serving = proxy.serve_connection(far, met(), shutdown.clone(), activity);
        running.spawn(async move {
            serving.await;
            Ok(())
        });
        near.write_all(b"CONNECT quay.io:443 HTTP/1.1\r\nHost: quay.io:443\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(DEADLINE, near.read_u8()).await??);
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200 "));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(tls));
        let stream = connector.connect("quay.io".try_into()?, near).await?;
        let (client, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        running.spawn(async move { Ok(connection.await?) });
        Ok(Self {
            fixture,
            client,
            running,
            shutdown,
            watched,
            _directory: directory,
        })
    }

    async fn get(&mut self, authority: &str, path: &str) -> anyhow::Result<Response<Incoming>> {
        let request = Request::get(format!("https://{authority}{path}")).body(Empty::new())?;
        self.client.ready().await?;
        Ok(timeout(DEADLINE, self.client.send_request(request)).await??)
    }

    async fn is_over(&mut self) -> anyhow::Result<()> {
        while let Some(ended) = timeout(2 * DEADLINE, self.running.join_next()).await? {
            ended??;
        }
        Ok(())
    }
}

async fn whole(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    ensure!(response.status() == StatusCode::OK, "{}", response.status());
    Ok(timeout(DEADLINE, response.into_body().collect())
        .await??
        .to_bytes())
}

#[tokio::test]
async fn a_body_that_breaks_resets_its_stream_and_no_other() -> anyhow::Result<()> {
    let mut inside = Inside::open().await?;
    let body = vec![7; 2000];
    let good = inside.fixture.engine.put(FakeContent::public(&body));
    let broken = FakeContent {
        breaks_at: Some(1000),
        ..FakeContent::public(&[8; 2000])
    };
    let broken = inside.fixture.engine.put(broken);
    let path = |digest| format!("/v2/a/b/blobs/{digest}");
    // A reset takes along what is still on its way, so that the head may be missing too.
    let response = inside.get("quay.io", &path(broken)).await;
    let broken = match response {
        Ok(response) => whole(response).await.err(),
        Err(error) => Some(error),
    };
    let error = broken.context("a broken body was taken for whole")?;
    let told = format!("{error:?}");
    assert!(told.contains("stream error received"), "{told}");
    let response = inside.get("quay.io", &path(good)).await?;
    assert!(whole(response).await? == body);
    let ping = inside.get("quay.io", "/v2/").await?;
    assert_eq!(whole(ping).await?, "{}");
    Ok(())
}

/// Whatever the request says: the connection is one to this host.
#[tokio::test]
async fn requests_are_for_the_host_of_the_connection() -> anyhow::Result<()> {
    let mut inside = Inside::open().await?;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    inside.fixture.upstream.answers(move |request| {
        let mut seen = seen.lock().map_err(|_| status(500))?;
        seen.push(request.registry.to_string());
        Err(status(404))
    });
    for authority in ["quay.io", "ghcr.io", "localhost:65001"] {
        let path = "/v2/a/b/manifests/v1?ns=ghcr.io";
        let response = inside.get(authority, path).await?;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(!response.headers().contains_key("oci-namespace"));
    }
    let asked = asked.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    assert!(
        !asked.is_empty() && asked.iter().all(|one| one == "quay.io"),
        "{asked:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_uses_is_closed() -> anyhow::Result<()> {
    let mut inside = Inside::open().await?;
    whole(inside.get("quay.io", "/v2/").await?).await?;
    let idle = RawConfig::default().idle_timeout;
    tokio::time::sleep(idle - Duration::from_secs(1)).await;
    whole(inside.get("quay.io", "/v2/").await?).await?;
    tokio::time::sleep(idle + Duration::from_secs(1)).await;
    inside.is_over().await
}

#[tokio::test]
async fn each_stream_is_under_way_until_it_is_answered_or_given_up() -> anyhow::Result<()> {
    let mut inside = Inside::open().await?;
    let gate = Arc::clone(&inside.fixture.upstream);
    gate.gate.forget_permits(Semaphore::MAX_PERMITS);
    inside.watched.comes_to(0).await?;
    let request = || Request::get("https://quay.io/v2/a/b/manifests/v1").body(Empty::new());
    let mut asking = JoinSet::new();
    for count in 1..=2 {
        inside.client.ready().await?;
        asking.spawn(inside.client.send_request(request()?));
        inside.watched.comes_to(count).await?;
    }
    let one = asking.spawn(inside.client.send_request(request()?));
    inside.watched.comes_to(3).await?;
    one.abort();
    inside.watched.comes_to(2).await?;
    gate.gate.add_permits(Semaphore::MAX_PERMITS);
    timeout(DEADLINE, async {
        while asking.join_next().await.is_some() {}
    })
    .await?;
    inside.watched.comes_to(0).await
}

#[tokio::test]
async fn a_drain_lets_a_running_body_end() -> anyhow::Result<()> {
    let mut inside = Inside::open().await?;
    let body = vec![7; 20_000];
    let digest = inside.fixture.engine.put(FakeContent::public(&body));
    let response = inside
        .get("quay.io", &format!("/v2/a/b/blobs/{digest}"))
        .await?;
    inside.shutdown.cancel();
    assert!(whole(response).await? == body);
    inside.is_over().await
}
