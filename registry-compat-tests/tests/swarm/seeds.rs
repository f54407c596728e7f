//! The host that fetches for all is killed, stopped or cut off in the middle of the blob: another one
//! fetches what is missing, no client sees an error, and the registry sends little twice.

use std::time::Duration;

use anyhow::{Context as _, Result};
use protocol::{TaskId, ring};
use registry_compat_tests::{
    cable::Cable,
    cluster::{Cluster, Member},
    fault_registry::{Fault, Times, Trickle},
    process::wait_until,
};

use super::{HERD_LIMIT, Herd, Shape, can_herd, pull, pull_while, pull_within, source::Source};

const SIZE: usize = 48 << 20;

/// What the registry sends until the fetcher is gone.
const HALF: usize = SIZE / 2;

/// How far the slowest client is by then: what is newest is told to one host first.
const HAD: u64 = 16 << 20;

/// The most that may be sent of each byte of the blob: itself, and what the lost fetcher had that
/// nobody else had yet. Nothing is on its way to it: the registry has stopped.
const SENT_MAX: f64 = 1.1;

const TWO_SEEDS: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed-a", "seed-b"],
    hosts: 6,
};
const ONE_SEED: Shape = Shape {
    seeds: &["seed"],
    ..TWO_SEEDS
};
const NO_SEED: Shape = Shape {
    seeds: &[],
    ..TWO_SEEDS
};

/// How a host is lost.
type Loss = fn(Member) -> Result<Option<Member>>;

fn kill(member: Member) -> Result<Option<Member>> {
    member.kill().map(|_| None)
}

/// It is there, and says nothing more.
fn freeze(member: Member) -> Result<Option<Member>> {
    member.darter.signal("STOP")?;
    Ok(Some(member))
}

impl Herd {
    /// Which of the seeds the ring names for `source`.
    pub(super) fn ring_seed(&self, source: &Source) -> Result<usize> {
        let task = TaskId(source.blob.digest.parse()?);
        let seeds = &self.cluster.view.seeds;
        let fetcher = ring::responsible(task, seeds.iter().map(|seed| &seed.id));
        let fetcher = fetcher.context("there is a seed")?;
        let at = self
            .seeds
            .iter()
            .position(|seed| seed.id() == fetcher.as_str());
        at.context("the seed runs")
    }

    /// Takes out the seed that the ring names for `source`.
    pub(super) fn take_seed(&mut self, source: &Source) -> Result<Member> {
        let at = self.ring_seed(source)?;
        Ok(self.seeds.remove(at))
    }
}

/// All hosts pull while the one that fetches for them is lost half way through.
fn seed_is_lost(name: &str, shape: Shape, lose: Loss) -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::held_once_at(name, SIZE, HALF)?;
    let mut herd = Herd::start(source.address(), shape)?;
    let proxies = herd.proxies()?;
    let mut lost = None;
    let pulled = pull_while(&proxies, &source.blob, |taken| {
        taken.wait_beyond(HAD)?;
        lost = lose(herd.take_seed(&source)?)?;
        Ok(())
    });
    let held = pulled.and_then(|()| source.sent_at_most(SENT_MAX));
    drop(lost);
    herd.told(held)
}

#[test]
fn when_the_seed_is_killed_half_way_the_other_seed_fetches_the_rest() -> Result<()> {
    seed_is_lost("killed", TWO_SEEDS, kill)
}

#[test]
fn when_the_only_seed_is_killed_half_way_a_host_fetches_the_rest() -> Result<()> {
    seed_is_lost("only", ONE_SEED, kill)
}

#[test]
fn when_the_seed_stands_still_half_way_the_other_seed_fetches_the_rest() -> Result<()> {
    seed_is_lost("frozen", TWO_SEEDS, freeze)
}

#[test]
fn when_the_only_seed_stands_still_half_way_a_host_fetches_the_rest() -> Result<()> {
    seed_is_lost("only-frozen", ONE_SEED, freeze)
}

/// What the seed can say to the hosts before it is cut off: less than the blob once.
const SAID: u64 = 6 << 20;

/// What a seed that is cut off is still given, for longer than anybody should wait for it.
const STILL_MOVES: Trickle = Trickle {
    first_after: Duration::ZERO,
    step: 1 << 20,
    every: Duration::from_millis(1500),
    steps: 40,
};

/// The longest that hosts may go without what the seed has: the 20 s in which they see that its stream
/// is dead, the 20 s in which a scheduler sees that they starve, and as long again on two busy cores.
const CUT_LIMIT: Duration = Duration::from_secs(80);

/// All hosts pull while the seed is cut off from them, though not from the scheduler, which hears both.
/// What they do not have of its fetch is fetched anew, and that once.
fn seed_is_cut_off(source: &Source) -> Result<()> {
    let cluster = Cluster::of(source.address(), ONE_SEED.schedulers, ONE_SEED.seeds)?;
    let cable = Cable::start(cluster.seed().address, SAID)?;
    let herd = Herd::start_in(cluster, ONE_SEED, |mut plan| {
        plan.view.seeds[0].address = cable.address();
        if plan.id == "seed" {
            plan.swarm = format!("advertise = \"{}\"", cable.address());
        }
        plan
    })?;
    let pulled = pull_within(CUT_LIMIT, &herd.proxies()?, &source.blob, |_| {
        wait_until("the seed is cut off", HERD_LIMIT, || cable.is_cut())
    });
    herd.told(pulled.and_then(|()| source.sent_at_most(2.0)))
}

#[test]
fn a_seed_that_has_it_all_and_is_cut_off_from_the_hosts_is_replaced() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    seed_is_cut_off(&Source::new("cut-seed", SIZE)?)
}

#[test]
fn a_seed_that_goes_on_and_is_cut_off_from_the_hosts_is_replaced() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let fault = Fault::Trickles(STILL_MOVES);
    let source = Source::failing("cut-moving-seed", SIZE, Times::First(1), fault)?;
    seed_is_cut_off(&source)
}

/// The fetcher is a host like all others, whose own client is lost with it.
#[test]
fn without_a_seed_another_host_goes_on_for_the_one_that_is_killed() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::held_once_at("granted", SIZE, HALF)?;
    let mut herd = Herd::start(source.address(), NO_SEED)?;
    let proxies = herd.proxies()?;
    let pulled = std::thread::scope(|scope| {
        // It comes first, and so it is granted.
        let first = scope.spawn(|| pull(&proxies[..1], &source.blob));
        source.wait_for_fetches(1)?;
        let pulled = pull_while(&proxies[1..], &source.blob, |taken| {
            taken.wait_beyond(HAD)?;
            herd.hosts.remove(0).kill().map(drop)
        });
        // Its client has seen its end.
        drop(first.join());
        pulled
    });
    let held = pulled.and_then(|()| source.sent_at_most(SENT_MAX));
    herd.told(held)
}
