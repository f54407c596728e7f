//! Asks registries: anonymously first, then, only when refused, as the caller.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use moka::future::Cache;
use protocol::RegistryName;
use tokio::time::sleep;

use super::{
    challenge::Offer,
    clock,
    credential::{Credential, Scheme},
    dial::{Dialer, Shared, via},
    error::{Answer, SourceError},
    metrics::SourceMetrics,
    refusal::Refusals,
    registry::{Config, SourceConfigError, Timeouts, default_endpoint},
    request::{Access, UpstreamRequest, UpstreamResponse},
    resolve::{Names, SystemNames},
    retry::{Retries, RetryLimits},
    silence::Errand,
    token::{Purchase, Scope, Tokens},
    upstream::Upstream,
};
use crate::bandwidth::{Demand, Pace, Throttle};

/// All upstream registries. Cheap to clone.
#[derive(Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
    pub(super) pace: Pace,
}

struct Inner {
    config: Config,
    metrics: SourceMetrics,
    configured: HashMap<RegistryName, Arc<Upstream>>,
    /// Registries that are allowed without an entry of their own, as they are asked.
    others: Cache<RegistryName, Arc<Upstream>>,
    public: Dialer,
    tokens: Tokens,
    refusals: Refusals,
}

/// Registries without an entry that are remembered at once.
const OTHERS_MAX: u64 = 1024;

/// Retries of a request whose answer has not begun.
const REQUEST_FAILURES_MAX: u32 = 3;
pub(super) const REQUEST_WINDOW: Duration = Duration::from_secs(15);

// === impl Upstreams ===

impl Upstreams {
    /// Fails when TLS cannot be set up with the authorities that were given.
    pub fn new(config: Config, metrics: SourceMetrics) -> Result<Self, SourceConfigError> {
        Self::with_names(config, metrics, Arc::new(SystemNames))
    }

    /// As [`Upstreams::new`], names being resolved by `names`.
    pub fn with_names(
        config: Config,
        metrics: SourceMetrics,
        names: Arc<dyn Names>,
    ) -> Result<Self, SourceConfigError> {
        let shared = Shared {
            names,
            timeouts: config.timeouts,
            metrics: metrics.clone(),
            via: via(&config.pseudonym)?,
        };
        let mut configured = HashMap::new();
        for (name, registry) in &config.registries {
            let dialer = Dialer::to_configured(&shared, registry)?;
            configured.insert(
                name.clone(),
                Arc::new(Upstream::new(name, registry.endpoint.clone(), dialer)),
            );
        }
        let inner = Inner {
            configured,
            others: Cache::new(OTHERS_MAX),
            public: Dialer::to_public(&shared)?,
            tokens: Tokens::new(metrics.clone()),
            refusals: Refusals::new(),
            config,
            metrics,
        };
        Ok(Self {
            inner: Arc::new(inner),
            pace: Pace::default(),
        })
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.inner.config.timeouts
    }

