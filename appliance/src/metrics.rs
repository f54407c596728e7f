//! What the process itself counts. Every crate registers its own at the same registry.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::accept::ListenerName;

/// The metrics of the process.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    connections: IntCounterVec,
    open: IntGaugeVec,
}

/// The metrics of one listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerMetrics {
    total: prometheus::IntCounter,
    open: IntGauge,
}

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(IntGauge);

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            connections: IntCounterVec::new(
                Opts::new("darter_connections_total", "connections accepted"),
                &["listener"],
            )?,
            open: IntGaugeVec::new(
                Opts::new("darter_connections_open", "connections open now"),
                &["listener"],
            )?,
        };
        let build = Opts::new("darter_build_info", "always 1; the version is in the label")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        registry.register(Box::new(build))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.open.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn listener(&self, name: ListenerName) -> ListenerMetrics {
        let label = [name.label()];
        ListenerMetrics {
            total: self.connections.with_label_values(&label),
            open: self.open.with_label_values(&label),
        }
    }
}

// === impl ListenerMetrics ===

impl ListenerMetrics {
    pub(crate) fn opened(&self) -> OpenConnection {
        self.total.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }
}

// === impl OpenConnection ===

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
