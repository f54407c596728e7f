//! What the process itself counts. Every crate registers its own at the same registry.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use protocol::{HostId, grpc::Refusals};

use crate::accept::ListenerName;

/// The metrics of the process.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    connections: IntCounterVec,
    open: IntGaugeVec,
    shed: IntCounterVec,
    refused: IntCounterVec,
    reloads: IntCounterVec,
    identity_expires: IntGauge,
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    Applied,
    /// The configuration had a problem.
    Refused,
}

/// Hosts that one listener did not let in.
#[derive(Debug, Clone)]
pub(crate) struct RefusedHosts {
    listener: &'static str,
    refused: IntCounterVec,
}

/// Why a host was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedFor {
    /// It showed no certificate of this cluster.
    Certificate,
    /// Its handshake took too long.
    Handshake,
    /// It says that it is what its certificate does not say, or there is no room for it.
    Session,
}

/// The metrics of one listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerMetrics {
    total: prometheus::IntCounter,
    open: IntGauge,
    /// Idle connections that were closed to make room for others.
    pub(crate) shed: prometheus::IntCounter,
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
            shed: IntCounterVec::new(
                Opts::new(
                    "darter_connections_shed_total",
                    "idle connections closed to make room for others",
                ),
                &["listener"],
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "darter_refused_hosts_total",
                    "hosts that were not let in, by listener and reason",
                ),
                &["listener", "reason"],
            )?,
            reloads: IntCounterVec::new(
                Opts::new(
                    "darter_reloads_total",
                    "reloads of the configuration, by outcome",
                ),
                &["outcome"],
            )?,
            identity_expires: IntGauge::new(
                "darter_identity_expires_seconds",
                "when the certificate of this host ends, in seconds since 1970",
            )?,
        };
        let build = Opts::new("darter_build_info", "always 1; the version is in the label")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        registry.register(Box::new(build))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.open.clone()))?;
        registry.register(Box::new(metrics.shed.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.identity_expires.clone()))?;
        for outcome in [Reload::Applied, Reload::Refused] {
            metrics.reloads.with_label_values(&[outcome.as_str()]);
        }
        for listener in [ListenerName::Swarm, ListenerName::Scheduler] {
            for reason in RefusedFor::ALL {
                metrics
                    .refused
                    .with_label_values(&[listener.label(), reason.as_str()]);
            }
        }
        Ok(metrics)
    }

    pub(crate) fn listener(&self, name: ListenerName) -> ListenerMetrics {
        let label = [name.label()];
        ListenerMetrics {
            total: self.connections.with_label_values(&label),
            open: self.open.with_label_values(&label),
            shed: self.shed.with_label_values(&label),
        }
    }

    pub(crate) fn reloaded(&self, outcome: Reload) {
        self.reloads.with_label_values(&[outcome.as_str()]).inc();
    }

    /// In seconds since 1970.
    pub(crate) fn identity_expires(&self, until: u64) {
        let until = i64::try_from(until).unwrap_or(i64::MAX);
        self.identity_expires.set(until);
    }

    pub(crate) fn refused_at(&self, name: ListenerName) -> RefusedHosts {
        RefusedHosts {
            listener: name.label(),
            refused: self.refused.clone(),
        }
    }
}

// === impl Reload ===

impl Reload {
    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

// === impl RefusedHosts ===

impl RefusedHosts {
    pub(crate) fn count(&self, reason: RefusedFor) {
        let labels = [self.listener, reason.as_str()];
        self.refused.with_label_values(&labels).inc();
    }
}

impl Refusals for RefusedHosts {
    fn refused(&self, _: &HostId) {
        self.count(RefusedFor::Session);
    }
}

// === impl RefusedFor ===

impl RefusedFor {
    const ALL: [Self; 3] = [Self::Certificate, Self::Handshake, Self::Session];

    fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Handshake => "handshake",
            Self::Session => "session",
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
