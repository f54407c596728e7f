//! What the proxy counts. The list is part of the interface; a test holds it.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::Collector,
};

use crate::{client::ClientKind, error::Fault};

/// The proxy's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Requests that are over, by client, kind and status.
    requests: IntCounterVec,
    /// Bytes of content handed to clients, by where they came from.
    bytes: IntCounterVec,
    first_byte: HistogramVec,
    duration: HistogramVec,
    /// Requests that were refused, by fault.
    refusals: IntCounterVec,
    /// How tags were answered.
    tags: IntCounterVec,
    /// How it was found who may read.
    rights: IntCounterVec,
    /// Bodies that ended before their end.
    pub(crate) cut: IntCounter,
    /// Connections that are open.
    connections: IntGauge,
    /// Connections that were meant for other hosts, by what became of them.
    connects: IntCounterVec,
    tunnel_bytes: IntCounterVec,
    /// Tunnels that are open.
    pub(crate) tunnels: IntGauge,
    /// Handshakes in which a client did not take the certificate of a local authority.
    pub(crate) rejections: IntCounter,
}

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(IntGauge);

/// What became of a connection that was meant for another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectWay {
    /// Answered here.
    Intercepted,
    /// Passed on untouched.
    Tunnelled,
    Refused,
}

/// Which way bytes go through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client.
    Up,
    Down,
}

/// What a request was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    Ping,
    Blob,
    Manifest,
    Tags,
    Referrers,
    /// Passed on to its registry as it is.
    Through,
    /// A token was asked for.
    Token,
    Other,
}

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrigin {
    Hit,
    Joined,
    Swarm,
    Source,
}

/// How a tag was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TagAnswer {
    /// From memory or disk, within `tag_ttl`.
    Fresh,
    /// By the upstream.
    Asked,
    /// The last known answer, since the upstream failed.
    Stale,
    /// The last known answer, since the upstream said that it answers few questions more.
    Held,
    /// Not at all.
    Refused,
}

/// How it was found whether somebody may read something that is not known to be everybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RightAnswer {
    /// By what was decided before.
    Known,
    /// The registry was asked, and said yes.
    Asked,
    /// The registry did not answer, and had said yes a while ago.
    Grace,
    /// It may not, or nobody could be asked.
    Refused,
}

/// Seconds, from a local hit to a layer over a slow line.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0,
];

// === impl Metrics ===

