//! A registry of the tests' own, for what Debian's docker-registry cannot carry: referrers and
//! `subject`, sha512 digests, empty blobs, and blobs that are made as they are sent.
//!
//! It answers reads as the distribution specification has them, under any repository name, and
//! never misbehaves. It is the fake of no fault.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet};
use url::form_urlencoded;

use crate::{image::INDEX_TYPE, noise::Noise};

type Body = BoxBody<Bytes, Infallible>;

/// What a registry has.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Manifests by digest.
    pub manifests: BTreeMap<String, Manifest>,
    /// Digests of manifests by tag.
    pub tags: BTreeMap<String, String>,
    pub blobs: BTreeMap<String, Blob>,
}

/// A manifest's bytes and what they are.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub media_type: String,
    pub bytes: Bytes,
}

/// A blob's bytes, or how they are made.
#[derive(Debug, Clone)]
pub enum Blob {
    Bytes(Bytes),
    Noise(Noise),
}

/// A running registry; it ends with this value.
#[derive(Debug)]
pub struct OwnRegistry {
    address: SocketAddr,
    fetches: Arc<AtomicUsize>,
    _runtime: Runtime,
}

struct Shelf {
    content: Content,
    fetches: Arc<AtomicUsize>,
}

// === impl OwnRegistry ===

impl OwnRegistry {
    /// Serves `content` on a free port of the loopback.
    ///
    /// # Errors
    /// No socket or no runtime is to be had.
    pub fn start(content: Content) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let fetches = Arc::new(AtomicUsize::new(0));
        let shelf = Shelf {
            content,
            fetches: Arc::clone(&fetches),
        };
        runtime.spawn(accept(listener, Arc::new(shelf)));
        Ok(Self {
            address,
            fetches,
            _runtime: runtime,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many GETs of blobs it was sent.
    #[must_use]
    pub fn blob_fetches(&self) -> usize {
        self.fetches.load(Ordering::Acquire)
    }
}

// === impl Blob ===

impl Blob {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Noise(noise) => noise.size(),
        }
    }

    fn body(&self, start: u64, end: u64) -> Body {
        match self {
            Self::Bytes(bytes) => full(bytes.slice(start as usize..end as usize)),
            Self::Noise(noise) => {
                let frames =
                    stream::unfold((noise.clone(), start), move |(noise, at)| async move {
                        let bytes = noise.begin_of(at..end);
                        let next = at + bytes.len() as u64;
                        (!bytes.is_empty()).then(|| (Ok(Frame::data(bytes)), (noise, next)))
                    });
                StreamBody::new(frames).boxed()
            }
        }
    }
}

// === impl Shelf ===

impl Shelf {
    fn answer(&self, request: &Request<Incoming>) -> Result<Response<Body>> {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        }
        if path == "/v2/" {
            return json_answer(&json!({}), "application/json");
        }
        let words: Vec<&str> = path.rsplitn(3, '/').collect();
        match words[..] {
            [digest, "blobs", _] => {
                if request.method() == Method::GET {
                    self.fetches.fetch_add(1, Ordering::AcqRel);
                }
                self.blob(digest, request.headers())
            }
            [reference, "manifests", _] => self.manifest(reference),
            ["list", "tags", repository] => self.tags(repository, query),
            [digest, "referrers", _] => self.referrers(digest, query),
            _ => error(StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
        }
    }

