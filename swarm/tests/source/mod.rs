//! The upstream side against registries that misbehave as they are told to.

mod corporate;
mod endpoints;
mod hub;
mod login;
mod passed;
mod places;
mod registry;
mod reload;
mod rights;
mod throttled;
mod tls;
mod transfer;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use protocol::{ContentKind, Digest, Origin, RegistryName};
use swarm::source::{
    Access, Authority, ByteRange, Config, Credential, FetchRequest, Method, Names, Outside,
    Redirects, Reference, RegistryConfig, Resource, SourceError, SourceMetrics, SystemNames,
    Timeouts, UpstreamRequest, Upstreams,
};
use url::Url;

const REGISTRY: &str = "r.example";
const REPOSITORY: &str = "team/image";

/// What came of a fetch.
#[derive(Debug)]
struct Fetched {
    size: Option<u64>,
    access: Access,
    bytes: Vec<u8>,
}

/// [`REGISTRY`] is at `endpoint`; `also` may be connected to as well. Nothing waits long.
fn upstreams(endpoint: SocketAddr, also: &[SocketAddr]) -> Upstreams {
    upstreams_with_names(endpoint, also, Arc::new(SystemNames))
}

fn upstreams_with_names(
    endpoint: SocketAddr,
    also: &[SocketAddr],
    names: Arc<dyn Names>,
) -> Upstreams {
    upstreams_that_wait(Duration::from_millis(300), endpoint, also, names)
}

/// As [`upstreams`], waiting so long for an answer, and for its next bytes.
fn upstreams_that_wait(
    time: Duration,
    endpoint: SocketAddr,
    also: &[SocketAddr],
    names: Arc<dyn Names>,
) -> Upstreams {
    let url = |address: &SocketAddr| {
        Url::parse(&format!("http://{address}/")).expect("an address makes a URL")
    };
    let registry = RegistryConfig {
        endpoints: vec![url(&endpoint)],
        also_trust: also
            .iter()
            .filter_map(|address| Authority::of(&url(address)))
            .collect(),
        ca: Vec::new(),
        client: None,
        docker_config: None,
    };
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        response: time,
        stall: time,
        backoff: Duration::from_millis(1),
        ..Timeouts::default()
    };
    let registries = HashMap::from([(REGISTRY.parse().expect("a registry name"), registry)]);
    upstreams_of(registries, timeouts, names)
}

fn upstreams_of(
    registries: HashMap<RegistryName, RegistryConfig>,
    timeouts: Timeouts,
    names: Arc<dyn Names>,
) -> Upstreams {
    let config = Config {
        registries,
        timeouts,
        ..Config::default()
    };
    let metrics = SourceMetrics::register(&prometheus::Registry::new()).expect("a fresh registry");
    let outside = Outside {
        names,
        ..Outside::default()
    };
    Upstreams::with_outside(config, metrics, outside).expect("no CA that could be wrong")
}

fn fetch_request(
    kind: ContentKind,
    range: ByteRange,
    credential: Option<Credential>,
) -> FetchRequest {
    let origin = Origin {
        registry: REGISTRY.parse().expect("a registry name"),
        repository: REPOSITORY.parse().expect("a repository name"),
        kind,
    };
    FetchRequest {
        origin,
        digest: Digest::sha256_of(b"any"),
        range,
        credential,
    }
}

/// All bytes of `range`, or the error that ended it.
async fn fetch_range(upstreams: &Upstreams, range: ByteRange) -> Result<Fetched, SourceError> {
    fetch(upstreams, fetch_request(ContentKind::Blob, range, None)).await
}

async fn fetch_blob(
    upstreams: &Upstreams,
    credential: Option<Credential>,
) -> Result<Fetched, SourceError> {
    let whole = ByteRange {
        start: 0,
        end: None,
    };
    fetch(
        upstreams,
        fetch_request(ContentKind::Blob, whole, credential),
    )
    .await
}

async fn fetch(upstreams: &Upstreams, request: FetchRequest) -> Result<Fetched, SourceError> {
    let fetch = upstreams.fetch(request).await?;
    let bytes = fetch.body.collect(1 << 26).await?.to_vec();
    Ok(Fetched {
        size: fetch.size,
        access: fetch.access,
        bytes,
    })
}

/// A request for the manifest tagged `latest`.
fn manifest_request(method: Method, redirects: Redirects) -> UpstreamRequest {
    UpstreamRequest {
        method,
        registry: REGISTRY.parse().expect("a registry name"),
        repository: REPOSITORY.parse().expect("a repository name"),
        resource: Resource::Manifest(Reference::Tag("latest".to_owned())),
        range: None,
        credential: None,
        redirects,
    }
}

fn credential(text: &str) -> Option<Credential> {
    Credential::from_header(&http::HeaderValue::from_str(text).expect("a header value"))
}

/// Time passes in no time.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
