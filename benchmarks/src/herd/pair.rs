//! One pair of hosts on an unshaped link, the loopback: what one holds is fetched through the other,
//! against a bare TLS copy that hashes and writes the same bytes.

use anyhow::Result;

use crate::{
    processor, sealed,
    table::{Comparison, Goal, Pair, Unit},
    upstream::{Content, Upstream},
};

const GIGABYTE: f64 = 1e9;

/// One copy: by how much a second, and what it took of the processors at both ends.
struct Copied {
    gigabytes_per_second: f64,
    cpu_seconds_per_gigabyte: f64,
}

/// Copies a blob of `size` in both ways, in turn, after one round that does not count.
pub(crate) fn copies(rounds: usize, size: u64) -> Result<Vec<Comparison>> {
    let upstream = Upstream::start()?;
    let content = upstream.push_noise(size)?;
    let mut measured = Vec::new();
    for round in 0..=rounds {
        let copied = (by_darter(&upstream, &content)?, bare(&upstream, &content)?);
        if round > 0 {
            measured.push(copied);
        }
    }
    let compare = |name: &str, unit, value: fn(&Copied) -> f64, goal| Comparison {
        what: format!("one pair, {name}"),
        against: "bare TLS",
        unit,
        rounds: measured
            .iter()
            .map(|(darter, other)| Pair {
                darter: value(darter),
                other: value(other),
            })
            .collect(),
        goal,
    };
    Ok(vec![
        compare(
            "throughput",
            Unit::GigabytesPerSecond,
            |copied| copied.gigabytes_per_second,
            Some(Goal::RatioAtLeast(0.9)),
        ),
        compare(
            "processor",
            Unit::CpuSecondsPerGigabyte,
            |copied| copied.cpu_seconds_per_gigabyte,
            None,
        ),
    ])
}

fn by_darter(upstream: &Upstream, content: &Content) -> Result<Copied> {
    let hosts = upstream.hosts()?;
    content.through(&hosts.first)?.fetch()?;
    let target = content.through(&hosts.second)?;
    let spent = || -> Result<f64> {
        let both = [&hosts.first, &hosts.second].map(|host| host.darter.id());
        both.into_iter().map(processor::seconds).sum()
    };
    let before = spent()?;
    let fetched = target.fetch()?;
    let cpu_seconds = spent()? - before;
    Ok(Copied::of(
        content,
        fetched.total.as_secs_f64(),
        cpu_seconds,
    ))
}

fn bare(upstream: &Upstream, content: &Content) -> Result<Copied> {
    let directory = tempfile::Builder::new().prefix("darter-bare-").tempdir()?;
    let file = content.in_registry(&upstream.registry_directory());
    let copied = sealed::copy(&file, directory.path())?;
    Ok(Copied::of(content, copied.seconds, copied.cpu_seconds))
}

// === impl Copied ===

impl Copied {
    fn of(content: &Content, seconds: f64, cpu_seconds: f64) -> Self {
        let gigabytes = content.size as f64 / GIGABYTE;
        Self {
            gigabytes_per_second: gigabytes / seconds,
            cpu_seconds_per_gigabyte: cpu_seconds / gigabytes,
        }
    }
}
