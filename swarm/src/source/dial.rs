//! Sends one request to one URL, over a connection that was judged.
//!
//! Two pools of connections: one for what the operator wrote down, one for where redirects and
//! token servers lead. A connection made with more trust is never used with less. With a proxy before
//! the upstreams each has a second pool: names are resolved by the proxy then and cannot be judged
//! here, addresses can.

mod pool;

use std::{error::Error as _, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use url::{Host, Url};

use super::{
    address::judge,
    certs_d::Papers,
    corporate::UpstreamProxy,
    error::{ANSWER_LEN_MAX, Answer, AnsweredBy, Awaited, SourceError},
    metrics::SourceMetrics,
    registry::{Authority, RegistryConfig, SourceConfigError, Timeouts},
    request::{Body, Method},
    resolve::{ForbiddenName, Names, Reach, Rule},
};
use pool::Pool;

/// The ways to one endpoint of a registry. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    /// What may be connected to whatever its address is.
    written: Arc<[Authority]>,
    /// Whether the registry is shown who this host is.
    pub(super) shows_identity: bool,
    to_written: Pool,
    /// Where nothing was written of the registry: its own place, which is judged like any that is
    /// found, and is shown who this host is.
    own: Option<Authority>,
    to_found: Pool,
    proxy: Option<UpstreamProxy>,
    reach: Arc<Reach>,
    pub(super) timeouts: Timeouts,
    /// Goes along with every request, as the last of its kind.
    pub(super) via: HeaderValue,
    pub(super) metrics: SourceMetrics,
}

/// What all dialers share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) names: Arc<dyn Names>,
    pub(super) timeouts: Timeouts,
    pub(super) proxy: Option<UpstreamProxy>,
    pub(super) metrics: SourceMetrics,
    /// Goes along with every request: who sees his own name there was asked by himself.
    pub(super) via: HeaderValue,
}

// === impl Dialer ===

impl Dialer {
    /// The ways to any registry that has no entry in the configuration, and none of `papers` either.
    pub(super) fn to_public(shared: &Shared) -> Result<Self, SourceConfigError> {
        let reach = Arc::<Reach>::default();
        let found = Rule::Found {
            reach: Arc::clone(&reach),
        };
        let pool = Pool::new(shared, found, &[], None)?;
        Ok(Self::found(shared, reach, pool.clone(), pool))
    }

    /// The ways to a registry at `endpoint` that has no entry in the configuration: its connections are
    /// judged as those to any other such one.
    pub(super) fn with_papers(
        shared: &Shared,
        papers: &Papers,
        endpoint: &Url,
    ) -> Result<Self, SourceConfigError> {
        let reach = Arc::<Reach>::default();
        let found = Rule::Found {
            reach: Arc::clone(&reach),
        };
        let to_own = Pool::new(shared, found.clone(), &papers.ca, papers.client.as_ref())?;
        // Who this host is concerns nobody to whom the registry leads.
        let to_found = Pool::new(shared, found, &papers.ca, None)?;
        Ok(Self {
            own: Authority::of(endpoint),
            shows_identity: papers.client.is_some(),
            ..Self::found(shared, reach, to_own, to_found)
        })
    }

    fn found(shared: &Shared, reach: Arc<Reach>, to_written: Pool, to_found: Pool) -> Self {
        Self {
            written: Arc::new([]),
            own: None,
            shows_identity: false,
            to_written,
            to_found,
            proxy: shared.proxy.clone(),
            reach,
            timeouts: shared.timeouts,
            via: shared.via.clone(),
            metrics: shared.metrics.clone(),
        }
    }

    pub(super) fn to_configured(
        shared: &Shared,
        config: &RegistryConfig,
        endpoint: &Url,
    ) -> Result<Self, SourceConfigError> {
        let reach = Arc::<Reach>::default();
        match endpoint.host() {
            Some(Host::Ipv4(address)) => reach.endpoint_is_at(address.into()),
            Some(Host::Ipv6(address)) => reach.endpoint_is_at(address.into()),
            Some(Host::Domain(_)) | None => {}
        }
        let endpoint_host = endpoint.host_str().unwrap_or_default().to_owned();
        let written = Rule::Written {
            endpoint_host,
            reach: Arc::clone(&reach),
        };
        let found = Rule::Found {
            reach: Arc::clone(&reach),
        };
        Ok(Self {
            written: config
                .endpoints
                .iter()
                .filter_map(Authority::of)
                .chain(config.also_trust.iter().cloned())
                .collect(),
            own: None,
            shows_identity: config.client.is_some(),
            to_written: Pool::new(shared, written, &config.ca, config.client.as_ref())?,
            // Who this host is concerns nobody whom the operator did not name.
            to_found: Pool::new(shared, found, &config.ca, None)?,
            proxy: shared.proxy.clone(),
            reach,
            timeouts: shared.timeouts,
            via: shared.via.clone(),
            metrics: shared.metrics.clone(),
        })
    }

