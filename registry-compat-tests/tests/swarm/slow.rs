//! An upstream so slow that every client's patience is tested: nobody breaks away to it while the
//! fetcher moves.

use std::time::Duration;

use anyhow::Result;
use registry_compat_tests::fault_registry::{Fault, Times, Trickle};

use super::{Herd, Shape, can_herd, pull, source::Source};

const SIZE: usize = 24 << 20;

/// The head after twenty seconds, then a MiB every three; what is left comes freely.
const SLOW: Trickle = Trickle {
    first_after: Duration::from_secs(20),
    step: 1 << 20,
    every: Duration::from_secs(3),
    steps: 5,
};

fn check(name: &str, seeds: &'static [&'static str]) -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::failing(name, SIZE, Times::Always, Fault::Trickles(SLOW))?;
    let shape = Shape {
        schedulers: &["scheduler"],
        seeds,
        hosts: 6,
    };
    let herd = Herd::start(source.address(), shape)?;
    let pulled = pull(&herd.proxies()?, &source.blob);
    herd.told(pulled.and_then(|()| source.fetched_once()))
}

#[test]
fn nobody_breaks_away_from_a_seed_whose_source_is_slow() -> Result<()> {
    check("slow", &["seed"])
}

#[test]
fn nobody_breaks_away_from_a_host_whose_source_is_slow() -> Result<()> {
    check("slow-host", &[])
}
