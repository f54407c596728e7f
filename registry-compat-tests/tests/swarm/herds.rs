//! Eight hosts before one docker-registry, nothing failing: whatever they want, and however they
//! come to it, each blob is fetched once.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise},
    http::{Ending, Request},
    image::Blob,
    process::wait_until,
    registry::Registry,
};
use tempfile::TempDir;

use super::{HERD_LIMIT, Herd, Shape, Taken, can_herd, pull, source::Source};
use crate::{
    pull::{digest_through, digest_while, joined},
    runs::asked_once,
    stage::workspace,
    two_hosts::path,
};

const ONE_SEED: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed"],
    hosts: 8,
};
const TWO_SEEDS: Shape = Shape {
    seeds: &["seed-a", "seed-b"],
    ..ONE_SEED
};
const NO_SEED: Shape = Shape {
    seeds: &[],
    ..ONE_SEED
};

const MIB: usize = 1 << 20;

/// Clients of each host that work off a list of small blobs.
const CLIENTS: usize = 4;

/// A herd and a registry with content of its own.
struct Stand {
    herd: Herd,
    registry: Registry,
    blobs: Vec<Blob>,
    _directory: TempDir,
}

// === impl Stand ===

impl Stand {
    fn start(shape: Shape, name: &str, sizes: &[usize]) -> Result<Self> {
        let directory = workspace()?;
        let registry = Registry::start(&directory.path().join("registry"))?;
        let push = |(number, size): (usize, &usize)| {
            let seed = format!("{name}-{number}");
            stocked(&registry, &directory.path().join("blob"), &seed, *size)
        };
        let blobs = sizes.iter().enumerate().map(push);
        let blobs = blobs.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            herd: Herd::start(registry.address(), shape)?,
            registry,
            blobs,
            _directory: directory,
        })
    }

    fn fetched_once(&self) -> Result<()> {
        for blob in &self.blobs {
            // The registry writes its log after the last byte has left.
            let fetches = || self.registry.fetches_of(&blob.digest).unwrap_or_default();
            wait_until("the registry's log", HERD_LIMIT, || 0 < fetches())?;
            let (fetches, size) = (fetches(), blob.size);
            ensure!(fetches == 1, "{size} bytes were asked for {fetches} times");
        }
        Ok(())
    }
}

fn stocked(registry: &Registry, file: &Path, seed: &str, size: usize) -> Result<Blob> {
    let bytes = noise(seed, size)?;
    std::fs::write(file, &bytes)?;
    let digest = digest_of(&bytes);
    registry.push_blob("team/sealed", &digest, file)?;
    Ok(Blob {
        digest,
        size: size as u64,
    })
}

/// Starts a herd that wants blobs of these sizes; after `act` each was fetched once.
fn check(
    shape: Shape,
    (name, sizes): (&str, &[usize]),
    act: impl FnOnce(&[SocketAddr], &[Blob]) -> Result<()>,
) -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let stand = Stand::start(shape, name, sizes)?;
    let acted = act(&stand.herd.proxies()?, &stand.blobs);
    stand.herd.told(acted.and_then(|()| stand.fetched_once()))
}

#[test]
fn eight_hosts_that_want_a_cold_blob_at_once_cost_the_registry_one_fetch() -> Result<()> {
    check(ONE_SEED, ("cold", &[128 * MIB]), |proxies, blobs| {
        pull(proxies, &blobs[0])
    })
}

#[test]
fn eight_hosts_that_come_one_after_another_cost_the_registry_one_fetch() -> Result<()> {
    check(TWO_SEEDS, ("staggered", &[128 * MIB]), |proxies, blobs| {
        let blob = &blobs[0];
        let (taken, path) = (Taken::by(proxies.len()), path(blob));
        thread::scope(|scope| {
            let clients: Vec<_> = proxies
                .iter()
                .enumerate()
                .map(|(client, proxy)| {
                    let (taken, path) = (&taken, &path);
                    scope.spawn(move || {
                        let tenths = blob.size / 10 * client as u64;
                        let has_come = || tenths <= taken.of(0);
                        wait_until("the first is so far", HERD_LIMIT, has_come)?;
                        digest_while(*proxy, path, &taken.0[client])
                    })
                })
                .collect();
            for client in clients {
                ensure!(joined(client)? == blob.digest, "wrong bytes");
            }
            Ok(())
        })
    })
}

#[test]
fn what_one_host_has_the_other_seven_get_without_the_registry() -> Result<()> {
    check(ONE_SEED, ("warm", &[64 * MIB]), |proxies, blobs| {
        pull(&proxies[..1], &blobs[0])?;
        pull(&proxies[1..], &blobs[0])
    })
}

