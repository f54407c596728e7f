//! A herd in which every host gives to one other at a time and has few descriptors: who finds no slot
//! waits or asks another, all pulls end right, and nobody goes to the registry for it.

use anyhow::{Result, ensure};
use registry_compat_tests::cluster::{Member, Plan};

use super::{Herd, Shape, can_herd, pull, source::Source};

const SIZE: usize = 32 << 20;

const SHAPE: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed"],
    hosts: 8,
};

/// Files and sockets that each process may have open: twice what the busiest has here.
const DESCRIPTORS: u64 = 128;

/// What nobody logs who gets along with what it has.
const TROUBLE: [&str; 3] = ["panicked", "\"level\":\"ERROR\"", "os error 24"];

fn narrow(mut plan: Plan) -> Plan {
    plan.swarm = "upload_slots = 1".to_owned();
    plan
}

fn gets_along(member: &Member) -> Result<()> {
    let log = member.darter.log()?;
    let trouble = log
        .lines()
        .find(|line| TROUBLE.iter().any(|word| line.contains(word)));
    ensure!(trouble.is_none(), "{}: {trouble:?}", member.id());
    Ok(())
}

#[test]
fn a_herd_of_hosts_with_one_slot_and_few_descriptors_ends_right() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::new("narrow", SIZE)?;
    let herd = Herd::start_each(source.address(), SHAPE, narrow)?;
    for member in herd.members() {
        member.darter.limit_descriptors(DESCRIPTORS)?;
    }
    let proxies = herd.proxies()?;
    let pulled = pull(&proxies, &source.blob).and_then(|()| {
        source.fetched_once()?;
        let mut refused = 0.0;
        for member in herd.members() {
            gets_along(member)?;
            // It answers still, and tells how often it had no slot.
            refused += member.darter.metric("darter_swarm_upload_refusals_total")?;
        }
        ensure!(0.0 < refused, "nobody was ever short of a slot");
        Ok(())
    });
    herd.told(pulled)
}