    /// The same registries, for fetches that keep to `throttle` together.
    pub fn throttled(&self, throttle: Throttle) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            pace: Pace::new(throttle),
        }
    }

    /// The same registries, for fetches that keep to `prefetch` as well until `demand` is raised.
    pub(crate) fn until(&self, demand: &Demand, prefetch: &Throttle) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            pace: self.pace.until(demand, prefetch),
        }
    }

    /// Whether `registry` may be asked at all.
    pub fn allowed(&self, registry: &RegistryName) -> bool {
        self.inner.config.allowed(registry)
    }

    /// The answer to `request`, tried a few times until it begins. A body that breaks off later
    /// is the caller's to resume; [`Upstreams::fetch`] does.
    pub async fn send(&self, request: &UpstreamRequest) -> Result<UpstreamResponse, SourceError> {
        self.send_within(request, REQUEST_WINDOW).await
    }

    /// As [`Upstreams::send`], with its retries begun within `window`.
    pub(super) async fn send_within(
        &self,
        request: &UpstreamRequest,
        window: Duration,
    ) -> Result<UpstreamResponse, SourceError> {
        let mut retries = self.retries(REQUEST_FAILURES_MAX, window);
        let start = clock::now();
        loop {
            let error = match self.send_once(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let Some(pause) = retries.failed(&error, clock::since(start), clock::jitter()) else {
                return Err(error);
            };
            self.pause_before_retry(&error, &request.registry, pause)
                .await;
        }
    }

    pub(super) fn retries(&self, failures_in_a_row_max: u32, window: Duration) -> Retries {
        Retries::new(RetryLimits {
            failures_in_a_row_max,
            window,
            backoff: self.inner.config.timeouts.backoff,
        })
    }

    pub(super) async fn pause_before_retry(
        &self,
        error: &SourceError,
        registry: &RegistryName,
        pause: Duration,
    ) {
        self.inner.metrics.retried(error);
        tracing::debug!(%registry, %error, ?pause, "asking the upstream again");
        sleep(pause).await;
    }

    /// As [`Upstreams::send`], without retries.
    pub(super) async fn send_once(
        &self,
        request: &UpstreamRequest,
    ) -> Result<UpstreamResponse, SourceError> {
        let upstream = self.upstream(&request.registry).await?;
        let answered = self.send_to(&upstream, request).await;
        let errand = Errand::of_resource(&request.resource);
        let ask_at = clock::now() + self.inner.config.timeouts.fallback_memory;
        upstream
            .silence()
            .ended(errand, answered.as_ref().err(), ask_at);
        answered
    }

    async fn send_to(
        &self,
        upstream: &Upstream,
        request: &UpstreamRequest,
    ) -> Result<UpstreamResponse, SourceError> {
        let place = (request.registry.clone(), request.repository.clone());
        if let Some(credential) = &request.credential
            && let Some(refusal) = self.inner.refusals.recent(&place).await
        {
            return self.as_caller(upstream, request, credential, refusal).await;
        }
        let refusal = match self.as_nobody(upstream, request).await {
            Err(SourceError::Refused(answer)) => answer,
            other => return other,
        };
        let Some(credential) = &request.credential else {
            return Err(SourceError::Refused(refusal));
        };
        let answered = self
            .as_caller(upstream, request, credential, refusal.clone())
            .await;
        if answered.is_ok() {
            self.inner.refusals.remember(place, refusal).await;
        }
        answered
    }

    pub(super) async fn upstream(
        &self,
        registry: &RegistryName,
    ) -> Result<Arc<Upstream>, SourceError> {
        if !self.allowed(registry) {
            return Err(SourceError::NotAllowed(registry.clone()));
        }
        if let Some(upstream) = self.inner.configured.get(registry) {
            return Ok(Arc::clone(upstream));
        }
        let endpoint =
            default_endpoint(registry).map_err(|_| SourceError::NotAllowed(registry.clone()))?;
        let made = async { Arc::new(Upstream::new(registry, endpoint, self.inner.public.clone())) };
        Ok(self.inner.others.get_with_by_ref(registry, made).await)
    }

    /// With the remembered anonymous token or none; when refused, with a new one.
    async fn as_nobody(
        &self,
        upstream: &Upstream,
        request: &UpstreamRequest,
    ) -> Result<UpstreamResponse, SourceError> {
        let scope = scope(request, None);
        let remembered = self.inner.tokens.remembered(&scope, upstream, None).await;
        let refusal = match upstream
            .attempt(request, remembered.as_ref(), Access::Anonymous)
            .await
        {
            Err(SourceError::Refused(answer)) => answer,
            other => return other,
        };
        let Some(challenge) = Offer::of(&refusal.headers).bearer else {
            return Err(SourceError::Refused(refusal));
        };
        let purchase = Purchase {
            upstream,
            challenge: &challenge,
            credential: None,
            rejected: remembered.as_ref(),
        };
        match self.inner.tokens.obtain(&scope, purchase).await? {
            Some(token) => {
                upstream
                    .attempt(request, Some(&token), Access::Anonymous)
                    .await
            }
            None => Err(SourceError::Refused(refusal)),
        }
    }

    /// With the caller's credential: as it is, or, where the registry takes tokens alone, with
    /// the token that a password buys.
    async fn as_caller(
        &self,
        upstream: &Upstream,
        request: &UpstreamRequest,
        credential: &Credential,
        refusal: Box<Answer>,
    ) -> Result<UpstreamResponse, SourceError> {
        let offer = Offer::of(&refusal.headers);
        let challenge = match (credential.scheme(), offer.bearer) {
            (Scheme::Basic, Some(challenge)) if !offer.basic => challenge,
            (Scheme::Basic | Scheme::Bearer | Scheme::Other, _) => {
                return upstream
                    .attempt(request, Some(credential.header()), Access::Caller)
                    .await;
            }
        };
        let scope = scope(request, Some(credential));
        let rejected = self
            .inner
            .tokens
            .remembered(&scope, upstream, Some(credential))
            .await;
        if let Some(token) = &rejected {
            match upstream.attempt(request, Some(token), Access::Caller).await {
                Err(SourceError::Refused(_)) => {}
                other => return other,
            }
        }
        let rejected = rejected.as_ref();
        let purchase = Purchase {
            upstream,
            challenge: &challenge,
            credential: Some(credential),
            rejected,
        };
        match self.inner.tokens.obtain(&scope, purchase).await? {
            Some(token) => {
                upstream
                    .attempt(request, Some(&token), Access::Caller)
                    .await
            }
            None => Err(SourceError::Refused(refusal)),
        }
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams")
            .field("configured", &self.inner.configured.keys())
            .finish_non_exhaustive()
    }
}

fn scope(request: &UpstreamRequest, credential: Option<&Credential>) -> Scope {
    Scope {
        registry: request.registry.clone(),
        repository: request.repository.clone(),
        identity: credential.map(Credential::fingerprint),
    }
}
