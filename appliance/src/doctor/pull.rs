//! Pulls the least of an image through the node, as a runtime would: its manifest and its smallest
//! blob, each verified.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use protocol::Digest;
use proxy::image::ImageName;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use super::facts::Pulled;

/// The whole pull. A node asks slow registries with more patience than a person has.
const PULL_LIMIT: Duration = Duration::from_secs(60);

/// The longest body that is read, in bytes.
const BODY_LEN_MAX: usize = 16 << 20;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// An index or a manifest, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

/// The body of a refusal (distribution specification, "Error Codes").
#[derive(Debug, Deserialize)]
struct Refusal {
    errors: Vec<Told>,
}

#[derive(Debug, Deserialize)]
struct Told {
    message: String,
}

/// Pulls `image` through the mirror at `mirror`.
pub(super) async fn pull(image: &str, mirror: SocketAddr) -> Result<Pulled, String> {
    match timeout(PULL_LIMIT, pulled(image, mirror)).await {
        Ok(pulled) => pulled.map_err(|error| format!("{image}: {error:#}")),
        Err(_) => Err(format!("{image}: it has not come within {PULL_LIMIT:?}")),
    }
}

async fn pulled(image: &str, mirror: SocketAddr) -> anyhow::Result<Pulled> {
    let name: ImageName = image.parse()?;
    let (registry, repository) = (name.registry(), name.repository());
    let content = async |kind: &str, reference: &str| {
        let path = format!("/v2/{repository}/{kind}/{reference}?ns={registry}");
        let body = get(mirror, &path).await;
        body.with_context(|| format!("{kind} {reference}"))
    };
    let document = |body: &Bytes| {
        serde_json::from_slice::<Document>(body).context("the manifest cannot be read")
    };
    let verified = async |kind: &str, digest: &str| {
        let parsed: Digest = digest.parse()?;
        let body = content(kind, digest).await?;
        ensure!(parsed.matches(&body), "{digest} is not what came");
        Ok(body)
    };
    let mut manifest = document(&content("manifests", &name.reference()).await?)?;
    if let Some(first) = manifest.manifests.first() {
        manifest = document(&verified("manifests", &first.digest).await?)?;
    }
    let blobs = manifest.config.iter().chain(&manifest.layers);
    let smallest = blobs.min_by_key(|blob| blob.size);
    let smallest = smallest.context("the manifest names no blob")?;
    let blob = verified("blobs", &smallest.digest).await?;
    Ok(Pulled {
        image: name.to_string(),
        blob: smallest.digest.clone(),
        len: blob.len(),
    })
}

/// The body of the answer to one request.
async fn get(mirror: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(mirror).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, mirror.to_string())
        .header(header::ACCEPT, ACCEPT)
        .body(Empty::<Bytes>::new())?;
    let answered = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY_LEN_MAX).collect();
        let body = body.await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok((status, body))
    };
    let (answered, _ended) = tokio::join!(answered, connection);
    let (status, body): (StatusCode, Bytes) = answered.map_err(|error: anyhow::Error| error)?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let told = serde_json::from_slice::<Refusal>(&body).ok();
    match told.and_then(|told| told.errors.into_iter().next()) {
        Some(told) => bail!("{status}: {}", told.message),
        None => bail!("{status}"),
    }
}