    fn blob(&self, digest: &str, headers: &HeaderMap) -> Result<Response<Body>> {
        let Some(blob) = self.content.blobs.get(digest) else {
            return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
        };
        let size = blob.size();
        let (status, start, end) = match headers.get(header::RANGE) {
            None => (StatusCode::OK, 0, size),
            Some(range) => {
                let Some((start, end)) = span(range.to_str()?, size) else {
                    return error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID");
                };
                (StatusCode::PARTIAL_CONTENT, start, end)
            }
        };
        let mut answer = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, end - start)
            .header("Docker-Content-Digest", digest);
        if status == StatusCode::PARTIAL_CONTENT {
            let told = format!("bytes {start}-{}/{size}", end - 1);
            answer = answer.header(header::CONTENT_RANGE, told);
        }
        Ok(answer.body(blob.body(start, end))?)
    }

    fn manifest(&self, reference: &str) -> Result<Response<Body>> {
        let Content {
            manifests, tags, ..
        } = &self.content;
        let digest = tags.get(reference).map_or(reference, String::as_str);
        let Some(manifest) = manifests.get(digest) else {
            return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        };
        Ok(Response::builder()
            .header(header::CONTENT_TYPE, &manifest.media_type)
            .header(header::CONTENT_LENGTH, manifest.bytes.len())
            .header("Docker-Content-Digest", digest)
            .body(full(manifest.bytes.clone()))?)
    }

    fn tags(&self, repository: &str, query: &str) -> Result<Response<Body>> {
        let last = parameter(query, "last").unwrap_or_default();
        let count = parameter(query, "n").map_or(Ok(usize::MAX), |n| n.parse())?;
        let tags = self.content.tags.keys().filter(|tag| **tag > last);
        let tags: Vec<&String> = tags.take(count).collect();
        let name = repository.trim_start_matches("/v2/");
        json_answer(&json!({"name": name, "tags": tags}), "application/json")
    }

    fn referrers(&self, subject: &str, query: &str) -> Result<Response<Body>> {
        let wanted = parameter(query, "artifactType");
        let mut found = Vec::new();
        for (digest, manifest) in &self.content.manifests {
            let parsed: Value = serde_json::from_slice(&manifest.bytes)?;
            let own_type = artifact_type(&parsed);
            let is_wanted = wanted
                .as_ref()
                .is_none_or(|wanted| own_type == Some(wanted));
            if parsed["subject"]["digest"] == subject && is_wanted {
                found.push(json!({
                    "mediaType": manifest.media_type,
                    "digest": digest,
                    "size": manifest.bytes.len(),
                    "artifactType": own_type,
                    "annotations": parsed["annotations"],
                }));
            }
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": found});
        let mut answer = json_answer(&index, INDEX_TYPE)?;
        if wanted.is_some() {
            let applied = http::HeaderValue::from_static("artifactType");
            answer.headers_mut().insert("OCI-Filters-Applied", applied);
        }
        Ok(answer)
    }
}

/// The type of what a manifest holds; an image is typed by its configuration (distribution
/// specification, "Listing Referrers").
#[must_use]
pub fn artifact_type(manifest: &Value) -> Option<&str> {
    let own = manifest["artifactType"].as_str();
    own.or_else(|| manifest["config"]["mediaType"].as_str())
}

async fn accept(listener: TcpListener, shelf: Arc<Shelf>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let shelf = Arc::clone(&shelf);
        let service = service_fn(move |request| {
            let answer = shelf.answer(&request).or_else(|problem| {
                let answer = Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR);
                answer.body(full(problem.to_string().into()))
            });
            std::future::ready(answer)
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(serving);
    }
}

/// The bytes of a single range in a body of `size` (RFC 9110, section 14.1.2).
fn span(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => (first, last.checked_add(1)?.min(size)),
        (Ok(first), Err(_)) => (first, size),
        (Err(_), Ok(suffix)) => (size.saturating_sub(suffix), size),
        (Err(_), Err(_)) => return None,
    };
    (start < end).then_some((start, end))
}

fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn json_answer(value: &Value, media_type: &str) -> Result<Response<Body>> {
    let bytes = Bytes::from(value.to_string());
    Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, bytes.len())
        .body(full(bytes))
        .context("an answer")
}

fn error(status: StatusCode, code: &str) -> Result<Response<Body>> {
    let told = json!({"errors": [{"code": code, "message": "not here"}]});
    let mut answer = json_answer(&told, "application/json")?;
    *answer.status_mut() = status;
    Ok(answer)
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed()
}
