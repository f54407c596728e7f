//! Many hosts that want one cold image at the same moment: by Darter, by BitTorrent, through caches
//! and straight from the registry, in network namespaces with shaped links. And one pair of hosts
//! whose link is not shaped.
//!
//! `cargo run --release -p benchmarks -- herd`

mod ground;
mod meter;
mod method;
mod outcome;
mod pair;
mod plot;
pub(crate) mod pull;
mod torrent;
pub(crate) mod tracker;

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use registry_compat_tests::{
    can_run,
    process::{self, Stopwatch},
};

use self::{
    ground::{FIRST, Ground, HELPER, Image},
    meter::Meter,
    method::{Method, Servers},
    outcome::{Herd, Outcome, Row},
    pull::Pulled,
};
use crate::{
    circumstances, errand, prepare, root,
    scratch::Scratch,
    table,
    terminal::{note, say},
};

/// Compares herds of hosts that want one cold image at the same moment.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Hosts of a herd; several numbers are several herds.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 8])]
    hosts: Vec<usize>,
    /// What each host's link carries each way, in Mbit/s.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// The image of one blob.
    #[arg(long, default_value = "256MiB")]
    size: ByteSize,
    /// Each blob of the image of ten.
    #[arg(long, default_value = "25MiB")]
    layer_size: ByteSize,
    /// The blob that one host fetches from one other over an unshaped link.
    #[arg(long, default_value = "1GiB")]
    pair_size: ByteSize,
    /// Rounds; one for the methods by which all bytes come from one host.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure these alone.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Measure these methods alone.
    #[arg(long, value_delimiter = ',')]
    by: Vec<Method>,
    /// Where to put the plot.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Runs with a debug build too, to see that everything works; its numbers mean nothing.
    #[arg(long, hide = true)]
    rehearse: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One blob.
    Blob,
    /// Ten blobs.
    Layers,
    /// One pair of hosts.
    Pair,
}

const LAYERS: usize = 10;

/// A herd that takes longer has lost its way.
const HERD_LIMIT: Duration = Duration::from_secs(1800);

/// The share by which what a link carries may fall short of what it was told to.
const SHORTFALL_MAX: f64 = 0.15;

/// What the namespaces have it from.
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

const PROGRAMS: [&str; 12] = [
    "aria2c",
    "cat",
    "docker-registry",
    "ip",
    "nginx",
    "nsenter",
    "setpriv",
    "sha1sum",
    "split",
    "tc",
    "unshare",
    "sh",
];

const PACKAGES: &str = "aria2 docker-registry iproute2 nginx-light";

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        can_run(&PROGRAMS)?,
        "nothing can be measured here; on Debian: apt-get install {PACKAGES}"
    );
    if !options.rehearse {
        prepare(&PROGRAMS)?;
    }
    let watch = Stopwatch::start();
    let _scratch = Scratch::open()?;
    let mut has_failed = false;
    say(&format!("{}.\n", circumstances()?));
    if options.wants(Part::Blob) || options.wants(Part::Layers) {
        let herds = herds(options)?;
        let processors = thread::available_parallelism()?.get();
        say(&outcome::render(&herds, processors));
        options.draw(&herds)?;
        let mut rows = herds.iter().flat_map(|herd| &herd.rows);
        has_failed = rows.any(|row| row.rounds.is_empty());
    }
    if options.wants(Part::Pair) {
        note("measuring one pair");
        let copies = pair::copies(options.rounds, options.pair_size.as_u64())?;
        say(&format!("One blob of {}.\n", options.pair_size));
        say(&table::render(&copies));
    }
    note(&format!("took {:.0?}", watch.elapsed()));
    ensure!(!has_failed, "not every herd had its image");
    Ok(())
}

fn herds(options: &Options) -> Result<Vec<Herd>> {
    let most = options.hosts.iter().copied().max().unwrap_or_default();
    ensure!(most > 1, "one host is no herd");
    let rate = options.rate * 1_000_000;
    note(&format!("making {most} hosts and copying over their links"));
    let ground = Ground::open(most, rate, options.size.as_u64())?;
    let mbit = |rate: f64| rate * 8.0 / 1e6;
    let rates = &ground.rates;
    let lowest = rates.source.min(rates.helper).min(rates.host);
    say(&format!(
        "Links of {} Mbit/s each way; one bare TCP copy of {} reaches {:.1} Mbit/s from the \
         registry, {:.1} from the helper, {:.1} between two hosts. {} rounds, TCP with {}.\n",
        options.rate,
        options.size,
        mbit(rates.source),
        mbit(rates.helper),
        mbit(rates.host),
        options.rounds,
        fs::read_to_string(CONGESTION_CONTROL)?.trim(),
    ));
    if mbit(lowest) < (1.0 - SHORTFALL_MAX) * options.rate as f64 {
        bail!("the links do not carry what they should: is the machine busy?");
    }
    let mut images = Vec::new();
    if options.wants(Part::Blob) {
        let size = options.size;
        images.push(ground.push(&format!("1 × {size}"), 1, size.as_u64())?);
    }
    if options.wants(Part::Layers) {
        let size = options.layer_size;
        images.push(ground.push(&format!("{LAYERS} × {size}"), LAYERS, size.as_u64())?);
    }
    let mut herds = Vec::new();
    for image in &images {
        for &hosts in &options.hosts {
            herds.push(herd(options, &ground, image, hosts));
        }
    }
    Ok(herds)
}

