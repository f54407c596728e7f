//! Limits on bandwidth: four named token buckets, and who takes from which.
//!
//! | bucket | is taken from by |
//! |---|---|
//! | serve | pieces given to other hosts |
//! | fetch | pieces taken from other hosts |
//! | source | bodies of upstreams, for tasks |
//! | prefetch | what an order wants and nobody waits for, beside fetch and source |

mod bucket;
mod metrics;
mod rate;
mod throttle;

pub(crate) use self::throttle::{Demand, Pace};
pub use self::{
    metrics::{BandwidthMetrics, Bucket},
    rate::{Rate, RateError},
    throttle::Throttle,
};

/// What every bucket is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    pub serve: Rate,
    pub fetch: Rate,
    pub source: Rate,
    pub prefetch: Rate,
}

/// The four buckets of one host. Unlimited by default.
#[derive(Debug, Clone, Default)]
pub struct Throttles {
    pub serve: Throttle,
    pub fetch: Throttle,
    pub source: Throttle,
    pub prefetch: Throttle,
}

// === impl Throttles ===

impl Throttles {
    pub fn new(rates: Rates, metrics: &BandwidthMetrics) -> Self {
        Self {
            serve: Throttle::new(rates.serve, Bucket::Serve, metrics),
            fetch: Throttle::new(rates.fetch, Bucket::Fetch, metrics),
            source: Throttle::new(rates.source, Bucket::Source, metrics),
            prefetch: Throttle::new(rates.prefetch, Bucket::Prefetch, metrics),
        }
    }
}
