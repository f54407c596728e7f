//! Darter beside what it is compared with, in one run on one machine: side by side, in turn, over
//! several rounds; medians, spread and ratios as a Markdown table.
//!
//! `cargo run --release -p benchmarks`, and `… -- herd` for many hosts at once

mod cold;
mod copy;
mod errand;
mod herd;
mod hot;
mod link;
mod load;
mod nginx;
mod processor;
mod scratch;
mod sealed;
mod statistics;
mod table;
mod terminal;
mod upstream;

use std::{path::Path, process::Command, thread::available_parallelism, time::SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use bytesize::ByteSize;
use clap::{Parser, ValueEnum};
use registry_compat_tests::{can_run, process::Stopwatch};

use crate::{
    errand::Errand,
    scratch::Scratch,
    terminal::{note, say},
    upstream::Upstream,
};

/// Compares Darter with nginx, with the registry itself, and a second host with the first.
#[derive(Debug, Parser)]
#[command(name = "benchmarks")]
struct Options {
    #[command(subcommand)]
    errand: Option<Errand>,
    /// Measure these alone; may be given several times.
    #[arg(long)]
    only: Vec<Subject>,
    /// Rounds that count; one more comes before them.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// The hot blob.
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
    /// The blob that is pulled cold.
    #[arg(long, default_value = "200MiB")]
    cold_size: ByteSize,
    /// The manifest and the small blob.
    #[arg(long, default_value = "10KiB")]
    small_size: ByteSize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    Blob,
    Small,
    Cold,
}

const PROGRAMS: [&str; 7] = [
    "docker-registry",
    "ip",
    "nginx",
    "nsenter",
    "setpriv",
    "tc",
    "unshare",
];

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(errand) = options.errand {
        return errand.run();
    }
    prepare(&PROGRAMS)?;
    let _scratch = Scratch::open()?;
    let watch = Stopwatch::start();
    let upstream = Upstream::start()?;
    let (rounds, mut comparisons) = (options.rounds, Vec::new());
    for subject in Subject::value_variants() {
        if !options.only.is_empty() && !options.only.contains(subject) {
            continue;
        }
        note(&format!("measuring {subject:?}, {rounds} rounds"));
        comparisons.extend(match subject {
            Subject::Blob => hot::blob(&upstream, rounds, options.size.as_u64()),
            Subject::Small => hot::small(&upstream, rounds, options.small_size.as_u64()),
            Subject::Cold => cold::pulls(&upstream, rounds, options.cold_size.as_u64()),
        }?);
    }
    say(&heading(&options)?);
    say(&table::render(&comparisons));
    note(&format!("took {:.0?}", watch.elapsed()));
    Ok(())
}

/// Fails where nothing can be measured, and builds what is.
fn prepare(programs: &[&str]) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!("a debug build measures nothing: cargo run --release -p benchmarks");
    }
    ensure!(can_run(programs)?, "nothing can be measured here");
    build()
}

/// Builds the binary that is measured, in the profile of this program and beside it.
fn build() -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--package", "appliance"])
        .current_dir(root())
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "darter cannot be built");
    Ok(())
}

/// What was measured.
fn heading(options: &Options) -> Result<String> {
    Ok(format!(
        "{}. Hot blob {}, manifest and small blob {}, cold blob {}; medians of {} rounds, in \
         brackets the lowest and the highest.\n",
        circumstances()?,
        options.size,
        options.small_size,
        options.cold_size,
        options.rounds,
    ))
}

/// Which tree is measured, when and on what.
fn circumstances() -> Result<String> {
    let commit = Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .current_dir(root())
        .output()
        .context("git cannot be started")?;
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    Ok(format!(
        "Commit {}, {}, {} cores ({model})",
        String::from_utf8_lossy(&commit.stdout).trim(),
        today(),
        available_parallelism()?,
    ))
}

#[expect(clippy::disallowed_methods, reason = "the report tells its day")]
fn today() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