/// Every method in turn, and again for each further round.
fn herd(options: &Options, ground: &Ground, image: &Image, hosts: usize) -> Herd {
    let methods = Method::value_variants()
        .iter()
        .filter(|method| options.by.is_empty() || options.by.contains(method));
    let mut rows: Vec<Row> = methods
        .map(|&method| Row {
            method,
            rounds: Vec::new(),
        })
        .collect();
    let mut failed = Vec::new();
    for round in 0..options.rounds {
        for row in &mut rows {
            let method = row.method;
            if failed.contains(&method) || round > 0 && method.has_one_giver() {
                continue;
            }
            let what = format!("{hosts} hosts, {}, {}", image.name, method.name());
            match one(ground, method, image, hosts) {
                Ok(outcome) => {
                    note(&format!("{what}: {:.2} s", outcome.makespan()));
                    row.rounds.push(outcome);
                }
                Err(error) => {
                    note(&format!("{what} failed: {error:#}"));
                    failed.push(method);
                }
            }
        }
    }
    for row in &mut rows {
        if failed.contains(&row.method) {
            row.rounds.clear();
        }
    }
    Herd {
        image: image.name.clone(),
        image_bytes: image.size(),
        hosts,
        bound: ground.rates.bound(hosts, image.size()),
        rows,
    }
}

/// One herd by one method: nobody has anything at its start, and nothing of it is left at its end.
fn one(ground: &Ground, method: Method, image: &Image, hosts: usize) -> Result<Outcome> {
    let servers = match method {
        Method::Bittorrent => return torrent::run(ground, image, hosts),
        Method::Darter => Servers::darter(ground, hosts)?,
        Method::Nginx => Servers::nginx(ground, hosts)?,
        Method::Distribution => Servers::distribution(ground, hosts)?,
        Method::Direct => Servers::none(ground, hosts),
    };
    let mut processes = servers.processes.clone();
    processes.push(ground.registry.id());
    let (given, helped) = (ground.blob_bytes()?, ground.given_by(HELPER)?);
    let meter = Meter::start(&processes)?;
    let pulled = pull(ground, &servers, image)?;
    let spent = meter.read()?;
    let helped = ground.given_by(HELPER)? - helped;
    let seconds = |time: fn(&Pulled) -> Duration| {
        let times = pulled.iter().map(|pull| time(pull).as_secs_f64());
        times.collect::<Vec<_>>()
    };
    let of_clients: f64 = pulled.iter().map(|pull| pull.cpu_seconds).sum();
    Ok(Outcome {
        totals: seconds(|pull| pull.total),
        first_bytes: seconds(|pull| pull.first_byte),
        upstream_bytes: (ground.blob_bytes()? - given) as f64,
        helper_bytes: helped,
        cpu_seconds: spent.cpu_seconds + of_clients,
        peak_memory: meter::peak_memory(&servers.processes)?,
        busy: spent.busy,
    })
}

/// Lets one client on each host loose, all at the same moment.
fn pull(ground: &Ground, servers: &Servers, image: &Image) -> Result<Vec<Pulled>> {
    let paths = image.paths(servers.query);
    let client = |host: usize| -> Result<Pulled> {
        let mut command = errand::own(ground.on(FIRST + host))?;
        let door = servers.doors[host].to_string();
        command.arg("pull").arg(door).args(&paths);
        let told = process::check(command, HERD_LIMIT)?;
        Pulled::read(&told).context(told)
    };
    let client = &client;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..servers.doors.len())
            .map(|host| scope.spawn(move || client(host)))
            .collect();
        let ended = clients.into_iter();
        ended
            .map(|client| client.join().ok().context("a client panicked")?)
            .collect()
    })
}

// === impl Options ===

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn draw(&self, herds: &[Herd]) -> Result<()> {
        let usual = root().join("benchmarks/herd.svg");
        let file = match (&self.plot, self.rehearse) {
            (Some(file), _) => file,
            (None, false) => &usual,
            (None, true) => return Ok(()),
        };
        let caption = format!("{}, {} Mbit/s each way", circumstances()?, self.rate);
        fs::write(file, plot::svg(herds, &caption))?;
        note(&format!("the plot is in {}", file.display()));
        Ok(())
    }
}
