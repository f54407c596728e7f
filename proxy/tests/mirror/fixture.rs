//! A proxy over a swarm and an upstream that do as they are told, and a client that speaks raw HTTP.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use protocol::{Digest, RegistryName, TaskId, Visibility};
use proxy::{
    Activity, BrokenOff, BytesBy, CertificateError, Certificates, ContentStream, Met, Metrics,
    Owner, Parts, Proxy, RawConfig,
    config::Surroundings,
    engine::{Engine, OpenContent, Upstream},
    error::Fault,
};
use rustls::ServerConfig;
use rustls_pki_types::ServerName;
use swarm::{
    open::{Held, OpenError, OpenRequest, ReadProof},
    source::{
        Access, Answer, AnsweredBy, Body, PassRequest, PassResponse, Patience, Redirects,
        SourceError, TokenAnswer, TokenRequest, Told, Tunnels, UpstreamRequest, UpstreamResponse,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The swarm: contents by digest.
#[derive(Debug)]
pub(crate) struct FakeEngine {
    contents: Mutex<HashMap<Digest, FakeContent>>,
    pub(crate) opened: AtomicUsize,
    /// After so many, it opens no more.
    pub(crate) opens_max: AtomicUsize,
}

#[derive(Debug, Clone)]
pub(crate) struct FakeContent {
    pub(crate) bytes: Bytes,
    pub(crate) media_type: Option<String>,
    pub(crate) private_to: Option<RegistryName>,
    pub(crate) is_held: bool,
    pub(crate) tells_size: bool,
    /// The stream breaks off after so many bytes.
    pub(crate) breaks_at: Option<usize>,
}

type Respond = dyn Fn(&UpstreamRequest) -> Result<UpstreamResponse, SourceError> + Send + Sync;

/// The upstream: answers as the test says, when the test lets it.
pub(crate) struct FakeUpstream {
    respond: Mutex<Arc<Respond>>,
    /// The headers of what was passed on last.
    pub(crate) passed: Mutex<HeaderMap>,
    pub(crate) asked: AtomicUsize,
    pub(crate) gate: Semaphore,
    /// It has said that it answers few questions more.
    pub(crate) is_scarce: AtomicBool,
}

struct FakeStream {
    chunks: std::vec::IntoIter<Result<Bytes, BrokenOff>>,
    sent: u64,
}

pub(crate) struct Fixture {
    pub(crate) engine: Arc<FakeEngine>,
    pub(crate) upstream: Arc<FakeUpstream>,
    pub(crate) proxy: Arc<Proxy>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// This host cannot prove to be another.
#[derive(Debug)]
struct NoCertificates;

#[async_trait]
impl Certificates for NoCertificates {
    async fn tls(
        &self,
        _: &Owner,
        name: &ServerName<'static>,
    ) -> Result<Arc<ServerConfig>, CertificateError> {
        Err(CertificateError {
            name: name.to_str().into_owned(),
            reason: "there is no authority here".to_owned(),
        })
    }
}

/// A client of this host.
pub(crate) fn met() -> Met {
    Met {
        client: SocketAddr::from(([127, 0, 0, 1], 40_000)),
        own: SocketAddr::from(([127, 0, 0, 1], 65001)),
    }
}

/// Counts what is under way on a connection.
#[derive(Debug)]
pub(crate) struct Watched(pub(crate) watch::Sender<i32>);

/// For connections of which nobody asks whether they are idle.
pub(crate) fn unwatched() -> Arc<Watched> {
    Arc::new(Watched(watch::Sender::new(0)))
}

impl Watched {
    /// Waits until so many things are under way.
    pub(crate) async fn comes_to(&self, count: i32) -> anyhow::Result<()> {
        let mut seen = self.0.subscribe();
        let reached = seen.wait_for(|seen| *seen == count);
        let reached = tokio::time::timeout(DEADLINE, reached).await;
        reached.with_context(|| format!("never {count} but {}", *self.0.borrow()))??;
        Ok(())
    }
}

impl Activity for Watched {
    fn begin(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    fn end(&self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

thread_local! {
    /// Seconds that have passed; each test has a thread of its own.
    static PASSED: Cell<u64> = const { Cell::new(0) };
}

/// The time stands still unless it is made to [`pass`].
fn clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + PASSED.get())
}

pub(crate) fn pass(seconds: u64) {
    PASSED.set(PASSED.get() + seconds);
}

// === impl Fixture ===

impl Fixture {
    pub(crate) async fn new(directory: &Path) -> anyhow::Result<Self> {
        Self::with(directory, RawConfig::default()).await
    }

    pub(crate) async fn with(directory: &Path, raw: RawConfig) -> anyhow::Result<Self> {
        Self::proving(directory, raw, Arc::new(NoCertificates)).await
    }

    /// With certificates that prove something.
    pub(crate) async fn proving(
        directory: &Path,
        raw: RawConfig,
        certificates: Arc<dyn Certificates>,
    ) -> anyhow::Result<Self> {
        let surroundings = Surroundings {
            data_dir: directory,
            pseudonym: "darter-test",
            proxy: swarm::source::ProxyTexts::default(),
            read: |path: &Path| std::fs::read(path),
            names: |_| Err(std::io::ErrorKind::NotFound.into()),
        };
        let config = raw
            .check(&surroundings)
            .map_err(|errors| anyhow!("{errors:?}"))?;
        let engine = Arc::new(FakeEngine {
            contents: Mutex::default(),
            opened: AtomicUsize::new(0),
            opens_max: AtomicUsize::new(usize::MAX),
        });
        let upstream = Arc::new(FakeUpstream::new());
        let metrics = Metrics::new(&prometheus::Registry::new())?;
        let tunnels = Tunnels::new(&config.source, Vec::new());
        let parts = Parts {
            config,
            engine: engine.clone(),
            upstream: upstream.clone(),
            tunnels,
            certificates,
            metrics,
            clock,
        };
        let proxy = Arc::new(Proxy::new(parts).await?);
        Ok(Self {
            engine,
            upstream,
            proxy,
        })
    }

    /// One request on a connection of its own; headers are lines with `\r\n`.
    pub(crate) async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &str,
    ) -> anyhow::Result<Reply> {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost:65001\r\n{headers}Connection: close\r\n\r\n"
        );
        let raw = self.exchange(head.as_bytes()).await?;
        Reply::parse(&raw)
    }

    pub(crate) async fn get(&self, target: &str) -> anyhow::Result<Reply> {
        self.ask("GET", target, "").await
    }

    /// Everything that is answered to `request`, until the proxy ends the connection.
    pub(crate) async fn exchange(&self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let serving = Arc::clone(&self.proxy).serve_connection(
            server,
            met(),
            CancellationToken::new(),
            unwatched(),
        );
        let asking = async {
            client.write_all(request).await?;
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await?;
            drop(client);
            anyhow::Ok(answer)
        };
        let both = async { tokio::join!(serving, asking).1 };
        tokio::time::timeout(DEADLINE, both)
            .await
            .context("no answer in time")?
    }
}

// === impl FakeContent ===

impl FakeContent {
    /// A public content that lies at the upstream and can be fetched.
    pub(crate) fn public(bytes: &[u8]) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(bytes),
            media_type: None,
            private_to: None,
            is_held: false,
            tells_size: true,
            breaks_at: None,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256_of(&self.bytes)
    }

    /// In chunks of seven bytes, as far as the content reaches.
    fn chunks(&self, range: std::ops::Range<usize>) -> Vec<Result<Bytes, BrokenOff>> {
        let end = self
            .breaks_at
            .map_or(range.end, |at| at.clamp(range.start, range.end));
        let bytes = self.bytes.slice(range.start..end);
        let mut chunks: Vec<_> = bytes
            .chunks(7)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        if end < range.end || (self.bytes.is_empty() && self.breaks_at.is_some()) {
            let (fault, reason) = (Fault::Corrupt, "as the test wants it".to_owned());
            chunks.push(Err(BrokenOff { fault, reason }));
        }
        chunks
    }
}

// === impl FakeEngine ===

impl FakeEngine {
    pub(crate) fn put(&self, content: FakeContent) -> Digest {
        let digest = content.digest();
        if let Ok(mut contents) = self.contents.lock() {
            contents.insert(digest, content);
        }
        digest
    }

    fn find(&self, task: TaskId) -> Option<FakeContent> {
        self.contents.lock().ok()?.get(&task.0).cloned()
    }
}

#[async_trait::async_trait]
impl Engine for FakeEngine {
    async fn open(&self, request: OpenRequest, _: Patience) -> Result<OpenContent, OpenError> {
        let opened = self.opened.fetch_add(1, Ordering::SeqCst);
        if self.opens_max.load(Ordering::SeqCst) <= opened {
            return Err(OpenError::Overloaded);
        }
        let Some(content) = self.find(request.task) else {
            return Err(OpenError::Source(Arc::new(status(404))));
        };
        let is_origin = content
            .private_to
            .as_ref()
            .is_none_or(|origin| *origin == request.origin.registry);
        let is_proven = content.private_to.is_none() || request.proof == ReadProof::Checked;
        if !is_origin || !is_proven {
            return Err(OpenError::NotProven);
        }
        let size = content.bytes.len() as u64;
        let range = request
            .wanted
            .resolve(size)
            .ok_or(OpenError::NotSatisfiable { size })?;
        let chunks = content.chunks(range.start as usize..range.end as usize);
        Ok(OpenContent {
            size: content.tells_size.then_some(size),
            media_type: content.media_type,
            range: if content.tells_size {
                range
            } else {
                range.start..u64::MAX
            },
            stream: Box::pin(FakeStream {
                chunks: chunks.into_iter(),
                sent: 0,
            }),
        })
    }

    async fn held(&self, task: TaskId) -> Option<Held> {
        let content = self.find(task).filter(|content| content.is_held)?;
        let visibility =
            content
                .private_to
                .map_or(Visibility::Public, |origin| Visibility::Private {
                    origins: vec![origin],
                });
        let size = Some(content.bytes.len() as u64);
        Some(Held {
            size,
            media_type: content.media_type,
            visibility,
            complete: true,
        })
    }
}

impl Stream for FakeStream {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.chunks.next();
        self.sent += next
            .iter()
            .flatten()
            .map(|chunk| chunk.len() as u64)
            .sum::<u64>();
        Poll::Ready(next)
    }
}

