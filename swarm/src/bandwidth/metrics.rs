//! Counters of what the limits on bandwidth cost.

use std::time::Duration;

use prometheus::{CounterVec, IntCounterVec, Opts, Registry};

/// The metrics of all throttles. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BandwidthMetrics {
    bytes: IntCounterVec,
    seconds: CounterVec,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// Pieces given to other hosts.
    Serve,
    /// Pieces taken from other hosts.
    Fetch,
    /// Bodies of upstreams.
    Source,
    /// What nobody waits for.
    Prefetch,
}

// === impl BandwidthMetrics ===

impl BandwidthMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// The registry has a metric of one of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let bytes = Opts::new(
            "darter_swarm_throttled_bytes_total",
            "Bytes that had to wait for a limit on bandwidth",
        );
        let seconds = Opts::new(
            "darter_swarm_throttled_seconds_total",
            "How long transfers waited for a limit on bandwidth, taken together",
        );
        let metrics = Self {
            bytes: IntCounterVec::new(bytes, &["bucket"])?,
            seconds: CounterVec::new(seconds, &["bucket"])?,
        };
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        for bucket in [
            Bucket::Serve,
            Bucket::Fetch,
            Bucket::Source,
            Bucket::Prefetch,
        ] {
            metrics.waited(bucket, 0, Duration::ZERO);
        }
        Ok(metrics)
    }

    pub(super) fn waited(&self, bucket: Bucket, bytes: u64, waited: Duration) {
        let label = [bucket.as_str()];
        self.bytes.with_label_values(&label).inc_by(bytes);
        let seconds = self.seconds.with_label_values(&label);
        seconds.inc_by(waited.as_secs_f64());
    }
}

// === impl Bucket ===

impl Bucket {
    fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Fetch => "fetch",
            Self::Source => "source",
            Self::Prefetch => "prefetch",
        }
    }
}
