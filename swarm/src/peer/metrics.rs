//! Counters of what this host serves to other hosts and fetches from them.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{admission::Refusal, request::Asker};

/// The metrics of the peer server and the piece client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerMetrics {
    upload_requests: IntCounterVec,
    pub(super) upload_bytes: IntCounter,
    uploads: IntCounterVec,
    upload_refusals: IntCounterVec,
    uploads_active: IntGauge,
    pub(super) upload_streams: IntGauge,
    fetch_runs: IntCounterVec,
    pub(super) fetch_bytes: IntCounter,
    pub(super) fetch_connections: IntCounter,
}

/// How a request of another host was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    Served,
    Gone,
    Busy(Refusal),
    Malformed,
}

/// How a request to another host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetch {
    Complete,
    Cancelled,
    Unreachable,
    Busy,
    Gone,
    Slow,
    Malformed,
}

// === impl PeerMetrics ===

impl PeerMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// The registry has a metric of one of these names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let upload_requests = labelled(
            "upload_requests_total",
            "Requests for pieces by other hosts, by outcome",
            "outcome",
        )?;
        let uploads = labelled(
            "uploads_total",
            "Upload slots given, by what the other host said it is",
            "kind",
        )?;
        let upload_refusals = labelled(
            "upload_refusals_total",
            "Requests for pieces that got no upload slot, by reason",
            "reason",
        )?;
        let fetch_runs = labelled(
            "piece_fetch_runs_total",
            "Runs of pieces asked of other hosts, by outcome",
            "outcome",
        )?;
        for asker in Asker::ALL {
            uploads.with_label_values(&[asker.as_str()]);
        }
        for refusal in Refusal::ALL {
            upload_refusals.with_label_values(&[refusal.as_str()]);
        }
        let metrics = Self {
            upload_requests,
            upload_bytes: IntCounter::with_opts(named(
                "upload_bytes_total",
                "Bytes of pieces handed to other hosts",
            ))?,
            uploads,
            upload_refusals,
            uploads_active: IntGauge::with_opts(named("upload_active", "Upload slots in use"))?,
            upload_streams: IntGauge::with_opts(named(
                "upload_streams",
                "Open availability streams of children",
            ))?,
            fetch_runs,
            fetch_bytes: IntCounter::with_opts(named(
                "piece_fetch_bytes_total",
                "Bytes of whole pieces received from other hosts",
            ))?,
            fetch_connections: IntCounter::with_opts(named(
                "piece_fetch_connections_total",
                "Connections opened to other hosts for pieces",
            ))?,
        };
        registry.register(Box::new(metrics.upload_requests.clone()))?;
        registry.register(Box::new(metrics.upload_bytes.clone()))?;
        registry.register(Box::new(metrics.uploads.clone()))?;
        registry.register(Box::new(metrics.upload_refusals.clone()))?;
        registry.register(Box::new(metrics.uploads_active.clone()))?;
        registry.register(Box::new(metrics.upload_streams.clone()))?;
        registry.register(Box::new(metrics.fetch_runs.clone()))?;
        registry.register(Box::new(metrics.fetch_bytes.clone()))?;
        registry.register(Box::new(metrics.fetch_connections.clone()))?;
        Ok(metrics)
    }

    pub(super) fn uploaded(&self, outcome: Upload) {
        self.upload_requests
            .with_label_values(&[outcome.as_str()])
            .inc();
        if let Upload::Busy(refusal) = outcome {
            let refused = self.upload_refusals.with_label_values(&[refusal.as_str()]);
            refused.inc();
        }
    }

    pub(super) fn upload_begun(&self, asker: Asker) {
        self.uploads.with_label_values(&[asker.as_str()]).inc();
        self.uploads_active.inc();
    }

    pub(super) fn upload_ended(&self) {
        self.uploads_active.dec();
    }

    pub(super) fn fetched(&self, outcome: Fetch) {
        self.fetch_runs.with_label_values(&[outcome.as_str()]).inc();
    }
}

// === impl Upload, Refusal, Fetch ===

impl Upload {
    fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Gone => "gone",
            Self::Busy(_) => "busy",
            Self::Malformed => "malformed",
        }
    }
}

impl Refusal {
    const ALL: [Self; 4] = [Self::Full, Self::Reserved, Self::HostShare, Self::TaskShare];

    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Reserved => "reserved",
            Self::HostShare => "host_share",
            Self::TaskShare => "task_share",
        }
    }
}

impl Fetch {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cancelled => "cancelled",
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::Gone => "gone",
            Self::Slow => "slow",
            Self::Malformed => "malformed",
        }
    }
}

fn named(name: &str, help: &str) -> Opts {
    Opts::new(format!("darter_swarm_{name}"), help)
}

fn labelled(name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(named(name, help), &[label])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_registered_under_its_name() {
        let registry = Registry::new();
        let metrics = PeerMetrics::new(&registry).unwrap();
        metrics.uploaded(Upload::Served);
        metrics.fetched(Fetch::Complete);
        let families = registry.gather();
        let names: Vec<&str> = families.iter().map(|family| family.name()).collect();
        assert_eq!(
            names,
            [
                "darter_swarm_piece_fetch_bytes_total",
                "darter_swarm_piece_fetch_connections_total",
                "darter_swarm_piece_fetch_runs_total",
                "darter_swarm_upload_active",
                "darter_swarm_upload_bytes_total",
                "darter_swarm_upload_refusals_total",
                "darter_swarm_upload_requests_total",
                "darter_swarm_upload_streams",
                "darter_swarm_uploads_total",
            ]
        );
    }
}
