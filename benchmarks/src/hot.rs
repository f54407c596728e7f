//! What Darter holds already, against nginx giving out the same file: a big blob by throughput, a
//! manifest and a small blob by requests.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;

use crate::{
    load::{Target, milliseconds},
    nginx::Nginx,
    processor,
    statistics::Series,
    table::{Comparison, Goal, Pair, Unit},
    terminal::note,
    upstream::{Content, Hosts, Upstream},
};

/// Fetches of the big blob in one measurement, in all: enough for the kernel's clock of processor
/// time, which counts in hundredths of a second.
const FETCHES: usize = 4;

const CLIENTS: [usize; 2] = [1, 4];

const CONNECTIONS: usize = 4;

const ASK_FOR: Duration = Duration::from_secs(2);

const GIGABYTE: f64 = 1e9;

/// A server, and the process whose time it takes.
struct Server {
    target: Target,
    process: u32,
}

/// What one measurement of throughput came to.
struct Throughput {
    gigabytes_per_second: f64,
    cpu_seconds_per_gigabyte: f64,
    /// Processor seconds of the clients for each of the server.
    client_share: f64,
}

/// What one measurement of requests came to.
struct Requests {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// A Darter that holds the content, and nginx with the file in which it does.
struct Stage {
    darter: Server,
    nginx: Server,
    _running: (Hosts, Nginx),
}

// === impl Stage ===

impl Stage {
    fn open(upstream: &Upstream, content: &Content) -> Result<Self> {
        let hosts = upstream.hosts()?;
        let target = content.through(&hosts.first)?;
        target.fetch()?;
        let file = content.stored_by(&hosts.first);
        let nginx = Nginx::start(&[("content", &file)])?;
        Ok(Self {
            darter: Server {
                target,
                process: hosts.first.darter.id(),
            },
            nginx: Server {
                target: nginx_target(nginx.address, content),
                process: nginx.id(),
            },
            _running: (hosts, nginx),
        })
    }
}

// === impl Server ===

impl Server {
    fn throughput(&self, clients: usize) -> Result<Throughput> {
        let (server, own) = (processor::seconds(self.process)?, processor::own_seconds()?);
        let took = self.target.fetch_at_once(clients, FETCHES / clients)?;
        let server = processor::seconds(self.process)? - server;
        let gigabytes = (self.target.size * FETCHES as u64) as f64 / GIGABYTE;
        Ok(Throughput {
            gigabytes_per_second: gigabytes / took.as_secs_f64(),
            cpu_seconds_per_gigabyte: server / gigabytes,
            client_share: (processor::own_seconds()? - own) / server,
        })
    }

    fn requests(&self) -> Result<Requests> {
        let latencies = self.target.ask_for(CONNECTIONS, ASK_FOR)?;
        let per_second = latencies.len() as f64 / ASK_FOR.as_secs_f64();
        let series = Series::new(latencies.into_iter().map(milliseconds).collect());
        Ok(Requests {
            per_second,
            p50_ms: series.percentile(0.5),
            p99_ms: series.percentile(0.99),
        })
    }
}

/// Big blobs: throughput and processor time, by one client and by several.
pub(crate) fn blob(upstream: &Upstream, rounds: usize, size: u64) -> Result<Vec<Comparison>> {
    let content = upstream.push_noise(size)?;
    let stage = Stage::open(upstream, &content)?;
    let mut comparisons = Vec::new();
    for clients in CLIENTS {
        let measured = alternating(rounds, &stage, |server| server.throughput(clients))?;
        let share = |side: fn(&(Throughput, Throughput)) -> &Throughput| {
            let shares = measured.iter().map(|round| side(round).client_share);
            Series::new(shares.collect()).median()
        };
        note(&format!(
            "hot blob, clients {clients}: for each processor second of the server the load \
             generator took {:.1} (Darter), {:.1} (nginx)",
            share(|round| &round.0),
            share(|round| &round.1),
        ));
        let what = |unit| format!("hot blob, clients {clients}, {unit}");
        comparisons.push(compare(
            what("throughput"),
            Unit::GigabytesPerSecond,
            &measured,
            |side| side.gigabytes_per_second,
            Some(Goal::RatioAtLeast(0.9)),
        ));
        comparisons.push(compare(
            what("processor"),
            Unit::CpuSecondsPerGigabyte,
            &measured,
            |side| side.cpu_seconds_per_gigabyte,
            None,
        ));
    }
    Ok(comparisons)
}

/// A manifest and a blob of `size`: requests per second and how long each takes.
pub(crate) fn small(upstream: &Upstream, rounds: usize, size: u64) -> Result<Vec<Comparison>> {
    let blob = upstream.push_noise(size)?;
    let manifest = upstream.push_manifest(&blob, size)?;
    let mut comparisons = Vec::new();
    for (name, content) in [("manifest", manifest), ("small blob", blob)] {
        let stage = Stage::open(upstream, &content)?;
        let measured = alternating(rounds, &stage, Server::requests)?;
        let what = |what: &str| format!("hot {name}, {what}");
        let ms = Unit::Milliseconds;
        let goal = Some(Goal::RatioAtLeast(0.5));
        let unit = Unit::RequestsPerSecond;
        comparisons.extend([
            compare(
                what("requests"),
                unit,
                &measured,
                |side| side.per_second,
                goal,
            ),
            compare(
                what("p50"),
                ms,
                &measured,
                |side| side.p50_ms,
                Some(Goal::DarterAtMost(1.0)),
            ),
            compare(
                what("p99"),
                ms,
                &measured,
                |side| side.p99_ms,
                Some(Goal::DarterAtMost(3.0)),
            ),
        ]);
    }
    Ok(comparisons)
}

/// Measures Darter and nginx in turn, after one round that does not count.
fn alternating<T>(
    rounds: usize,
    stage: &Stage,
    measure: impl Fn(&Server) -> Result<T>,
) -> Result<Vec<(T, T)>> {
    let round = |_| Ok((measure(&stage.darter)?, measure(&stage.nginx)?));
    round(0)?;
    (0..rounds).map(round).collect()
}

fn compare<T>(
    what: String,
    unit: Unit,
    measured: &[(T, T)],
    value: impl Fn(&T) -> f64,
    goal: Option<Goal>,
) -> Comparison {
    let pair = |(darter, other): &(T, T)| Pair {
        darter: value(darter),
        other: value(other),
    };
    Comparison {
        what,
        against: "nginx",
        unit,
        rounds: measured.iter().map(pair).collect(),
        goal,
    }
}

fn nginx_target(address: SocketAddr, content: &Content) -> Target {
    Target {
        address,
        path: "/content".to_owned(),
        size: content.size,
    }
}
