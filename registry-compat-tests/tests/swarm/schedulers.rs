//! Schedulers that end, come back blank, stand still, or disagree, and herds that have none: no pull fails, the registry is asked once, and what a scheduler should know it knows again
//! within seconds.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::process::wait_until;

use super::{HERD_LIMIT, Herd, Shape, can_herd, pull, pull_within, source::Source};
use registry_compat_tests::cluster::{Member, Plan};

const SIZE: usize = 32 << 20;

/// What the registry sends until a test has done what it does.
const HALF: usize = SIZE / 2;

/// The part that every host has by then, though what is newest is told to one of them first.
const HAD: u64 = 4 << 20;

/// How long a scheduler that came back may take to know what there is: the longest pause between two
/// tries of a host, and its word.
const BLANK_LIMIT: Duration = Duration::from_secs(15);

const ONE: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed"],
    hosts: 8,
};

/// With a second seed, so that it is to be seen which one fetches.
const ONE_AND_TWO_SEEDS: Shape = Shape {
    seeds: &["seed-a", "seed-b"],
    ..ONE
};

const TWO: Shape = Shape {
    schedulers: &["scheduler-a", "scheduler-b"],
    seeds: &["seed-a", "seed-b"],
    hosts: 8,
};

/// A herd of `shape` pulls a blob whose second half comes when `act` is over; the registry is asked
/// once. What is left of the herd is handed to `after`.
fn check(
    shape: Shape,
    (name, change): (&str, fn(usize, Plan) -> Plan),
    act: impl FnOnce(&mut Herd) -> Result<()>,
    after: impl FnOnce(&Herd, &Source) -> Result<()>,
) -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::held_at(name, SIZE, HALF)?;
    let mut herd = Herd::start_with(source.address(), shape, change)?;
    let proxies = herd.proxies()?;
    let pulled = source.pull_while(&proxies, |taken| {
        taken.wait_beyond(HAD)?;
        act(&mut herd)
    });
    let held = pulled.and_then(|()| source.fetched_once());
    let held = held.and_then(|()| after(&herd, &source));
    herd.told(held)
}

fn unchanged(_: usize, plan: Plan) -> Plan {
    plan
}

/// Even hosts know the first scheduler alone, odd ones the second.
fn each_its_own(number: usize, mut plan: Plan) -> Plan {
    plan.view.schedulers = vec![plan.view.schedulers[number % 2].clone()];
    plan
}

fn nobody(_: usize, mut plan: Plan) -> Plan {
    plan.view.schedulers.clear();
    plan
}

/// Waits until `scheduler` knows of so many hosts, and of the one task.
fn knows(scheduler: &Member, hosts: usize) -> Result<()> {
    let told = |name: &str| scheduler.darter.metric(name).unwrap_or(-1.0);
    let counts = || {
        (
            told("darter_scheduler_hosts"),
            told("darter_scheduler_tasks"),
        )
    };
    let expect = (hosts as f64, 1.0);
    wait_until("the scheduler knows it all", BLANK_LIMIT, || {
        counts() == expect
    })
    .with_context(|| format!("it counts {:?}, not {expect:?}", counts()))
}

/// A herd of `shape` pulls a blob that nobody has, after `lose`; of the seeds that are left the first
/// of the ring fetches it, and nobody else asks the registry.
fn cold_herd_after(
    (name, shape, change): (&str, Shape, fn(usize, Plan) -> Plan),
    lose: impl FnOnce(&mut Herd, &Source) -> Result<()>,
) -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::new(name, SIZE)?;
    let mut herd = Herd::start_with(source.address(), shape, change)?;
    let pulled = lose(&mut herd, &source).and_then(|()| {
        // A seed that was killed is in the ring no more.
        let fetcher = match herd.seeds.len() {
            1 => 0,
            _ => herd.ring_seed(&source)?,
        };
        pull_within(HERD_LIMIT, &herd.proxies()?, &source.blob, |_| Ok(()))?;
        source.fetched_once()?;
        let fetcher = &herd.seeds[fetcher];
        let bytes = fetcher.darter.metric("darter_source_bytes_total")?;
        let id = fetcher.id();
        ensure!(bytes == SIZE as f64, "{id} fetched {bytes} bytes");
        Ok(())
    });
    herd.told(pulled)
}

