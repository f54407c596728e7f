//! Asks registries, again where that may help.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use moka::future::Cache;
use protocol::{Origin, RegistryName, Right};
use tokio::{sync::watch, time::sleep};

use super::{
    clock,
    credential::Credential,
    dial::{Dialer, Shared, via},
    docker_config,
    endpoints::Endpoints,
    error::SourceError,
    login::{Keyring, Login, NoKeys},
    metrics::SourceMetrics,
    public::Public,
    registry::{Config, SourceConfigError, Timeouts, default_endpoint},
    request::{UpstreamRequest, UpstreamResponse},
    resolve::{Names, SystemNames},
    retry::{Retries, RetryLimits},
    rights::{Means, Rights},
    silence::Errand,
    upstream::Upstream,
};
use crate::bandwidth::{Demand, Pace, Throttle};

/// All upstream registries. Cheap to clone; a reload is seen by all clones but pinned ones.
#[derive(Clone)]
pub struct Upstreams {
    newest: Arc<watch::Sender<Arc<Inner>>>,
    /// What a transfer began with.
    pinned: Option<Arc<Inner>>,
    pub(super) pace: Pace,
}

/// What the registries cannot do without and the tests replace.
#[derive(Clone)]
pub struct Outside {
    /// Resolves names.
    pub names: Arc<dyn Names>,
    /// Reads this node's logins.
    pub keyring: Arc<dyn Keyring>,
}

struct Inner {
    config: Config,
    metrics: SourceMetrics,
    outside: Outside,
    configured: HashMap<RegistryName, Arc<Endpoints>>,
    /// Registries that are allowed without an entry of their own, as they are asked.
    others: Cache<RegistryName, Arc<Endpoints>>,
    public: Dialer,
    rights: Rights,
    /// What registries tell anybody.
    known_to_all: Arc<Public>,
}

/// Registries without an entry that are remembered at once.
const OTHERS_MAX: u64 = 1024;

/// Retries of a request whose answer has not begun.
const REQUEST_FAILURES_MAX: u32 = 3;
pub(super) const REQUEST_WINDOW: Duration = Duration::from_secs(15);

// === impl Outside ===

impl Default for Outside {
    /// The names of the system, and no logins.
    fn default() -> Self {
        Self {
            names: Arc::new(SystemNames),
            keyring: Arc::new(NoKeys),
        }
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}

// === impl Upstreams ===

impl Upstreams {
    /// Fails when TLS cannot be set up with the authorities that were given.
    pub fn new(config: Config, metrics: SourceMetrics) -> Result<Self, SourceConfigError> {
        Self::with_outside(config, metrics, Outside::default())
    }

    /// As [`Upstreams::new`], with another outside.
    pub fn with_outside(
        config: Config,
        metrics: SourceMetrics,
        outside: Outside,
    ) -> Result<Self, SourceConfigError> {
        let inner = Inner::new(config, metrics, outside)?;
        Ok(Self {
            newest: Arc::new(watch::Sender::new(Arc::new(inner))),
            pinned: None,
            pace: Pace::default(),
        })
    }

    /// Begins anew with `config`: what runs goes on with what it began with. Where TLS cannot be set
    /// up, nothing changes.
    pub fn reload(&self, config: Config) -> Result<(), SourceConfigError> {
        let (metrics, outside) = {
            let running = self.newest.borrow();
            (running.metrics.clone(), running.outside.clone())
        };
        let inner = Inner::new(config, metrics, outside)?;
        self.newest.send_replace(Arc::new(inner));
        Ok(())
    }

    /// The same, whatever is reloaded later.
    pub(super) fn pinned(&self) -> Self {
        Self {
            pinned: Some(self.inner()),
            ..self.clone()
        }
    }

    fn inner(&self) -> Arc<Inner> {
        match &self.pinned {
            Some(inner) => Arc::clone(inner),
            None => Arc::clone(&self.newest.borrow()),
        }
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        self.inner().config.timeouts
    }

    /// The same registries, for fetches that keep to `throttle` together.
    pub fn throttled(&self, throttle: Throttle) -> Self {
        Self {
            pace: Pace::new(throttle),
            ..self.clone()
        }
    }

    /// The same registries, for fetches that keep to `prefetch` as well until `demand` is raised.
    pub(crate) fn until(&self, demand: &Demand, prefetch: &Throttle) -> Self {
        Self {
            pace: self.pace.until(demand, prefetch),
            ..self.clone()
        }
    }

    /// A right of `credential` to read in the repository of `origin` that another host may use.
    pub(crate) async fn lendable(&self, origin: &Origin, credential: &Credential) -> Option<Right> {
        let inner = self.inner();
        let endpoints = inner.endpoints(&origin.registry).await.ok()?;
        let lendable = endpoints.lendable(&inner.rights, &origin.repository, credential);
        lendable.await
    }

