//! What is counted at the upstream side. No label carries a name that a caller chose.

use http::StatusCode;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{error::SourceError, rate_limit::RateLimit};

/// Counters of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    requests: IntCounterVec,
    bytes: IntCounter,
    retries: IntCounterVec,
    failovers: IntCounterVec,
    token_fetches: IntCounterVec,
    hub_pulls: IntGaugeVec,
}

/// How the fetch of a token ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenFetch {
    Granted,
    Refused,
    Failed,
}

// === impl SourceMetrics ===

impl SourceMetrics {
    /// The counters, registered. Fails when they already are.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new(
                    "darter_source_requests_total",
                    "Requests to upstreams, by class of the answer",
                ),
                &["class"],
            )?,
            bytes: IntCounter::new(
                "darter_source_bytes_total",
                "Bytes of bodies received from upstreams",
            )?,
            retries: IntCounterVec::new(
                Opts::new(
                    "darter_source_retries_total",
                    "Requests to upstreams repeated, by what had failed",
                ),
                &["reason"],
            )?,
            failovers: IntCounterVec::new(
                Opts::new(
                    "darter_source_failovers_total",
                    "Requests that went on to the next endpoint of a registry, by what had failed",
                ),
                &["reason"],
            )?,
            token_fetches: IntCounterVec::new(
                Opts::new(
                    "darter_source_token_fetches_total",
                    "Requests to token servers, by outcome",
                ),
                &["outcome"],
            )?,
            hub_pulls: IntGaugeVec::new(
                Opts::new(
                    "darter_source_hub_pulls",
                    "Pulls that Docker Hub gives in one window, and those left, as it told last",
                ),
                &["of"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.failovers.clone()))?;
        // Told from the start, as what has no label is.
        metrics.failovers.with_label_values(&["unreachable"]);
        registry.register(Box::new(metrics.token_fetches.clone()))?;
        registry.register(Box::new(metrics.hub_pulls.clone()))?;
        Ok(metrics)
    }

    pub(super) fn answered(&self, status: StatusCode) {
        let class = match status.as_u16() {
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[class]).inc();
    }

    pub(super) fn unanswered(&self) {
        self.requests.with_label_values(&["none"]).inc();
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes.inc_by(bytes as u64);
    }

    pub(super) fn retried(&self, error: &SourceError) {
        self.retries.with_label_values(&[reason(error)]).inc();
    }

    pub(super) fn passed_over(&self, error: &SourceError) {
        self.failovers.with_label_values(&[reason(error)]).inc();
    }

    /// Nothing is shown before Docker Hub has told something: zero would be an alarm.
    pub(super) fn hub_told(&self, told: RateLimit) {
        for (of, number) in [("limit", told.limit), ("remaining", told.remaining)] {
            if let Some(number) = number {
                self.hub_pulls.with_label_values(&[of]).set(number.into());
            }
        }
    }

    pub(super) fn token_fetched(&self, outcome: TokenFetch) {
        let outcome = match outcome {
            TokenFetch::Granted => "granted",
            TokenFetch::Refused => "refused",
            TokenFetch::Failed => "failed",
        };
        self.token_fetches.with_label_values(&[outcome]).inc();
    }
}

fn reason(error: &SourceError) -> &'static str {
    match error {
        SourceError::Unreachable { .. } => "unreachable",
        SourceError::Stalled { .. } => "stalled",
        SourceError::RateLimited { .. } => "rate_limited",
        SourceError::Interrupted => "interrupted",
        SourceError::Status(_) | SourceError::Refused(_) => "status",
        SourceError::NotAllowed(_)
        | SourceError::Forbidden { .. }
        | SourceError::Redirect(_)
        | SourceError::TooLong { .. }
        | SourceError::Malformed(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_are_these() {
        let registry = Registry::new();
        let metrics = SourceMetrics::register(&registry).unwrap();
        metrics.answered(StatusCode::OK);
        metrics.unanswered();
        metrics.retried(&SourceError::Interrupted);
        metrics.passed_over(&SourceError::Interrupted);
        metrics.token_fetched(TokenFetch::Granted);
        let silent = registry.gather().len();
        metrics.hub_told(RateLimit::default());
        assert_eq!(registry.gather().len(), silent);
        metrics.hub_told(RateLimit {
            limit: Some(100),
            remaining: Some(0),
            window: None,
        });
        let names: Vec<String> = registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "darter_source_bytes_total",
                "darter_source_failovers_total",
                "darter_source_hub_pulls",
                "darter_source_requests_total",
                "darter_source_retries_total",
                "darter_source_token_fetches_total",
            ]
        );
        assert!(SourceMetrics::register(&registry).is_err());
    }
}
