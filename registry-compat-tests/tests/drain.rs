//! SIGTERM in the middle of bodies: they end whole within `drain_timeout`, here and on the hosts that
//! are fed from here; what does not end by then is cut, in order. Nobody new is let in.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    darter::{Darter, Home},
    http::{Ending, Request, Whole},
    image::Blob,
    process::{Stopwatch, wait_until},
    registry::Registry,
    relay::Relay,
};

use crate::{
    herd::alone,
    pull::{digest_through, digest_while, joined},
    stage::{Golden, golden},
    two_hosts::{FLOW_LIMIT, Pair, path},
};

/// A `drain_timeout` that no test here waits for.
const LONG: &str = "10m";

/// How long a process that has nothing left to do may take to end.
const END_LIMIT: Duration = Duration::from_secs(20);

/// One host before a registry that stops in the middle of the biggest layer.
struct Halfway {
    darter: Darter,
    proxy: SocketAddr,
    relay: Relay,
    blob: Blob,
    half: u64,
    _registry: Registry,
    _home: Home,
    _golden: Arc<Golden>,
}

// === impl Halfway ===

impl Halfway {
    fn start(drain_timeout: &str) -> Result<Self> {
        let (golden, home) = (golden()?, Home::new()?);
        let registry = Registry::start(&golden.registry_directory())?;
        let blob = golden.image.biggest()?;
        let half = blob.size / 2;
        let relay = Relay::start(registry.address(), half)?;
        let config = alone(&home, relay.address());
        let darter = Darter::run(
            &format!("drain_timeout = \"{drain_timeout}\"\n{config}"),
            &home,
        )?;
        Ok(Self {
            proxy: darter.proxy()?,
            darter,
            relay,
            blob,
            half,
            _registry: registry,
            _home: home,
            _golden: golden,
        })
    }

    /// Tells the host to end while one body is under way, and gives back what came of the body.
    fn cut(&mut self, tell: impl FnOnce(&Darter) -> Result<()>) -> Result<Whole> {
        let mut body = Request::get(&path(&self.blob)).send(self.proxy)?;
        ensure!(body.status == 200, "{}", body.status);
        let begun = body.read_exactly(1)?;
        tell(&self.darter)?;
        let mut whole = body.whole()?;
        whole.body.splice(0..0, begun);
        self.darter.wait_end(END_LIMIT)?;
        Ok(whole)
    }
}

/// Tells a host to end, and waits until nobody can come to its proxy any more.
fn close(darter: &Darter) -> Result<()> {
    let proxy = darter.proxy()?;
    darter.signal("TERM")?;
    wait_until("the proxy lets nobody in", FLOW_LIMIT, || {
        TcpStream::connect(proxy).is_err()
    })
}

fn has_begun(taken: &AtomicU64) -> bool {
    0 < taken.load(Ordering::Acquire)
}

#[test]
fn a_cold_and_a_joined_body_end_whole_after_the_signal() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let mut host = Halfway::start(LONG)?;
    let (path, proxy) = (path(&host.blob), host.proxy);
    let taken = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        let clients = taken.each_ref().map(|taken| {
            let path = &path;
            scope.spawn(move || digest_while(proxy, path, taken))
        });
        let closed = wait_until("both have bytes", FLOW_LIMIT, || {
            taken.iter().all(has_begun)
        })
        .and_then(|()| close(&host.darter));
        // Whatever came of it, the clients must not wait for ever.
        host.relay.open();
        let ends = clients.map(joined);
        closed?;
        for end in ends {
            let digest = end?;
            ensure!(digest == host.blob.digest, "wrong bytes: {digest}");
        }
        Ok(())
    })
    .with_context(|| host.darter.log().unwrap_or_default())?;
    ensure!(host.relay.bodies() == 1, "{} fetches", host.relay.bodies());
    host.darter.wait_end(END_LIMIT)
}

#[test]
fn a_body_from_the_store_ends_whole_after_the_signal() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let mut host = Halfway::start(LONG)?;
    host.relay.open();
    let path = path(&host.blob);
    digest_through(host.proxy, &path)?;
    let mut hit = Request::get(&path).send(host.proxy)?;
    let begun = hit.read_exactly(1)?;
    close(&host.darter)?;
    let rest = hit.whole()?;
    ensure!(rest.ending == Ending::Complete, "{:?}", rest.ending);
    let body = [begun, rest.body].concat();
    let digest = registry_compat_tests::content::digest_of(&body);
    ensure!(digest == host.blob.digest, "wrong bytes: {digest}");
    host.darter.wait_end(END_LIMIT)
}

#[test]
fn what_does_not_end_in_time_is_cut_in_order() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let mut host = Halfway::start("1s")?;
    let watch = Stopwatch::start();
    let body = host.cut(close)?;
    let took = watch.elapsed();
    ensure!(body.ending == Ending::Short, "{:?}", body.ending);
    let length = body.body.len() as u64;
    ensure!(length <= host.half, "{length} of {} came", host.half);
    ensure!(Duration::from_secs(1) <= took, "cut after {took:?}");
    Ok(())
}

#[test]
fn a_second_signal_ends_it_at_once() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let mut host = Halfway::start(LONG)?;
    let body = host.cut(|darter| {
        close(darter)?;
        darter.signal("TERM")
    })?;
    ensure!(body.ending != Ending::Complete, "{:?}", body.ending);
    Ok(())
}

#[test]
fn a_host_that_is_fed_from_here_gets_the_whole_after_the_signal() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let half = golden()?.image.biggest()?.size / 2;
    // The first host is the seed, which alone asks the registry, and has no reader of its own.
    let mut pair = Pair::together_before_gate(half)?;
    let (blob, taken) = (pair.blob()?, AtomicU64::new(0));
    let (path, proxy) = (path(&blob), pair.second.darter.proxy()?);
    thread::scope(|scope| {
        let client = scope.spawn(|| digest_while(proxy, &path, &taken));
        let closed = wait_until("the second host has bytes", FLOW_LIMIT, || {
            pair.relay.bodies() == 1 && has_begun(&taken)
        })
        .and_then(|()| close(&pair.first.darter));
        pair.relay.open();
        let end = joined(client);
        closed?;
        let digest = end?;
        ensure!(digest == blob.digest, "wrong bytes: {digest}");
        Ok(())
    })
    .with_context(|| pair.logs())?;
    pair.fetched_once()?;
    pair.first.darter.wait_end(END_LIMIT)
}