#[test]
fn without_a_seed_a_host_of_the_herd_fetches_for_all() -> Result<()> {
    check(NO_SEED, ("seedless", &[64 * MIB]), |proxies, blobs| {
        pull(proxies, &blobs[0])
    })
}

#[test]
fn ten_blobs_that_eight_hosts_want_at_once_are_fetched_once_each() -> Result<()> {
    check(TWO_SEEDS, ("ten", &[20 * MIB; 10]), |proxies, blobs| {
        thread::scope(|scope| {
            let pulls: Vec<_> = blobs
                .iter()
                .map(|blob| scope.spawn(|| pull(proxies, blob)))
                .collect();
            pulls.into_iter().try_for_each(joined)
        })
    })
}

#[test]
fn three_hundred_small_blobs_are_fetched_once_each() -> Result<()> {
    // From one byte to 300 KiB, more of them small than large.
    let size = |number: usize| 1 + number * number * number * 300 * 1024 / (300 * 300 * 300);
    let sizes: Vec<usize> = (0..300).map(size).collect();
    check(TWO_SEEDS, ("small", &sizes), |proxies, blobs| {
        thread::scope(|scope| {
            let mut clients = Vec::new();
            for proxy in proxies {
                let next = std::sync::Arc::new(AtomicUsize::new(0));
                for _ in 0..CLIENTS {
                    let next = std::sync::Arc::clone(&next);
                    clients.push(scope.spawn(move || -> Result<()> {
                        while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::AcqRel)) {
                            let digest = digest_through(*proxy, &path(blob))?;
                            ensure!(digest == blob.digest, "wrong bytes: {digest}");
                        }
                        Ok(())
                    }));
                }
            }
            clients.into_iter().try_for_each(joined)
        })
    })
}

/// What each of eight readers wants of a blob of 64 MiB: the middle of it, and each something else.
fn middle(reader: usize) -> std::ops::Range<usize> {
    let start = 24 * MIB + reader * 3 * MIB + 12_345;
    start..start + 5 * MIB
}

/// Each host has a reader that wants a part; the registry is asked once for each byte.
fn ranges(shape: Shape) -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::new("ranges", 64 * MIB)?;
    let bytes = noise("ranges", 64 * MIB)?;
    let herd = Herd::start(source.address(), shape)?;
    let (proxies, path) = (herd.proxies()?, path(&source.blob));
    let read = |proxy: SocketAddr, part: std::ops::Range<usize>| {
        let range = format!("bytes={}-{}", part.start, part.end - 1);
        let answer = Request::get(&path).header("Range", &range).fetch(proxy)?;
        ensure!(answer.status == 206, "{}: {}", answer.status, answer.text());
        ensure!(
            answer.ending == Ending::Complete,
            "{range}: {:?}",
            answer.ending
        );
        ensure!(answer.body == bytes[part], "wrong bytes of {range}");
        Ok(())
    };
    let acted = thread::scope(|scope| {
        let readers: Vec<_> = proxies
            .iter()
            .enumerate()
            .map(|(reader, proxy)| scope.spawn(move || read(*proxy, middle(reader))))
            .collect();
        readers.into_iter().try_for_each(joined)
    });
    herd.told(acted.and_then(|()| asked_once(&source.fetches(), source.blob.size as usize)))
}

#[test]
fn what_readers_of_parts_want_is_fetched_once_by_a_seed() -> Result<()> {
    ranges(ONE_SEED)
}

#[test]
fn what_readers_of_parts_want_is_fetched_once_without_a_seed() -> Result<()> {
    ranges(NO_SEED)
}

#[test]
fn a_range_that_no_blob_has_is_refused_and_ends_no_session() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let far = 8_u64 << 50;
    for (number, range) in [
        "-0".to_owned(),
        format!("{far}-"),
        format!("{far}-{}", far + 7),
    ]
    .iter()
    .enumerate()
    {
        let source = Source::new(&format!("no-part-{number}"), MIB)?;
        let shape = Shape {
            hosts: 1,
            ..ONE_SEED
        };
        let herd = Herd::start(source.address(), shape)?;
        let asked = Request::get(&path(&source.blob))
            .header("Range", &format!("bytes={range}"))
            .fetch(herd.proxies()?[0]);
        herd.told(asked.and_then(|answer| {
            ensure!(answer.status == 416, "{range}: {}", answer.status);
            let log = herd.hosts[0].darter.log()?;
            ensure!(!log.contains("session lost"), "{range}: {log}");
            Ok(())
        }))?;
    }
    Ok(())
}
