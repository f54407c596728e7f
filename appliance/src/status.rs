//! What a running node says of itself to `darter status`.

use std::{collections::BTreeMap, fmt};

use prometheus::{Registry, proto::MetricFamily};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{admin::Phase, node::Endpoint};

/// Where the answers to `darter status` are taken from.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) roles: Vec<String>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) registry: Registry,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// The answer to `darter status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    version: String,
    pid: u32,
    phase: String,
    roles: Vec<String>,
    /// Addresses by listener.
    listeners: BTreeMap<String, Vec<String>>,
    /// Bytes sent to clients, by where they came from.
    bytes: BTreeMap<String, u64>,
    /// Every other number that has no label of its own.
    numbers: BTreeMap<String, u64>,
}

/// The counter of bytes that clients were given.
const BYTES: &str = "darter_proxy_bytes_total";

// === impl Overview ===

impl Overview {
    pub(crate) fn status(&self) -> Status {
        let families = self.registry.gather();
        let phase = match *self.phase.borrow() {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        };
        let listener = |endpoint: &Endpoint| {
            let addresses = endpoint.addresses.iter().map(ToString::to_string).collect();
            (endpoint.name.label().to_owned(), addresses)
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            phase: phase.to_owned(),
            roles: self.roles.clone(),
            listeners: self.endpoints.iter().map(listener).collect(),
            bytes: bytes_by_origin(&families),
            numbers: numbers(&families),
        }
    }
}

fn bytes_by_origin(families: &[MetricFamily]) -> BTreeMap<String, u64> {
    let metrics = families
        .iter()
        .filter(|family| family.name() == BYTES)
        .flat_map(MetricFamily::get_metric);
    let by_origin = metrics.filter_map(|metric| {
        let origin = metric
            .get_label()
            .iter()
            .find(|label| label.name() == "origin")?;
        Some((
            origin.value().to_owned(),
            metric.get_counter().get_value() as u64,
        ))
    });
    by_origin.collect()
}

/// The gauges that have no label: tasks, pieces, hosts, bytes kept.
fn numbers(families: &[MetricFamily]) -> BTreeMap<String, u64> {
    let is_gauge =
        |family: &&MetricFamily| family.get_field_type() == prometheus::proto::MetricType::GAUGE;
    let plain = |family: &MetricFamily| {
        let [metric] = family.get_metric() else {
            return None;
        };
        let unlabelled = metric.get_label().is_empty();
        let name = family
            .name()
            .trim_start_matches("darter_")
            .replace('_', " ");
        unlabelled.then(|| (name, metric.get_gauge().get_value() as u64))
    };
    families.iter().filter(is_gauge).filter_map(plain).collect()
}

// === impl Status ===

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "darter {} (pid {}), {}",
            self.version, self.pid, self.phase
        )?;
        writeln!(f, "roles      {}", self.roles.join(", "))?;
        for (name, addresses) in &self.listeners {
            writeln!(f, "{name:<10} {}", addresses.join(" and "))?;
        }
        let bytes = |origin: &str| bytesize::ByteSize(self.bytes.get(origin).copied().unwrap_or(0));
        let origins = ["hit", "joined", "swarm", "source"];
        let parts: Vec<String> = origins
            .iter()
            .map(|origin| format!("{} {origin}", bytes(origin)))
            .collect();
        write!(f, "given      {}", parts.join(", "))?;
        for (name, value) in &self.numbers {
            write!(f, "\n{name}: {value}")?;
        }
        Ok(())
    }
}