    pub(super) fn known_to_all(&self) -> Arc<Public> {
        Arc::clone(&self.inner().known_to_all)
    }

    /// Whether `registry` may be asked at all.
    pub fn allowed(&self, registry: &RegistryName) -> bool {
        self.inner().config.allowed(registry)
    }

    /// Whether somebody is to ask `registry` who has an older answer that would do: not where it said
    /// that few requests are left for this host, but for one now and then.
    pub async fn may_refresh(&self, registry: &RegistryName) -> bool {
        let endpoints = self.endpoints(registry).await;
        endpoints.map_or(true, |endpoints| endpoints.may_refresh())
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
            let error = match self.send_once(request, Means::All).await {
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
            backoff: self.timeouts().backoff,
        })
    }

    pub(super) async fn pause_before_retry(
        &self,
        error: &SourceError,
        registry: &RegistryName,
        pause: Duration,
    ) {
        self.inner().metrics.retried(error);
        tracing::debug!(%registry, %error, ?pause, "asking the upstream again");
        sleep(pause).await;
    }

    /// As [`Upstreams::send`], without retries, by `means` alone.
    pub(super) async fn send_once(
        &self,
        request: &UpstreamRequest,
        means: Means,
    ) -> Result<UpstreamResponse, SourceError> {
        let inner = self.inner();
        let timeouts = &inner.config.timeouts;
        let endpoints = inner.endpoints(&request.registry).await?;
        let patience = timeouts.fallback;
        let answered = endpoints.ask(patience, &inner.rights, request, means).await;
        let errand = Errand::of_resource(&request.resource);
        let ask_at = clock::now() + timeouts.fallback_memory;
        endpoints
            .silence()
            .ended(errand, answered.as_ref().err(), ask_at);
        answered
    }

    pub(super) async fn endpoints(
        &self,
        registry: &RegistryName,
    ) -> Result<Arc<Endpoints>, SourceError> {
        self.inner().endpoints(registry).await
    }
}

// === impl Inner ===

impl Inner {
    fn new(
        config: Config,
        metrics: SourceMetrics,
        outside: Outside,
    ) -> Result<Self, SourceConfigError> {
        let shared = Shared {
            names: Arc::clone(&outside.names),
            timeouts: config.timeouts,
            proxy: config.proxy.clone(),
            metrics: metrics.clone(),
            via: via(&config.pseudonym)?,
        };
        let mut configured = HashMap::new();
        for (name, registry) in &config.registries {
            let mut upstreams = Vec::new();
            for endpoint in &registry.endpoints {
                let dialer = Dialer::to_configured(&shared, registry, endpoint)?;
                let mut upstream = Upstream::new(name, endpoint.clone(), dialer);
                upstream.login = registry.docker_config.clone().map(|path| {
                    Login::new(
                        path,
                        docker_config::hosts(name, endpoint),
                        Arc::clone(&outside.keyring),
                    )
                });
                upstreams.push(upstream);
            }
            let endpoints = Endpoints::new(name, upstreams, metrics.clone());
            configured.insert(name.clone(), Arc::new(endpoints));
        }
        for (name, papers) in &config.papers {
            // One that cannot be asked is told of when it is asked for.
            let Ok(endpoint) = default_endpoint(name) else {
                continue;
            };
            let dialer = Dialer::with_papers(&shared, papers, &endpoint)?;
            let upstream = Upstream::new(name, endpoint, dialer);
            let endpoints = Endpoints::new(name, vec![upstream], metrics.clone());
            configured.insert(name.clone(), Arc::new(endpoints));
        }
        Ok(Self {
            configured,
            others: Cache::new(OTHERS_MAX),
            public: Dialer::to_public(&shared)?,
            rights: Rights::new(metrics.clone()),
            known_to_all: Arc::default(),
            config,
            metrics,
            outside,
        })
    }

    async fn endpoints(&self, registry: &RegistryName) -> Result<Arc<Endpoints>, SourceError> {
        let not_allowed = || SourceError::NotAllowed(registry.clone());
        if !self.config.allowed(registry) {
            return Err(not_allowed());
        }
        if let Some(endpoints) = self.configured.get(registry) {
            return Ok(Arc::clone(endpoints));
        }
        let endpoint = default_endpoint(registry).map_err(|_| not_allowed())?;
        let made = async {
            let upstream = Upstream::new(registry, endpoint, self.public.clone());
            let metrics = self.metrics.clone();
            Arc::new(Endpoints::new(registry, vec![upstream], metrics))
        };
        Ok(self.others.get_with_by_ref(registry, made).await)
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams")
            .field("configured", &self.inner().configured.keys())
            .finish_non_exhaustive()
    }
}
