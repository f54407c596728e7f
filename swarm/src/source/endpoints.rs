//! One registry at all its endpoints: asks them one after the other until one answers.
//!
//! Which is next is decided in `failover`; this file waits and keeps what is remembered.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use protocol::{RegistryName, Repository, Right};
use tokio::time::timeout;

use super::{
    clock,
    credential::Credential,
    error::{Awaited, SourceError},
    failover::{Failover, goes_on},
    metrics::SourceMetrics,
    request::{Body, UpstreamRequest, UpstreamResponse},
    rights::{Means, Rights},
    silence::Silence,
    upstream::Upstream,
};

/// One registry.
#[derive(Debug)]
pub(super) struct Endpoints {
    registry: RegistryName,
    upstreams: Vec<Upstream>,
    failover: Mutex<Failover>,
    silence: Mutex<Silence>,
    metrics: SourceMetrics,
}

// === impl Endpoints ===

impl Endpoints {
    pub(super) fn new(
        registry: &RegistryName,
        upstreams: Vec<Upstream>,
        metrics: SourceMetrics,
    ) -> Self {
        Self {
            registry: registry.clone(),
            failover: Mutex::new(Failover::new(upstreams.len())),
            upstreams,
            silence: Mutex::default(),
            metrics,
        }
    }

    /// The one that is farthest: the registry itself, where those before it are copies.
    pub(super) fn last(&self) -> Result<&Upstream, SourceError> {
        self.upstreams.last().ok_or_else(|| self.nobody())
    }

    /// A right of `credential` that another host may use, if the registry wants one.
    pub(super) async fn lendable(
        &self,
        rights: &Rights,
        repository: &Repository,
        credential: &Credential,
    ) -> Option<Right> {
        // A token is of one endpoint: where there are several, nobody knows which the other asks.
        match self.upstreams.as_slice() {
            [upstream] => rights.lendable(upstream, repository, credential).await,
            _ => None,
        }
    }

    /// Whether somebody is to ask who has an older answer: where any endpoint has requests to spare.
    pub(super) fn may_refresh(&self) -> bool {
        self.upstreams.iter().any(Upstream::may_refresh)
    }

    /// What is known of the silence of all together.
    pub(super) fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer of the first endpoint that answers; the error of the last as written where none
    /// does. All but the last together are waited for no longer than `patience`.
    pub(super) async fn ask(
        self: &Arc<Self>,
        patience: Duration,
        rights: &Rights,
        request: &UpstreamRequest,
        means: Means,
    ) -> Result<UpstreamResponse, SourceError> {
        let order = self.failover().order(clock::now());
        let share = patience / u32::try_from(order.len()).unwrap_or(1).max(1);
        let mut told: Option<(usize, SourceError)> = None;
        for (turn, index) in order.iter().copied().enumerate() {
            let upstream = &self.upstreams[index];
            let asking = Box::pin(rights.ask(upstream, request, means));
            let answered = match turn + 1 < order.len() {
                true => within(share, upstream, asking).await,
                false => asking.await,
            };
            self.ended(index, answered.as_ref().err());
            let error = match answered {
                Ok(response) => return Ok(self.watched(index, response)),
                Err(error) => error,
            };
            let next = order.get(turn + 1);
            let goes_on = next.is_some_and(|next| goes_on(&error, index, *next));
            if goes_on {
                self.metrics.passed_over(&error);
                tracing::debug!(registry = %self.registry, endpoint = %upstream.endpoint, %error, "asking the next endpoint");
            }
            if told.as_ref().is_none_or(|(of, _)| *of <= index) {
                told = Some((index, error));
            }
            if !goes_on {
                break;
            }
        }
        Err(told.map_or_else(|| self.nobody(), |(_, error)| error))
    }

    /// What it is that there is no endpoint.
    fn nobody(&self) -> SourceError {
        SourceError::NotAllowed(self.registry.clone())
    }

    /// The same response; how its body ends says something of the endpoint too.
    fn watched(self: &Arc<Self>, index: usize, response: UpstreamResponse) -> UpstreamResponse {
        if self.upstreams.len() < 2 {
            return response;
        }
        let endpoints = Arc::clone(self);
        let body = response.body.inspect(move |chunk| {
            if let Err(error) = chunk {
                endpoints.ended(index, Some(error));
            }
        });
        UpstreamResponse {
            body: Body::new(body),
            ..response
        }
    }

    fn ended(&self, index: usize, error: Option<&SourceError>) {
        let fell_ill = self.failover().ended(index, error, clock::now());
        if let (true, Some(error), true) = (fell_ill, error, 1 < self.upstreams.len()) {
            let endpoint = &self.upstreams[index].endpoint;
            tracing::warn!(registry = %self.registry, %endpoint, %error, "the endpoint is passed over for a while");
        }
    }

    fn failover(&self) -> MutexGuard<'_, Failover> {
        self.failover.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What comes of `asking` in time.
async fn within(
    limit: Duration,
    upstream: &Upstream,
    asking: impl Future<Output = Result<UpstreamResponse, SourceError>>,
) -> Result<UpstreamResponse, SourceError> {
    match timeout(limit, asking).await {
        Ok(answered) => answered,
        // Where all its connections are taken by ourselves, it is not the endpoint that is slow.
        Err(_) => Err(SourceError::Stalled {
            awaited: match upstream.is_full() {
                true => Awaited::Slot,
                false => Awaited::Headers,
            },
            waited: limit,
        }),
    }
}