impl ContentStream for FakeStream {
    fn served(&self) -> BytesBy {
        BytesBy {
            source: self.sent,
            ..BytesBy::default()
        }
    }
}

// === impl FakeUpstream ===

impl FakeUpstream {
    fn new() -> Self {
        // Everybody may read everything, and nothing is here.
        let respond = Arc::new(|request: &UpstreamRequest| match request.redirects {
            Redirects::Stop => Ok(UpstreamResponse {
                content_length: None,
                ..success(Access::Anonymous, &[], b"")
            }),
            Redirects::Follow => Err(status(404)),
        });
        let respond = Mutex::new(respond as Arc<Respond>);
        Self {
            respond,
            passed: Mutex::default(),
            asked: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            is_scarce: AtomicBool::new(false),
        }
    }

    pub(crate) fn answers(
        &self,
        respond: impl Fn(&UpstreamRequest) -> Result<UpstreamResponse, SourceError>
        + Send
        + Sync
        + 'static,
    ) {
        if let Ok(mut current) = self.respond.lock() {
            *current = Arc::new(respond);
        }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl std::fmt::Debug for FakeUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeUpstream")
    }
}

#[async_trait::async_trait]
impl Upstream for FakeUpstream {
    async fn everybodys(&self, _: &UpstreamRequest, _: Duration) -> Option<Told> {
        None
    }