    /// The head of the answer to one request. No redirect is followed.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
    ) -> Result<reqwest::Response, SourceError> {
        let client = self.client_for(url)?;
        let request = match method {
            Method::Get => client.get(url.clone()),
            Method::Head => client.head(url.clone()),
        };
        self.answered(url, request.headers(headers)).await
    }

    /// The head of the answer to a form that is posted.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        form: String,
    ) -> Result<reqwest::Response, SourceError> {
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = self.client_for(url)?.post(url.clone()).headers(headers);
        let request = request.header(header::CONTENT_TYPE, form_type).body(form);
        self.answered(url, request).await
    }

    async fn answered(
        &self,
        url: &Url,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, SourceError> {
        let waited = self.timeouts.response;
        let answered = match timeout(waited, request.send()).await {
            Ok(answered) => answered.map_err(|error| failed(url, &error)),
            Err(_) => Err(SourceError::Stalled {
                awaited: Awaited::Headers,
                waited,
            }),
        };
        self.counted(answered)
    }

    pub(super) fn counted(
        &self,
        answered: Result<reqwest::Response, SourceError>,
    ) -> Result<reqwest::Response, SourceError> {
        match &answered {
            Ok(response) => self.metrics.answered(response.status()),
            Err(_) => self.metrics.unanswered(),
        }
        answered
    }

    /// The body of an answer. `slot` is given back when it ends or is dropped.
    pub(super) fn body(
        &self,
        response: reqwest::Response,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Body {
        let waited = self.timeouts.stall;
        let metrics = self.metrics.clone();
        // The watchdog runs only while someone waits for the next chunk: a slow reader is no
        // stalled upstream.
        Body::new(stream::unfold(
            Some((response, slot, metrics)),
            move |state| async move {
                let (mut response, slot, metrics) = state?;
                match timeout(waited, response.chunk()).await {
                    Ok(Ok(Some(chunk))) => {
                        metrics.received(chunk.len());
                        Some((Ok(chunk), Some((response, slot, metrics))))
                    }
                    Ok(Ok(None)) => None,
                    Ok(Err(_)) => Some((Err(SourceError::Interrupted), None)),
                    Err(_) => Some((
                        Err(SourceError::Stalled {
                            awaited: Awaited::Body,
                            waited,
                        }),
                        None,
                    )),
                }
            },
        ))
    }

    /// An answer that is no success. What cannot be read of its body is left out.
    pub(super) async fn answer(&self, response: reqwest::Response, by: AnsweredBy) -> Answer {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response, None).collect(ANSWER_LEN_MAX).await;
        Answer {
            status,
            headers,
            body: body.unwrap_or_else(|_| Bytes::new()),
            by,
        }
    }

    pub(super) fn client_for(&self, url: &Url) -> Result<&reqwest::Client, SourceError> {
        let authority = Authority::of(url).ok_or(SourceError::Malformed("a URL without a host"))?;
        let is_proxied = self.proxy.as_ref().is_some_and(|proxy| proxy.takes(url));
        if self.written.contains(&authority) {
            return Ok(self.to_written.way(is_proxied));
        }
        let pool = match self.own.as_ref() == Some(&authority) {
            true => &self.to_written,
            false => &self.to_found,
        };
        // Names are judged when they are resolved; an address is never resolved.
        let address = match authority.host {
            Host::Ipv4(address) => address.into(),
            Host::Ipv6(address) => address.into(),
            Host::Domain(_) => return Ok(pool.way(is_proxied)),
        };
        match judge(address, self.reach.trust()) {
            Ok(()) => Ok(pool.way(is_proxied)),
            Err(class) => Err(SourceError::Forbidden {
                host: address.to_string(),
                class,
            }),
        }
    }
}

/// What this process writes into `Via`.
pub(super) fn via(pseudonym: &str) -> Result<HeaderValue, SourceConfigError> {
    HeaderValue::try_from(format!("1.1 {pseudonym}")).map_err(|error| SourceConfigError {
        key: "proxy".to_owned(),
        problem: format!("{pseudonym:?} is no name for Via: {error}"),
    })
}

/// What a failed request means. The URL, whose query may be a signature, stays out of it.
pub(super) fn failed(url: &Url, error: &reqwest::Error) -> SourceError {
    let mut reason = "the connection failed".to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(ForbiddenName { host, class }) = error.downcast_ref() {
            return SourceError::Forbidden {
                host: host.clone(),
                class: *class,
            };
        }
        reason = error.to_string();
        cause = error.source();
    }
    SourceError::Unreachable {
        host: url.host_str().unwrap_or_default().to_owned(),
        reason,
    }
}