#[test]
fn a_scheduler_that_is_stopped_in_the_middle_of_a_herd_is_not_missed() -> Result<()> {
    let stop = |herd: &mut Herd| herd.schedulers.remove(0).stop().map(drop);
    check(ONE, ("stopped", unchanged), stop, |_, _| Ok(()))
}

#[test]
fn a_scheduler_that_is_killed_and_comes_back_blank_knows_it_all_again() -> Result<()> {
    check(
        ONE,
        ("blank", unchanged),
        |herd| {
            let killed = herd.schedulers.remove(0).kill()?;
            herd.schedulers.push(killed.start()?);
            knows(&herd.schedulers[0], 10)
        },
        |herd, _| knows(&herd.schedulers[0], 10),
    )
}

/// Nobody is left who knows which of the hosts had the grant, and whose signature that is.
#[test]
fn without_a_seed_what_hosts_hold_is_of_use_to_a_scheduler_that_comes_back_blank() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::new("unvouched", SIZE)?;
    let mut herd = Herd::start(source.address(), Shape { seeds: &[], ..ONE })?;
    let proxies = herd.proxies()?;
    let mut come_back = || {
        pull(&proxies[..4], &source.blob)?;
        let killed = herd.schedulers.remove(0).kill()?;
        herd.schedulers.push(killed.start()?);
        knows(&herd.schedulers[0], 9)?;
        pull(&proxies[4..], &source.blob)?;
        source.fetched_once()
    };
    let pulled = come_back();
    herd.told(pulled)
}

#[test]
fn two_schedulers_of_which_each_half_knows_one_send_all_to_the_same_seed() -> Result<()> {
    check(
        TWO,
        ("disagree", each_its_own),
        |herd| {
            herd.schedulers
                .iter()
                .try_for_each(|scheduler| knows(scheduler, 8))
        },
        |herd, source| {
            let idle = herd.seeds.iter().filter(|seed| {
                let bytes = seed.darter.metric("darter_swarm_upload_bytes_total");
                bytes.is_ok_and(|bytes| bytes == 0.0)
            });
            ensure!(
                idle.count() == 1,
                "one seed fetches: {:?}",
                source.fetches()
            );
            Ok(())
        },
    )
}

#[test]
fn the_half_of_a_herd_whose_scheduler_is_killed_goes_on_with_what_it_has() -> Result<()> {
    check(
        TWO,
        ("half", each_its_own),
        |herd| herd.schedulers.remove(0).kill().map(drop),
        |herd, _| knows(&herd.schedulers[0], 7),
    )
}

#[test]
fn of_two_schedulers_that_all_know_either_may_be_killed() -> Result<()> {
    for lost in [0, 1] {
        check(
            TWO,
            (["either", "other"][lost], unchanged),
            |herd| herd.schedulers.remove(lost).kill().map(drop),
            |herd, _| knows(&herd.schedulers[0], 11),
        )?;
    }
    Ok(())
}

#[test]
fn with_no_scheduler_all_hosts_ask_the_seed_of_the_ring() -> Result<()> {
    check(TWO, ("none", nobody), |_| Ok(()), |_, _| Ok(()))
}

#[test]
fn when_the_scheduler_stands_still_before_a_cold_herd_the_seed_of_the_ring_fetches() -> Result<()> {
    let still = |herd: &mut Herd, _: &Source| herd.schedulers[0].darter.signal("STOP");
    cold_herd_after(("still", ONE_AND_TWO_SEEDS, unchanged), still)
}

#[test]
fn with_no_scheduler_and_the_seed_of_the_ring_killed_the_other_seed_fetches() -> Result<()> {
    let kill = |herd: &mut Herd, source: &Source| herd.take_seed(source)?.kill().map(drop);
    cold_herd_after(("none-killed", TWO, nobody), kill)
}
