//! What is counted: the list that users read and what hosts show are the same, once everything that
//! is counted has happened.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run,
    cluster::{Cluster, EVERYTHING, Member},
    content::{digest_of, noise},
    fault_registry::{Fault, FaultRegistry, Guard, On, Times},
    http::Request,
    image::MANIFEST_TYPE,
};

use crate::pull::digest_through;

const README: &str = include_str!("../../README.md");

/// Longer than one piece.
const SIZE: usize = 3 << 20;

/// The metrics in README's table: words in code quotes that begin as all metrics do.
fn listed() -> BTreeSet<String> {
    let words = README.split('`');
    let metrics = words.filter(|word| word.starts_with("darter_"));
    metrics.map(str::to_owned).collect()
}

fn shown(hosts: &[&Member]) -> Result<BTreeSet<String>> {
    let mut shown = BTreeSet::new();
    for host in hosts {
        let text = host.darter.metrics()?;
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names = families.filter_map(|line| line.split(' ').next());
        shown.extend(names.map(str::to_owned));
    }
    Ok(shown)
}

#[test]
fn all_that_is_counted_is_documented_and_all_that_is_documented_is_counted() -> Result<()> {
    if !can_run(&["setpriv"])? {
        return Ok(());
    }
    let bytes = noise("counted", SIZE)?;
    let digest = digest_of(&bytes);
    let registry = FaultRegistry::start()?;
    registry.put_blob(&digest, bytes);
    registry.put_manifest("latest", MANIFEST_TYPE, "{}");
    // A token is bought, and a request is made again.
    registry.guard(Guard::Token);
    registry.fail(On::Get, &digest, Times::First(1), Fault::Status(503));
    let cluster = Cluster::new(registry.address(), "first", "first")?;
    let first = cluster.start("first", &EVERYTHING)?;
    // What Docker Hub says of its rate limit is counted of no other registry.
    let hub = format!(
        "[[proxy.registry]]\nname = \"docker.io\"\nendpoint = \"http://{}\"\n",
        registry.address()
    );
    let mut plan = cluster.plan("second", &[Role::Proxy]);
    plan.swarm = hub;
    let second = cluster.start_as(&plan)?;
    second.wait_for_sessions(1)?;
    // From the registry to the first host, and from there to the second.
    let blob = format!("/v2/team/image/blobs/{digest}?ns=registry.test");
    let given = digest_through(second.darter.proxy()?, &blob)?;
    ensure!(given == digest, "wrong bytes: {given}");
    let ask = |path: &str| Ok(Request::get(path).fetch(second.darter.proxy()?)?.status);
    let statuses: Result<Vec<u16>> = [
        "/v2/",
        "/v2/team/image/manifests/latest?ns=registry.test",
        "/v2/team/image/manifests/latest?ns=docker.io",
        "/v2/evil.example/team/image/manifests/latest",
    ]
    .map(ask)
    .into_iter()
    .collect();
    let statuses = statuses?;
    ensure!(statuses == [200, 200, 200, 403], "{statuses:?}");
    let (listed, shown) = (listed(), shown(&[&first, &second])?);
    let hidden: Vec<_> = shown.difference(&listed).collect();
    ensure!(hidden.is_empty(), "README does not list {hidden:?}");
    let invented: Vec<_> = listed.difference(&shown).collect();
    ensure!(invented.is_empty(), "nothing is counted as {invented:?}");
    Ok(())
}
