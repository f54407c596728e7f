//! Two hosts that share what they pull, as separate processes: with a scheduler and a seed that
//! are processes of their own too, or with one of the two being both. What both want is asked of
//! the registry once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run,
    cluster::{Cluster, EVERYTHING, Member},
    image::Blob,
    process::wait_until,
    registry::Registry,
    relay::Relay,
};

use crate::{
    pull::{digest_through, digest_while, joined},
    stage::{Golden, golden},
};

/// The longest that bytes which have left the registry may take to a client, on two busy cores;
/// less than the half minute after which a silent upstream is taken for a stalled one.
pub(crate) const FLOW_LIMIT: Duration = Duration::from_secs(25);

/// Two hosts before one registry, and who works for them.
pub(crate) struct Pair {
    pub(crate) first: Member,
    pub(crate) second: Member,
    pub(crate) others: Vec<Member>,
    cluster: Cluster,
    registry: Registry,
    pub(crate) relay: Relay,
    golden: Arc<Golden>,
}

// === impl Pair ===

impl Pair {
    /// The first host is scheduler and seed too. No body is stopped.
    fn together() -> Result<Self> {
        Self::together_before_gate(u64::MAX)
    }

    /// As [`Pair::together`]; the registry stops every body after `pass` bytes.
    pub(crate) fn together_before_gate(pass: u64) -> Result<Self> {
        let (golden, registry, relay) = upstream(pass)?;
        let cluster = Cluster::new(relay.address(), "first", "first")?;
        Ok(Self {
            first: cluster.start("first", &EVERYTHING)?,
            second: cluster.start("second", &[Role::Proxy])?,
            others: Vec::new(),
            cluster,
            registry,
            relay,
            golden,
        })
    }

    /// Scheduler and seed are processes of their own, in this order; the registry stops as above.
    pub(crate) fn apart_before_gate(pass: u64) -> Result<Self> {
        let (golden, registry, relay) = upstream(pass)?;
        let cluster = Cluster::new(relay.address(), "scheduler", "seed")?;
        let others = vec![
            cluster.start("scheduler", &[Role::Scheduler])?,
            cluster.start("seed", &[Role::Seed])?,
        ];
        Ok(Self {
            first: cluster.start("first", &[Role::Proxy])?,
            second: cluster.start("second", &[Role::Proxy])?,
            others,
            cluster,
            registry,
            relay,
            golden,
        })
    }

    fn apart() -> Result<Self> {
        Self::apart_before_gate(u64::MAX)
    }

    /// What all want here.
    pub(crate) fn blob(&self) -> Result<Blob> {
        self.golden.image.biggest()
    }

    /// All `hosts` get the biggest layer at once; it was asked of the registry once.
    fn get(&self, hosts: &[&Member]) -> Result<()> {
        let blob = self.blob()?;
        let path = path(&blob);
        thread::scope(|scope| {
            let pulls: Vec<_> = hosts
                .iter()
                .map(|host| {
                    scope.spawn(|| -> Result<()> {
                        let digest = digest_through(host.darter.proxy()?, &path)?;
                        ensure!(digest == blob.digest, "wrong bytes: {digest}");
                        Ok(())
                    })
                })
                .collect();
            // All of them, so that none is still running while another's failure is told.
            let ends: Vec<_> = pulls.into_iter().map(joined).collect();
            ends.into_iter().collect::<Result<()>>()
        })
        .with_context(|| self.logs())?;
        self.fetched_once()
    }

    /// Fails unless the registry was asked for the biggest layer exactly once.
    pub(crate) fn fetched_once(&self) -> Result<()> {
        let digest = self.blob()?.digest;
        // The registry writes its log after the last byte has left.
        wait_until("the registry's log", FLOW_LIMIT, || {
            self.registry
                .fetches_of(&digest)
                .is_ok_and(|count| 0 < count)
        })?;
        let fetches = self.registry.fetches_of(&digest)?;
        ensure!(fetches == 1, "the registry was asked {fetches} times");
        Ok(())
    }

    pub(crate) fn logs(&self) -> String {
        let told = [("first", &self.first), ("second", &self.second)];
        told.map(|(name, host)| {
            let log = host.darter.log().unwrap_or_default();
            format!("{name} of {}:\n{log}", self.cluster.scheduler())
        })
        .join("\n")
    }
}

fn upstream(pass: u64) -> Result<(Arc<Golden>, Registry, Relay)> {
    let golden = golden()?;
    let registry = Registry::start(&golden.registry_directory())?;
    let relay = Relay::start(registry.address(), pass)?;
    Ok((golden, registry, relay))
}

/// How a runtime asks a mirror for it.
pub(crate) fn path(blob: &Blob) -> String {
    format!("/v2/team/sealed/blobs/{}?ns=registry.test", blob.digest)
}

/// Runs one case on a pair; a machine without the programs is told of.
fn check(pair: impl FnOnce() -> Result<Pair>, rounds: &[&[usize]]) -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let pair = pair()?;
    let hosts = [&pair.first, &pair.second];
    for round in rounds {
        let round: Vec<_> = round.iter().map(|index| hosts[*index]).collect();
        pair.get(&round)?;
    }
    Ok(())
}

#[test]
fn two_hosts_that_want_a_cold_blob_at_once_cost_the_registry_one_fetch() -> Result<()> {
    check(Pair::together, &[&[0, 1], &[1]])
}

#[test]
fn a_host_that_wants_what_nobody_has_gets_it_from_the_seed() -> Result<()> {
    check(Pair::together, &[&[1], &[0]])
}

#[test]
fn with_scheduler_and_seed_apart_both_at_once_cost_the_registry_one_fetch() -> Result<()> {
    check(Pair::apart, &[&[0, 1], &[0], &[1]])
}

#[test]
fn with_scheduler_and_seed_apart_one_after_the_other_cost_the_registry_one_fetch() -> Result<()> {
    check(Pair::apart, &[&[0], &[1]])
}

#[test]
fn a_host_that_comes_when_the_first_is_half_done_costs_the_registry_nothing() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let half = golden()?.image.biggest()?.size / 2;
    let pair = Pair::apart_before_gate(half)?;
    let blob = pair.blob()?;
    let path = path(&blob);
    let pull = |proxy: SocketAddr, taken: &AtomicU64| {
        let digest = digest_while(proxy, &path, taken)?;
        ensure!(digest == blob.digest, "wrong bytes: {digest}");
        Ok(())
    };
    let proxies = [pair.first.darter.proxy()?, pair.second.darter.proxy()?];
    let taken = [AtomicU64::new(0), AtomicU64::new(0)];
    let has_some = |taken: &AtomicU64| 0 < taken.load(Ordering::Acquire);
    thread::scope(|scope| {
        let first = scope.spawn(|| pull(proxies[0], &taken[0]));
        let is_half = wait_until("the registry stops at half", FLOW_LIMIT, || {
            pair.relay.bodies() == 1 && has_some(&taken[0])
        });
        let second = scope.spawn(|| pull(proxies[1], &taken[1]));
        let flows = wait_until("the second host has bytes", FLOW_LIMIT, || {
            has_some(&taken[1])
        });
        // Whatever came of it, the clients must not wait for ever.
        pair.relay.open();
        let ends = [joined(first), joined(second)];
        is_half.and(flows)?;
        ends.into_iter().collect::<Result<()>>()
    })
    .with_context(|| pair.logs())?;
    let bodies = pair.relay.bodies();
    ensure!(bodies == 1, "{bodies} bodies of that length were sent");
    pair.fetched_once()
}
