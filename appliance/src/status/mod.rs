//! What a running node says of itself to `darter status`.

mod scheduler;

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use http::Method;
use prometheus::{Registry, proto::MetricFamily};
use protocol::operator::LISTED_MAX;
use serde::{Deserialize, Serialize};
use swarm::Swarm;
use tokio::sync::watch;

use self::scheduler::SchedulerView;
use crate::{admin::Phase, control::client, node::Endpoint, operators::Operators, terminal};

/// Where the answers to `darter status` are taken from.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) roles: Vec<String>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) registry: Registry,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) swarm: Swarm,
    pub(crate) operators: Operators,
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
    /// Schedulers that this host has a session with, of those that it knows.
    sessions: Sessions,
    /// What this host is fetching now.
    downloads: Vec<Download>,
    /// Of a node with the scheduler role.
    scheduler: Option<SchedulerView>,
    /// Bytes sent to clients, by where they came from.
    bytes: BTreeMap<String, u64>,
    /// Bytes that this host has got and given.
    moved: Moved,
    /// Every other number that has no label of its own.
    numbers: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Sessions {
    open: usize,
    known: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Download {
    task: String,
    pieces: u32,
    total: Option<u32>,
}

/// Bytes between this host and everybody but its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Moved {
    /// Got from registries.
    source: u64,
    /// Got from other hosts.
    swarm: u64,
    /// Given to other hosts.
    uploaded: u64,
}

/// How `darter status` is shown.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct View {
    /// Show it anew every second, until interrupted.
    #[arg(long)]
    watch: bool,
    /// As JSON, for programs: one line each time.
    #[arg(long)]
    json: bool,
}

/// How often a watched status is shown.
const REFRESH: Duration = Duration::from_secs(1);

/// Where bytes come from that clients are given.
const ORIGINS: [&str; 4] = ["hit", "joined", "swarm", "source"];

/// The counter of bytes that clients were given.
const BYTES: &str = "darter_proxy_bytes_total";

// === impl Overview ===

impl Overview {
    pub(crate) async fn status(&self) -> Status {
        let scheduler = match &self.operators.local {
            Some(operator) => operator.snapshot(LISTED_MAX).await.ok(),
            None => None,
        };
        let (open, known) = self.swarm.sessions();
        let download = |(task, pieces, total): (protocol::TaskId, u32, Option<u32>)| Download {
            task: task.to_string(),
            pieces,
            total,
        };
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
            sessions: Sessions { open, known },
            downloads: self.swarm.downloads().into_iter().map(download).collect(),
            scheduler: scheduler.map(SchedulerView::from),
            bytes: bytes_by_origin(&families),
            moved: Moved {
                source: counted(&families, "darter_source_bytes_total"),
                swarm: counted(&families, "darter_swarm_piece_fetch_bytes_total"),
                uploaded: counted(&families, "darter_swarm_upload_bytes_total"),
            },
            numbers: numbers(&families),
        }
    }
}

/// Asks the node on one of `data_dirs` and shows what it says.
pub(crate) fn show(data_dirs: &[PathBuf], view: View) -> anyhow::Result<()> {
    loop {
        let status: Status = client::ask(data_dirs, &Method::GET, "/status")?;
        let text = match view.json {
            true => serde_json::to_string(&status)?,
            false => status.to_string(),
        };
        if !view.watch {
            terminal::say(&text);
            return Ok(());
        }
        match view.json {
            true => terminal::say(&text),
            false => terminal::say_anew(&text),
        }
        std::thread::sleep(REFRESH);
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
    let none = ORIGINS.map(|origin| (origin.to_owned(), 0));
    none.into_iter().chain(by_origin).collect()
}

/// A counter that has no label.
fn counted(families: &[MetricFamily], name: &str) -> u64 {
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.into_iter().flat_map(MetricFamily::get_metric);
    metrics
        .map(|metric| metric.get_counter().get_value() as u64)
        .sum()
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
        let parts: Vec<String> = ORIGINS
            .iter()
            .map(|origin| format!("{} {origin}", bytes(origin)))
            .collect();
        writeln!(f, "given      {}", parts.join(", "))?;
        let size = bytesize::ByteSize::b;
        let Moved {
            source,
            swarm,
            uploaded,
        } = self.moved;
        let (source, swarm, uploaded) = (size(source), size(swarm), size(uploaded));
        writeln!(
            f,
            "got        {source} from registries, {swarm} from other hosts; gave them {uploaded}"
        )?;
        let Sessions { open, known } = self.sessions;
        write!(f, "sessions   {open} of {known} schedulers")?;
        for Download {
            task,
            pieces,
            total,
        } in &self.downloads
        {
            let total = total.map_or("?".to_owned(), |total| total.to_string());
            write!(f, "\nfetching   {task} {pieces}/{total} pieces")?;
        }
        if let Some(scheduler) = &self.scheduler {
            write!(f, "\n{scheduler}")?;
        }
        for (name, value) in &self.numbers {
            write!(f, "\n{name}: {value}")?;
        }
        Ok(())
    }
}