    async fn send(
        &self,
        request: UpstreamRequest,
        _: Patience,
    ) -> Result<UpstreamResponse, SourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _permit = self.gate.acquire().await;
        let respond = self.respond.lock().map(|respond| Arc::clone(&respond));
        match respond {
            Ok(respond) => respond(&request),
            Err(_) => Err(SourceError::Interrupted),
        }
    }

    async fn send_lightly(
        &self,
        request: UpstreamRequest,
        patience: Patience,
    ) -> Result<UpstreamResponse, SourceError> {
        self.send(request, patience).await
    }

    async fn may_refresh(&self, _: &RegistryName) -> bool {
        !self.is_scarce.load(Ordering::SeqCst)
    }

    async fn token(&self, _: TokenRequest) -> Result<TokenAnswer, SourceError> {
        Ok(TokenAnswer::Open)
    }

    /// A registry that says yes to everything, and gives each caller a cookie.
    async fn pass(&self, request: PassRequest) -> Result<PassResponse, SourceError> {
        if let Ok(mut passed) = self.passed.lock() {
            *passed = request.headers;
        }
        let body = Bytes::from_static(b"{}");
        let cookie = HeaderValue::from_static("session=of-the-registry");
        let endpoint = "https://registry.example/".parse();
        Ok(PassResponse {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(http::header::SET_COOKIE, cookie)]),
            body: Body::new(stream::iter([Ok(body)])),
            endpoint: endpoint.map_err(|_| SourceError::Malformed("the endpoint"))?,
        })
    }
}

// === impl Reply ===

impl Reply {
    pub(crate) fn parse(raw: &[u8]) -> anyhow::Result<Self> {
        let end = raw
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .context("no head")?;
        let head = std::str::from_utf8(&raw[..end])?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .context("no status")?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Ok(Self {
            status: status.parse()?,
            headers,
            body: raw[end + 4..].to_vec(),
        })
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The code of the OCI error in the body.
    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["errors"][0]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// An answer of the registry that is no success.
pub(crate) fn status(status: u16) -> SourceError {
    let headers = HeaderMap::from_iter([(
        http::header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer realm=\"https://auth.example/token\",service=\"x\""),
    )]);
    let answer = Box::new(Answer {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT),
        headers,
        body: Bytes::new(),
        by: AnsweredBy::Registry,
    });
    match status {
        401 | 403 => SourceError::Refused(answer),
        429 => SourceError::RateLimited {
            answer,
            retry_after: Some(Duration::from_secs(3)),
        },
        _ => SourceError::Status(answer),
    }
}

/// A success with these headers and this body.
pub(crate) fn success(
    access: Access,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> UpstreamResponse {
    let pairs = headers.iter().filter_map(|(name, value)| {
        Some((
            HeaderName::from_static(name),
            HeaderValue::from_str(value).ok()?,
        ))
    });
    let chunk = Bytes::copy_from_slice(body);
    UpstreamResponse {
        status: StatusCode::OK,
        headers: pairs.collect(),
        access,
        content_length: Some(body.len() as u64),
        content_range: None,
        body: Body::new(stream::iter([Ok(chunk)])),
    }
}
