//! The connections of all three doors: accepts, notes each request and what was sent for it, and asks
//! the docker-registry behind. What is answered is decided behind the doors.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    body::{Body as _, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use url::form_urlencoded;

use super::{Caller, Door, HEARD_MAX, Heard, State, front, locked, realm, storage};

pub(super) type Body = BoxBody<Bytes, anyhow::Error>;

/// An answer, and who got it.
pub(super) type Answered = (Caller, Response<Body>);

/// The docker-registry that has the content.
#[derive(Debug)]
pub(super) struct Behind {
    address: SocketAddr,
    client: Client<HttpConnector, Body>,
}

/// Connections of one door at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 1024;
/// How long a handshake, and the head of a request, may take.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// The longest head that is read, in bytes.
const HEAD_LEN_MAX: usize = 256 << 10;
/// Parameters whose values are not noted.
const SECRET_PARAMETERS: [&str; 3] = ["signature", "password", "refresh_token"];

/// Accepts until it is dropped; its connections end with it.
pub(super) async fn accept(
    (door, listener): (Door, TcpListener),
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
) {
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        if locked(&state.rules).down.contains(&door) {
            continue;
        }
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        connections.spawn(async move {
            // What goes wrong on a connection is what the client has seen, or caused.
            drop(converse(stream, tls, (door, &state)).await);
            drop(slot);
        });
    }
}

async fn converse(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    (door, state): (Door, &Arc<State>),
) -> Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => speak(stream, door, state).await,
        Some(tls) => {
            let stream = timeout(HEAD_LIMIT, tls.accept(stream)).await??;
            speak(stream, door, state).await
        }
    }
}

async fn speak<S>(stream: S, door: Door, state: &Arc<State>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(Arc::clone(state), door, request));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

/// An error ends the connection without an answer.
async fn answer(
    state: Arc<State>,
    door: Door,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let turn = state.begin(door, &request);
    let latency = {
        let rules = locked(&state.rules);
        match door {
            Door::Storage => rules.latency + rules.storage_latency,
            Door::Registry | Door::Realm => rules.latency,
        }
    };
    if !latency.is_zero() {
        sleep(latency).await;
    }
    if locked(&state.rules).down.contains(&door) {
        anyhow::bail!("down");
    }
    let (caller, answer) = match door {
        Door::Registry => front::answer(&state, request).await?,
        Door::Realm => realm::answer(&state, request).await?,
        Door::Storage => storage::answer(&state, request).await?,
    };
    state.note(turn, |heard| {
        heard.caller = caller;
        heard.status = answer.status().as_u16();
    });
    let counting = Arc::clone(&state);
    Ok(answer.map(move |body| {
        let count = move |frame: Frame<Bytes>| {
            let sent = frame.data_ref().map_or(0, Bytes::len) as u64;
            counting.note(turn, |heard| heard.sent += sent);
            frame
        };
        // An empty body stays one that is known to be empty, so that its told length stays too.
        match body.is_end_stream() {
            true => body,
            false => body.map_frame(count).boxed(),
        }
    }))
}

// === impl State ===

impl State {
    fn begin(&self, door: Door, request: &Request<Incoming>) -> usize {
        let text = |name| {
            let value = request.headers().get(name).map(HeaderValue::as_bytes);
            value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let authorization = request.headers().get(header::AUTHORIZATION);
        let heard = Heard {
            door,
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: without_secrets(request.uri().query().unwrap_or_default()),
            range: text(header::RANGE),
            agent: text(header::USER_AGENT).unwrap_or_default(),
            caller: Caller::Nobody,
            status: 0,
            sent: 0,
            authorization: authorization.map(|value| blake3::hash(value.as_bytes())),
        };
        let mut log = locked(&self.log);
        if log.len() < HEARD_MAX {
            log.push(heard);
            return log.len() - 1;
        }
        HEARD_MAX
    }

    fn note(&self, turn: usize, note: impl FnOnce(&mut Heard)) {
        if let Some(heard) = locked(&self.log).get_mut(turn) {
            note(heard);
        }
    }
}

// === impl Behind ===

impl Behind {
    pub(super) fn new(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, client }
    }

    /// Asks for `path`, which may have a query, of the docker-registry.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Body>> {
        let uri = Uri::builder()
            .scheme(uri::Scheme::HTTP)
            .authority(self.address.to_string())
            .path_and_query(path)
            .build()?;
        let mut request = Request::builder().method(method).uri(uri).body(body)?;
        *request.headers_mut() = headers;
        for name in [header::AUTHORIZATION, header::CONNECTION] {
            request.headers_mut().remove(name);
        }
        let asked = self.client.request(request).await;
        let answer = asked.context("the docker-registry does not answer")?;
        Ok(answer.map(|body| body.map_err(anyhow::Error::from).boxed()))
    }
}

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

pub(super) fn json_answer(status: StatusCode, value: &Value) -> Result<Response<Body>> {
    let answer = Response::builder().status(status);
    let answer = answer.header(header::CONTENT_TYPE, "application/json");
    Ok(answer.body(full(value.to_string()))?)
}

pub(super) fn error(status: StatusCode, code: &str) -> Result<Response<Body>> {
    let told = json!({"errors": [{"code": code, "message": "says the token registry"}]});
    json_answer(status, &told)
}

/// All values of a parameter.
pub(super) fn parameters(query: &str, name: &str) -> Vec<String> {
    form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// The first value of a parameter.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    parameters(query, name).into_iter().next()
}

fn without_secrets(query: &str) -> String {
    let mut told = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match SECRET_PARAMETERS.contains(&name.as_ref()) {
            true => told.append_pair(&name, "hidden"),
            false => told.append_pair(&name, &value),
        };
    }
    told.finish()
}
