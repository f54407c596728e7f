//! SIGTERM in the middle of bodies: they end whole within `drain_timeout`, here and on the hosts that
//! are fed from here; what does not end by then is cut, in order. Nobody new is let in.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    content::digest_of,
    darter::Darter,
    http::{Ending, Request, Whole},
    process::{Stopwatch, wait_until},
};

use crate::{
    halfway::Halfway,
    pull::{digest_through, digest_while, joined},
    stage::golden,
    two_hosts::{FLOW_LIMIT, Pair, path},
};

/// A `drain_timeout` that no test here waits for.
const LONG: &str = "10m";

/// How long a process that has nothing left to do may take to end.
const END_LIMIT: Duration = Duration::from_secs(20);

/// A host before a registry that stops, with this `drain_timeout`.
fn host(drain_timeout: &str) -> Result<Halfway> {
    Halfway::start(|config| format!("drain_timeout = \"{drain_timeout}\"\n{config}"))
}

/// Tells `host` to end while one body is under way, and gives back what came of the body.
fn cut(host: &mut Halfway, tell: impl FnOnce(&Darter) -> Result<()>) -> Result<Whole> {
    let mut body = Request::get(&path(&host.blob)).send(host.proxy)?;
    ensure!(body.status == 200, "{}", body.status);
    let begun = body.read_exactly(1)?;
    tell(&host.darter)?;
    let mut whole = body.whole()?;
    whole.body.splice(0..0, begun);
    host.darter.wait_end(END_LIMIT)?;
    Ok(whole)
}

/// Tells a host to end, and waits until nobody can come to its proxy any more.
fn close(darter: &Darter) -> Result<()> {
    let proxy = darter.proxy()?;
    darter.signal("TERM")?;
    wait_until("the proxy lets nobody in", FLOW_LIMIT, || {
        TcpStream::connect(proxy).is_err()
    })
}

#[test]
fn a_cold_and_a_joined_body_end_whole_after_the_signal() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let mut host = host(LONG)?;
    host.pull_while(|| close(&host.darter))?;
    ensure!(host.relay.bodies() == 1, "{} fetches", host.relay.bodies());
    host.darter.wait_end(END_LIMIT)
}

#[test]
fn a_body_from_the_store_ends_whole_after_the_signal() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let mut host = host(LONG)?;
    host.relay.open();
    let path = path(&host.blob);
    digest_through(host.proxy, &path)?;
    let mut hit = Request::get(&path).send(host.proxy)?;
    let begun = hit.read_exactly(1)?;
    close(&host.darter)?;
    let rest = hit.whole()?;
    ensure!(rest.ending == Ending::Complete, "{:?}", rest.ending);
    let body = [begun, rest.body].concat();
    let digest = digest_of(&body);
    ensure!(digest == host.blob.digest, "wrong bytes: {digest}");
    host.darter.wait_end(END_LIMIT)
}

#[test]
fn what_does_not_end_in_time_is_cut_in_order() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let mut host = host("1s")?;
    let watch = Stopwatch::start();
    let body = cut(&mut host, close)?;
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
    let mut host = host(LONG)?;
    let body = cut(&mut host, |darter| {
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
            pair.relay.bodies() == 1 && 0 < taken.load(Ordering::Acquire)
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
