//! A parent that is lost in the middle of a piece: killed, stopped, or cut off from its children
//! while its scheduler still hears it. What it owed is had from others, and not from the registry.

use anyhow::{Result, ensure};
use protocol::Role;
use registry_compat_tests::{cable::Cable, cluster::Member, process::wait_until};

use super::{
    HERD_LIMIT, Herd, Shape, can_herd, parents::PULL_LIMIT, parents::impatient, pull, pull_within,
    source::Source,
};

const SIZE: usize = 32 << 20;

/// What the parent can say before it is lost: its handshakes, its batches, and some pieces.
const SAID: u64 = 3 << 20;

const SHAPE: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed"],
    hosts: 3,
};

/// How the parent is lost, after its cable is cut.
type Loss = fn(Cable, Member) -> Result<Option<(Cable, Member)>>;

fn check(name: &str, lose: Loss) -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::new(name, SIZE)?;
    let herd = Herd::start_with(source.address(), SHAPE, impatient)?;
    let mut plan = herd.cluster.plan("a-parent", &[Role::Proxy]);
    let listen = herd.cluster.address(65002);
    let cable = Cable::start(listen, SAID)?;
    plan.listen = Some(listen);
    plan.swarm = format!("advertise = \"{}\"", cable.address());
    let parent = herd.cluster.start_as(&plan)?;
    parent.wait_for_sessions(1)?;
    pull(&[parent.darter.proxy()?], &source.blob)?;
    ensure!(!cable.is_cut(), "it spoke before it was asked");
    let proxies = herd.proxies()?;
    let mut lost = None;
    let pulled = pull_within(PULL_LIMIT, &proxies, &source.blob, |_| {
        wait_until("the parent is in the middle", HERD_LIMIT, || cable.is_cut())?;
        lost = lose(cable, parent)?;
        Ok(())
    });
    let held = pulled.and_then(|()| source.fetched_once());
    drop(lost);
    herd.told(held)
}

#[test]
fn a_parent_that_is_killed_in_the_middle_of_a_piece_is_replaced() -> Result<()> {
    check("killed-parent", |cable, parent| {
        parent.kill()?;
        drop(cable);
        Ok(None)
    })
}

#[test]
fn a_parent_that_stands_still_in_the_middle_of_a_piece_is_replaced() -> Result<()> {
    check("stopped-parent", |cable, parent| {
        parent.darter.signal("STOP")?;
        Ok(Some((cable, parent)))
    })
}

#[test]
fn a_parent_that_is_cut_off_from_its_children_alone_is_replaced() -> Result<()> {
    check("cut-parent", |cable, parent| Ok(Some((cable, parent))))
}