impl Metrics {
    /// Registers every metric at `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name, help, labels| IntCounterVec::new(Opts::new(name, help), labels);
        let seconds = |name, help, labels| {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()),
                labels,
            )
        };
        let metrics = Self {
            requests: counters(
                "darter_proxy_requests_total",
                "requests that are over",
                &["client", "kind", "status"],
            )?,
            bytes: counters(
                "darter_proxy_bytes_total",
                "bytes of content sent",
                &["origin"],
            )?,
            first_byte: seconds(
                "darter_proxy_first_byte_seconds",
                "time from a request to its first byte",
                &["kind"],
            )?,
            duration: seconds(
                "darter_proxy_request_seconds",
                "time from a request to its end",
                &["kind"],
            )?,
            refusals: counters(
                "darter_proxy_refusals_total",
                "requests refused",
                &["fault"],
            )?,
            tags: counters("darter_proxy_tags_total", "tags answered", &["answer"])?,
            rights: counters(
                "darter_proxy_rights_total",
                "contents that not everybody may read, or of which that is not known, by how it was found whether this caller may",
                &["answer"],
            )?,
            cut: IntCounter::new("darter_proxy_cut_total", "bodies ended before their end")?,
            connections: IntGauge::new("darter_proxy_connections", "connections open")?,
            connects: counters(
                "darter_proxy_connects_total",
                "connections meant for other hosts, by what became of them",
                &["way"],
            )?,
            tunnel_bytes: counters(
                "darter_proxy_tunnel_bytes_total",
                "bytes passed on untouched",
                &["direction"],
            )?,
            tunnels: IntGauge::new("darter_proxy_tunnels", "tunnels open")?,
            rejections: IntCounter::new(
                "darter_proxy_certificate_rejections_total",
                "handshakes in which a client did not take our certificate",
            )?,
        };
        for collector in metrics.collectors() {
            registry.register(collector)?;
        }
        // Told from the start, as what has no label is.
        for way in ConnectWay::ALL {
            metrics.connects.with_label_values(&[way.label()]);
        }
        for direction in Direction::ALL {
            metrics.tunnel_bytes(direction);
        }
        Ok(metrics)
    }

    fn collectors(&self) -> [Box<dyn Collector>; 13] {
        [
            Box::new(self.requests.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.first_byte.clone()),
            Box::new(self.duration.clone()),
            Box::new(self.refusals.clone()),
            Box::new(self.tags.clone()),
            Box::new(self.rights.clone()),
            Box::new(self.cut.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.connects.clone()),
            Box::new(self.tunnel_bytes.clone()),
            Box::new(self.tunnels.clone()),
            Box::new(self.rejections.clone()),
        ]
    }

    pub(crate) fn request(
        &self,
        client: ClientKind,
        kind: RequestKind,
        status: u16,
        first_byte: Duration,
        total: Duration,
    ) {
        let labels = [client.label(), kind.label(), &status.to_string()];
        self.requests.with_label_values(&labels).inc();
        let kind = [kind.label()];
        self.first_byte
            .with_label_values(&kind)
            .observe(first_byte.as_secs_f64());
        self.duration
            .with_label_values(&kind)
            .observe(total.as_secs_f64());
    }

    pub(crate) fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    pub(crate) fn bytes(&self, origin: ByteOrigin, bytes: u64) {
        self.bytes
            .with_label_values(&[origin.label()])
            .inc_by(bytes);
    }

    pub(crate) fn refusal(&self, fault: Fault) {
        self.refusals.with_label_values(&[fault.label()]).inc();
    }

    pub(crate) fn connect(&self, way: ConnectWay) {
        self.connects.with_label_values(&[way.label()]).inc();
    }

    pub(crate) fn tunnel_bytes(&self, direction: Direction) -> IntCounter {
        self.tunnel_bytes.with_label_values(&[direction.label()])
    }

    pub(crate) fn right(&self, answer: RightAnswer) {
        self.rights.with_label_values(&[answer.label()]).inc();
    }

    pub(crate) fn tag(&self, answer: TagAnswer) {
        self.tags.with_label_values(&[answer.label()]).inc();
    }
}

// === impl OpenConnection ===

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl ConnectWay, Direction ===

impl ConnectWay {
    const ALL: [Self; 3] = [Self::Intercepted, Self::Tunnelled, Self::Refused];

    pub fn label(self) -> &'static str {
        match self {
            Self::Intercepted => "intercepted",
            Self::Tunnelled => "tunnelled",
            Self::Refused => "refused",
        }
    }
}

impl Direction {
    const ALL: [Self; 2] = [Self::Up, Self::Down];

    pub fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

// === impl RequestKind, ByteOrigin, TagAnswer ===

impl RequestKind {
    pub fn label(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Blob => "blob",
            Self::Manifest => "manifest",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Through => "through",
            Self::Token => "token",
            Self::Other => "other",
        }
    }
}

impl RightAnswer {
    pub fn label(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Asked => "asked",
            Self::Grace => "grace",
            Self::Refused => "refused",
        }
    }
}

impl ByteOrigin {
    pub fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Joined => "joined",
            Self::Swarm => "swarm",
            Self::Source => "source",
        }
    }
}

impl TagAnswer {
    pub fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Asked => "asked",
            Self::Stale => "stale",
            Self::Held => "held",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_and_no_others_are_counted() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let second = Duration::from_secs(1);
        metrics.request(ClientKind::Docker, RequestKind::Blob, 200, second, second);
        metrics.bytes(ByteOrigin::Hit, 1);
        metrics.refusal(Fault::Slow);
        metrics.tag(TagAnswer::Stale);
        metrics.right(RightAnswer::Known);
        let seen: Vec<String> = registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        let expect = [
            "darter_proxy_bytes_total",
            "darter_proxy_certificate_rejections_total",
            "darter_proxy_connections",
            "darter_proxy_connects_total",
            "darter_proxy_cut_total",
            "darter_proxy_first_byte_seconds",
            "darter_proxy_refusals_total",
            "darter_proxy_request_seconds",
            "darter_proxy_requests_total",
            "darter_proxy_rights_total",
            "darter_proxy_tags_total",
            "darter_proxy_tunnel_bytes_total",
            "darter_proxy_tunnels",
        ];
        assert_eq!(seen, expect);
    }
}
