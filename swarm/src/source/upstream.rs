//! One endpoint of a registry: its URLs, its connections, and one request with the redirects that
//! follow it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderValue, header};
use protocol::RegistryName;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use url::Url;

use super::{
    clock,
    dial::Dialer,
    error::{AnsweredBy, Awaited, SourceError},
    login::Login,
    range::ContentRange,
    rate_limit::{Allowance, RateLimit},
    redirect,
    registry::is_docker_hub,
    request::{Access, Method, Redirects, Reference, Resource, UpstreamRequest, UpstreamResponse},
    retry,
};

/// One endpoint of one registry.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) id: UpstreamId,
    pub(super) endpoint: Url,
    pub(super) dialer: Dialer,
    /// Of this node, where it has one.
    pub(super) login: Option<Login>,
    is_hub: bool,
    /// What nobody in particular may still ask for.
    allowance: Mutex<Allowance>,
    slots: Arc<Semaphore>,
    /// Those of requests that are passed on, which last as long as their callers like.
    pass_slots: Arc<Semaphore>,
}

/// Tells the endpoints of all registries apart: what one of them gave is never shown to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct UpstreamId(Arc<str>);

/// Requests to one endpoint that are under way at once, their bodies included; and as many that are
/// passed on.
pub(super) const SLOTS_MAX: usize = 64;
/// How long a request waits for one of them.
const SLOT_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Everything that a registry may hold as a manifest: some answer 404 when the stored type is
/// not named, and `*/*` alone makes others convert.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws, \
    application/vnd.oci.artifact.manifest.v1+json, */*";

// === impl Upstream ===

impl Upstream {
    pub(super) fn new(name: &RegistryName, endpoint: Url, dialer: Dialer) -> Self {
        Self {
            id: UpstreamId(format!("{name} {endpoint}").into()),
            endpoint,
            dialer,
            login: None,
            is_hub: is_docker_hub(name),
            allowance: Mutex::default(),
            slots: Arc::new(Semaphore::new(SLOTS_MAX)),
            pass_slots: Arc::new(Semaphore::new(SLOTS_MAX)),
        }
    }

    /// Whether as many requests are under way as may be.
    pub(super) fn is_full(&self) -> bool {
        self.slots.available_permits() == 0
    }

    /// Whether somebody is to ask who need not.
    pub(super) fn may_refresh(&self) -> bool {
        self.allowance().admits(clock::now())
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, SourceError> {
        slot_of(&self.slots).await
    }

    /// A slot for a request that is passed on: none of those that pulls wait for.
    pub(super) async fn pass_slot(&self) -> Result<OwnedSemaphorePermit, SourceError> {
        slot_of(&self.pass_slots).await
    }

    /// One request with one right, redirects included. `slot` goes along with the body.
    pub(super) async fn attempt(
        &self,
        request: &UpstreamRequest,
        authorization: Option<&HeaderValue>,
        access: Access,
    ) -> Result<UpstreamResponse, SourceError> {
        let slot = self.slot().await?;
        let mut url = self.url(request)?;
        let mut followed = 0;
        let response = loop {
            let here = redirect::same_origin(&url, &self.endpoint);
            let authorization = authorization.filter(|_| here);
            let response = self
                .dialer
                .send(request.method, &url, headers(request, authorization))
                .await?;
            if here {
                self.told(RateLimit::of(response.headers()), access);
            }
            if !redirect::is_redirect(response.status()) || request.redirects == Redirects::Stop {
                break response;
            }
            let location = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            url = redirect::target(&url, location, followed).map_err(SourceError::Redirect)?;
            followed += 1;
        };
        let by = match redirect::same_origin(&url, &self.endpoint) {
            true => AnsweredBy::Registry,
            false => AnsweredBy::Elsewhere,
        };
        // What the host's certificate opens is not everybody's.
        let access = match self.dialer.shows_identity {
            true => Access::Caller,
            false => access,
        };
        let status = response.status();
        if status.is_success()
            || (redirect::is_redirect(status) && request.redirects == Redirects::Stop)
        {
            return Ok(self.success(response, request.method, access, slot));
        }
        Err(self.failure(response, by).await)
    }

    /// An answer to a request with such a right told this. What a caller has left is his own.
    fn told(&self, told: RateLimit, access: Access) {
        if self.is_hub {
            self.dialer.metrics.hub_told(told);
        }
        if access == Access::Anonymous {
            self.allowance().told(told, clock::now());
        }
    }

    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What an answer that is no success means.
    pub(super) async fn failure(&self, response: reqwest::Response, by: AnsweredBy) -> SourceError {
        let answer = Box::new(self.dialer.answer(response, by).await);
        match (answer.status.as_u16(), by) {
            (401 | 403, AnsweredBy::Registry) => SourceError::Refused(answer),
            (429, _) => {
                let told = answer
                    .headers
                    .get(header::RETRY_AFTER)
                    .and_then(|value| value.to_str().ok());
                let retry_after = told.and_then(|told| retry::retry_after(told, clock::wall()));
                SourceError::RateLimited {
                    answer,
                    retry_after,
                }
            }
            _ => SourceError::Status(answer),
        }
    }

    fn success(
        &self,
        response: reqwest::Response,
        method: Method,
        access: Access,
        slot: OwnedSemaphorePermit,
    ) -> UpstreamResponse {
        let headers = response.headers().clone();
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let slot = match method {
            Method::Get => Some(slot),
            Method::Head => None,
        };
        UpstreamResponse {
            status: response.status(),
            access,
            content_length: text(header::CONTENT_LENGTH)
                .and_then(|length| length.trim().parse().ok()),
            content_range: text(header::CONTENT_RANGE).and_then(ContentRange::parse),
            body: self.dialer.body(response, slot),
            headers,
        }
    }

    fn url(&self, request: &UpstreamRequest) -> Result<Url, SourceError> {
        let (rest, query) = match &request.resource {
            Resource::Blob(digest) => (format!("blobs/{digest}"), ""),
            Resource::Manifest(Reference::Tag(tag)) => (format!("manifests/{tag}"), ""),
            Resource::Manifest(Reference::Digest(digest)) => (format!("manifests/{digest}"), ""),
            Resource::TagsList { query } => ("tags/list".to_owned(), query.as_str()),
            Resource::Referrers { digest, query } => {
                (format!("referrers/{digest}"), query.as_str())
            }
        };
        let mut url = self.endpoint.clone();
        url.set_path(&format!(
            "{}v2/{}/{rest}",
            self.endpoint.path(),
            request.repository
        ));
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        // A tag is the one part that is text: `..` would have been taken for a step up.
        let whole = url.path().ends_with(&rest);
        if whole {
            Ok(url)
        } else {
            Err(SourceError::Malformed("the reference is no tag"))
        }
    }
}

async fn slot_of(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, SourceError> {
    let stalled = SourceError::Stalled {
        awaited: Awaited::Slot,
        waited: SLOT_WAIT,
    };
    match timeout(SLOT_WAIT, Arc::clone(slots).acquire_owned()).await {
        Ok(slot) => slot.map_err(|_| stalled),
        Err(_) => Err(stalled),
    }
}

fn headers(request: &UpstreamRequest, authorization: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let accept = match request.resource {
        Resource::Blob(_) => "*/*",
        Resource::Manifest(_) => MANIFEST_TYPES,
        Resource::TagsList { .. } => "application/json, */*",
        Resource::Referrers { .. } => "application/vnd.oci.image.index.v1+json, */*",
    };
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    let range = request.range.and_then(|range| range.header());
    if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
        headers.insert(header::RANGE, range);
    }
    headers
}
