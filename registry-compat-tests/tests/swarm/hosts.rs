//! One host of a herd that has no room, whose client leaves, or that is killed and comes back: the
//! others do not notice, and it gets what it wants.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use registry_compat_tests::{can_run, cluster::Plan, http::Request};

use super::{Herd, Shape, can_herd, parents::PULL_LIMIT, pull, pull_within, source::Source};
use crate::{
    storeless::{Small, on_their_own},
    two_hosts::path,
};

const SIZE: usize = 32 << 20;

const SHAPE: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed"],
    hosts: 5,
};

/// Of a disk, at which the blob and what else a host writes have room.
const DISK: u64 = 64 << 20;

/// The first host has room for a quarter of the blob.
fn cramped(number: usize, mut plan: Plan) -> Plan {
    if number == 0 {
        plan.swarm = "storage_quota = \"8MiB\"".to_owned();
    }
    plan
}

#[test]
fn a_host_without_room_streams_through_and_the_others_do_not_notice() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::new("cramped", SIZE)?;
    let herd = Herd::start_with(source.address(), SHAPE, cramped)?;
    let pulled = pull(&herd.proxies()?, &source.blob).and_then(|()| {
        // Its own stream, and the one for all others.
        source.sent_at_most(2.0)?;
        ensure!(herd.hosts[0].home.cached()?.is_empty(), "it kept something");
        Ok(())
    });
    herd.told(pulled)
}

/// It lets go of what it is told to fetch, and a host that has room fetches it for all.
#[test]
fn a_seed_without_room_leaves_the_blob_to_a_host() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::new("cramped-seed", SIZE)?;
    let herd = Herd::start_each(source.address(), SHAPE, |mut plan| {
        if plan.id == "seed" {
            plan.swarm = "storage_quota = \"8MiB\"".to_owned();
        }
        plan
    })?;
    let pulled = pull(&herd.proxies()?, &source.blob).and_then(|()| {
        source.sent_at_most(2.0)?;
        let fetches = source.fetches();
        ensure!(fetches.len() <= SHAPE.hosts, "asked {fetches:?}");
        ensure!(herd.seeds[0].home.cached()?.is_empty(), "it kept something");
        Ok(())
    });
    herd.told(pulled)
}

#[test]
fn a_host_whose_disk_fills_half_way_goes_on_and_the_others_do_not_notice() -> Result<()> {
    if !can_herd()? || !can_run(&["mount", "umount"])? {
        return Ok(());
    }
    let disk = Small::mount(DISK)?;
    let source = Source::held_at("full-disk", SIZE, SIZE / 2)?;
    let herd = Herd::start_with(source.address(), SHAPE, |number, mut plan| {
        if number == 2 {
            plan.data_dir = Some(disk.path().to_owned());
            plan.swarm = "min_free = \"0B\"".to_owned();
        }
        plan
    })?;
    let pulled = source.pull_while(&herd.proxies()?, |taken| {
        taken.wait_beyond(4 << 20)?;
        disk.fill()
    });
    let held = pulled.and_then(|()| {
        let left = on_their_own(&herd.hosts[2].darter)?;
        ensure!(left == 1, "{left} bodies went on by themselves");
        // The rest of that one, and the one fetch for all others.
        source.sent_at_most(2.0)
    });
    herd.told(held)
}

#[test]
fn a_client_that_leaves_half_way_takes_nothing_from_the_others() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::held_at("leaves", SIZE, SIZE / 2)?;
    let herd = Herd::start(source.address(), SHAPE)?;
    let proxies = herd.proxies()?;
    let pulled = source.pull_while(&proxies[1..], |taken| {
        let mut client = Request::get(&path(&source.blob)).send(proxies[0])?;
        client.read_exactly(4 << 20)?;
        taken.wait_beyond(4 << 20)
    });
    let held = pulled.and_then(|()| pull(&proxies[..1], &source.blob));
    herd.told(held.and_then(|()| source.fetched_once()))
}

/// Longer than a host goes on with a download that nobody wants.
const LINGERED: Duration = Duration::from_secs(7);

#[test]
fn a_host_whose_client_leaves_goes_on_with_what_it_fetches_for_the_others() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::held_at("fetches-on", SIZE, SIZE / 4)?;
    let herd = Herd::start(
        source.address(),
        Shape {
            seeds: &[],
            ..SHAPE
        },
    )?;
    let proxies = herd.proxies()?;
    let mut first = Request::get(&path(&source.blob)).send(proxies[0])?;
    first.read_exactly(1 << 20)?;
    let pulled = source.pull_while(&proxies[1..], |taken| {
        taken.wait_beyond(4 << 20)?;
        drop(first);
        thread::sleep(LINGERED);
        Ok(())
    });
    herd.told(pulled.and_then(|()| source.fetched_once()))
}

#[test]
fn a_host_that_is_killed_half_way_and_comes_back_gets_the_rest_from_the_others() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::held_at("comes-back", SIZE, SIZE / 2)?;
    let mut herd = Herd::start(source.address(), SHAPE)?;
    let proxies = herd.proxies()?;
    let mut remains = None;
    let pulled = thread::scope(|scope| {
        let first = scope.spawn(|| pull(&proxies[..1], &source.blob));
        let pulled = source.pull_while(&proxies[1..], |taken| {
            taken.wait_beyond(4 << 20)?;
            remains = Some(herd.hosts.remove(0).kill()?);
            Ok(())
        });
        // Its client has seen the end of the host.
        drop(first.join());
        pulled
    });
    let held = pulled.and_then(|()| {
        if let Some(ended) = remains {
            herd.hosts.insert(0, ended.start()?);
            herd.hosts[0].wait_for_sessions(1)?;
            pull_within(PULL_LIMIT, &herd.proxies()?[..1], &source.blob, |_| Ok(()))?;
        }
        source.fetched_once()
    });
    herd.told(held)
}
