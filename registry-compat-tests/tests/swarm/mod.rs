//! The swarm at full strength: many hosts as separate processes before one registry, whatever
//! fails. Everything goes over sockets.

mod clients;
mod herds;
mod hosts;
mod liar;
mod lost;
mod overload;
mod parents;
mod private;
mod public;
mod renewed;
mod schedulers;
mod seeds;
mod slow;
mod source;
mod wrong;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run,
    cluster::{Cluster, Member, Plan},
    image::Blob,
    process::{Stopwatch, wait_until},
};

use crate::{
    pull::{digest_while, joined},
    two_hosts::path,
};

/// The longest that anything in a herd may take, on two busy cores.
pub(crate) const HERD_LIMIT: Duration = Duration::from_secs(60);

/// Lines of each log that are told with a failure.
const LOG_LINES: usize = 60;

/// Who takes part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) schedulers: &'static [&'static str],
    pub(crate) seeds: &'static [&'static str],
    pub(crate) hosts: usize,
}

/// A running cluster: its schedulers, seeds and proxies.
#[derive(Debug)]
pub(crate) struct Herd {
    pub(crate) cluster: Cluster,
    pub(crate) schedulers: Vec<Member>,
    pub(crate) seeds: Vec<Member>,
    pub(crate) hosts: Vec<Member>,
}

/// How far each of several clients is.
#[derive(Debug)]
pub(crate) struct Taken(Vec<AtomicU64>);

// === impl Herd ===

impl Herd {
    /// Starts them all before `registry`, each with the whole view.
    pub(crate) fn start(registry: SocketAddr, shape: Shape) -> Result<Self> {
        Self::start_with(registry, shape, |_, plan| plan)
    }

    /// As [`Herd::start`]; `change` has the plan of each host, by its number, before it starts.
    pub(crate) fn start_with(
        registry: SocketAddr,
        shape: Shape,
        change: impl Fn(usize, Plan) -> Plan,
    ) -> Result<Self> {
        Self::start_each(registry, shape, |plan| {
            let number = plan.id.strip_prefix("host-");
            match number.and_then(|number| number.parse().ok()) {
                Some(number) => change(number, plan),
                None => plan,
            }
        })
    }

    /// As [`Herd::start`]; `change` has the plan of every process before it starts.
    pub(crate) fn start_each(
        registry: SocketAddr,
        shape: Shape,
        change: impl Fn(Plan) -> Plan,
    ) -> Result<Self> {
        let cluster = Cluster::of(registry, shape.schedulers, shape.seeds)?;
        Self::start_in(cluster, shape, change)
    }

    /// As [`Herd::start_each`], in a cluster that nobody runs in yet.
    pub(crate) fn start_in(
        cluster: Cluster,
        shape: Shape,
        change: impl Fn(Plan) -> Plan,
    ) -> Result<Self> {
        let start = |id: &&str, role| cluster.start_as(&change(cluster.plan(id, &[role])));
        let all = |ids: &[&str], role| ids.iter().map(|id| start(id, role)).collect();
        let schedulers: Result<Vec<Member>> = all(shape.schedulers, Role::Scheduler);
        let seeds: Result<Vec<Member>> = all(shape.seeds, Role::Seed);
        let mut herd = Self {
            schedulers: schedulers?,
            seeds: seeds?,
            hosts: Vec::new(),
            cluster,
        };
        for member in &herd.seeds {
            member.wait_for_sessions(shape.schedulers.len())?;
        }
        for number in 0..shape.hosts {
            let plan = herd.cluster.plan(&format!("host-{number}"), &[Role::Proxy]);
            let plan = change(plan);
            let member = herd.cluster.start_as(&plan)?;
            herd.hosts.push(member);
            herd.hosts[number].wait_for_sessions(plan.view.schedulers.len())?;
        }
        Ok(herd)
    }

    /// All that run.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        let members = [&self.schedulers, &self.seeds, &self.hosts];
        members.into_iter().flatten()
    }

    /// Where the hosts answer to clients.
    pub(crate) fn proxies(&self) -> Result<Vec<SocketAddr>> {
        self.hosts.iter().map(|host| host.darter.proxy()).collect()
    }

    /// Puts the ends of all logs before an error.
    pub(crate) fn told<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| {
            let logs = self.members().map(|member| {
                let log = member.darter.log().unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                format!("--- {}\n{end}", member.id())
            });
            logs.collect::<Vec<_>>().join("\n")
        })
    }
}

// === impl Taken ===

impl Taken {
    pub(crate) fn by(clients: usize) -> Self {
        Self((0..clients).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn of(&self, client: usize) -> u64 {
        self.0[client].load(Ordering::Acquire)
    }

    /// The least that any of them has.
    pub(crate) fn least(&self) -> u64 {
        (0..self.0.len())
            .map(|client| self.of(client))
            .min()
            .unwrap_or(0)
    }

    /// Waits until each has more than `bytes`.
    pub(crate) fn wait_beyond(&self, bytes: u64) -> Result<()> {
        wait_until("every client is further", HERD_LIMIT, || {
            bytes < self.least()
        })
        .with_context(|| format!("not beyond {bytes}: {self:?}"))
    }
}

/// One client at each of `proxies` pulls `blob`, and `act` happens meanwhile; all of them end with
/// the right bytes.
///
/// # Errors
/// What `act` says, or else the first client that did not get them.
pub(crate) fn pull_while(
    proxies: &[SocketAddr],
    blob: &Blob,
    act: impl FnOnce(&Taken) -> Result<()>,
) -> Result<()> {
    let taken = Taken::by(proxies.len());
    let path = path(blob);
    thread::scope(|scope| {
        let clients: Vec<_> = proxies
            .iter()
            .zip(&taken.0)
            .map(|(proxy, taken)| scope.spawn(|| digest_while(*proxy, &path, taken)))
            .collect();
        let acted = act(&taken);
        // All of them, so that none still runs while another's failure is told.
        let ends: Vec<_> = clients.into_iter().map(joined).collect();
        acted?;
        for (client, end) in ends.into_iter().enumerate() {
            let digest = end.with_context(|| format!("client {client}"))?;
            ensure!(
                digest == blob.digest,
                "wrong bytes at client {client}: {digest}"
            );
        }
        Ok(())
    })
}

/// As [`pull_while`]; all of it takes no longer than `limit`.
///
/// # Errors
/// As [`pull_while`], or it takes longer.
pub(crate) fn pull_within(
    limit: Duration,
    proxies: &[SocketAddr],
    blob: &Blob,
    act: impl FnOnce(&Taken) -> Result<()>,
) -> Result<()> {
    let watch = Stopwatch::start();
    pull_while(proxies, blob, act)?;
    let took = watch.elapsed();
    eprintln!("{} pulls took {took:?}", proxies.len());
    ensure!(took < limit, "{} pulls took {took:?}", proxies.len());
    Ok(())
}

/// As [`pull_while`], with nothing that happens.
///
/// # Errors
/// As [`pull_while`].
pub(crate) fn pull(proxies: &[SocketAddr], blob: &Blob) -> Result<()> {
    pull_while(proxies, blob, |_| Ok(()))
}

/// Whether processes with hosts of their own can be started here.
pub(crate) fn can_herd() -> Result<bool> {
    can_run(&["docker-registry", "setpriv"])
}
