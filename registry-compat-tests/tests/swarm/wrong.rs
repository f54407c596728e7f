//! A blob that fails its sha256 after it went through the swarm, by the source's fault or by the
//! fetcher's: no client sees a complete wrong body, no wrong piece survives, and the next attempt
//! ends right.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use protocol::Role;
use registry_compat_tests::{
    content::{digest_of, noise},
    fault_registry::{Fault, On, Times},
    http::{Ending, Request},
    image::Blob,
    process::wait_until,
};

use super::{
    HERD_LIMIT, Herd, Shape, can_herd,
    liar::{Liar, Lie},
    pull,
    source::Source,
};
use crate::{pull::joined, two_hosts::path};

const SIZE: usize = 8 << 20;

/// The byte that is wrong, in the middle of a piece and not of the last one.
const WRONG: usize = SIZE / 2 + 77;

/// What a host logs when an attempt of its own was wrong.
const DROPPED: &str = "the body did not match its digest";

const SHAPE: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed-a", "seed-b"],
    hosts: 4,
};

/// Each host's client comes again until it has the blob, as a runtime would. Tells how often they
/// came in vain.
fn pull_until_right(proxies: &[SocketAddr], blob: &Blob) -> Result<usize> {
    let path = path(blob);
    let pull = |proxy: SocketAddr| -> Result<usize> {
        let mut failed = 0;
        let mut wrong = None;
        wait_until("the right bytes", HERD_LIMIT, || {
            let whole = Request::get(&path).fetch(proxy);
            let is_whole = |whole: &registry_compat_tests::http::Whole| {
                whole.status == 200 && whole.ending == Ending::Complete
            };
            match whole.ok().filter(is_whole) {
                Some(whole) if digest_of(&whole.body) == blob.digest => true,
                Some(whole) => {
                    wrong = Some(whole.body.len());
                    true
                }
                None => {
                    failed += 1;
                    false
                }
            }
        })?;
        ensure!(wrong.is_none(), "a complete wrong body of {wrong:?} bytes");
        Ok(failed)
    };
    std::thread::scope(|scope| {
        let pulls: Vec<_> = proxies
            .iter()
            .map(|proxy| scope.spawn(move || pull(*proxy)))
            .collect();
        pulls.into_iter().map(joined).sum()
    })
}

/// One fetch for each attempt that was made: of one that is wrong everywhere, nobody takes anything.
fn asked_at_most(source: &Source, max: usize) -> Result<()> {
    let fetches = source.fetches();
    let asked: Vec<_> = fetches
        .iter()
        .map(|asked| (asked.range.as_deref(), asked.sent))
        .collect();
    eprintln!("the registry was asked {} times", asked.len());
    ensure!(asked.len() <= max, "the registry was asked {asked:?}");
    Ok(())
}

/// Every host has the right bytes now, and so has one that comes later: they are in the stores, and
/// the registry, which answers nobody any more, is not asked for them.
fn no_wrong_piece_survives(herd: &Herd, source: &Source) -> Result<()> {
    let before = source.fetches().len();
    let digest = &source.blob.digest;
    source.registry.heal(digest);
    source
        .registry
        .fail(On::Get, digest, Times::Always, Fault::NoAnswer);
    pull(&herd.proxies()?, &source.blob)?;
    let late = herd.cluster.start("late", &[Role::Proxy])?;
    pull(&[late.darter.proxy()?], &source.blob)
        .with_context(|| late.darter.log().unwrap_or_default())?;
    for member in herd.seeds.iter().chain(&herd.hosts).chain([&late]) {
        let cached = member.home.cached()?;
        let is_whole = cached.iter().all(|entry| entry.is_complete);
        ensure!(is_whole, "{} keeps {cached:?}", member.id());
    }
    let asked = source.fetches().split_off(before);
    ensure!(asked.is_empty(), "the registry was asked again: {asked:?}");
    Ok(())
}

/// The seed that the ring names was given the wrong byte and has dropped its attempt, the other one
/// has fetched the blob anew, and no host has asked the registry for any of it.
fn the_second_seed_fetched_anew(herd: &Herd, source: &Source) -> Result<()> {
    let first = herd.ring_seed(source)?;
    for member in herd.seeds.iter().chain(&herd.hosts) {
        let is_seed = member.id().starts_with("seed-");
        let expect = if is_seed { source.blob.size } else { 0 };
        let bytes = member.darter.metric("darter_source_bytes_total")?;
        let id = member.id();
        ensure!(bytes == expect as f64, "{id} fetched {bytes} bytes");
    }
    for (at, seed) in herd.seeds.iter().enumerate() {
        let failed = seed.darter.log()?.matches(DROPPED).count();
        let expect = usize::from(at == first);
        ensure!(failed == expect, "{} failed {failed} times", seed.id());
    }
    Ok(())
}

#[test]
fn what_the_source_gives_wrong_once_nobody_ever_has_whole() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let fault = Fault::WrongByte(WRONG);
    let source = Source::failing("wrong-source", SIZE, Times::First(1), fault)?;
    let herd = Herd::start(source.address(), SHAPE)?;
    let pulled = pull_until_right(&herd.proxies()?, &source.blob).and_then(|failed| {
        eprintln!("{failed} pulls in vain");
        ensure!(0 < failed, "nobody saw the wrong attempt");
        // Whoever signed what its source told it may be blamed, and nobody else.
        let log = herd.schedulers[0].darter.log()?;
        let mut bans = log.lines().filter(|line| line.contains("banned"));
        let is_seed = |line: &str| line.contains("\"host\":\"seed-");
        ensure!(bans.all(is_seed), "a host was banned:\n{log}");
        asked_at_most(&source, 2)?;
        the_second_seed_fetched_anew(&herd, &source)?;
        no_wrong_piece_survives(&herd, &source)
    });
    herd.told(pulled)
}

#[test]
fn a_seed_that_signs_wrong_pieces_is_banned_once_a_right_attempt_holds() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::new("wrong-seed", SIZE)?;
    let herd = Herd::start(source.address(), SHAPE)?;
    let mut bytes = noise("wrong-seed", SIZE)?;
    bytes[WRONG] ^= 0xff;
    let blobs = [(source.blob.clone(), Bytes::from(bytes))];
    let _liar = Liar::start(&herd.cluster, Lie::WrongWhole, &blobs)?;
    let scheduler = &herd.schedulers[0].darter;
    let banned = || {
        scheduler
            .metric("darter_scheduler_banned_total")
            .unwrap_or(-1.0)
    };
    let pulled = pull_until_right(&herd.proxies()?, &source.blob).and_then(|failed| {
        eprintln!("{failed} pulls in vain");
        ensure!(0 < failed, "nobody saw the wrong attempt");
        wait_until("the ban", HERD_LIMIT, || banned() == 1.0)?;
        asked_at_most(&source, 1)?;
        no_wrong_piece_survives(&herd, &source)
    });
    herd.told(pulled)
}
