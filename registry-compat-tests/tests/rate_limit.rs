//! A registry that says how few of its answers are left: who has an older one leaves it alone.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    darter::{Darter, Home},
    fault_registry::{Fault, FaultRegistry, On, Times},
    http::{Request, Whole},
    image::MANIFEST_TYPE,
};

use crate::herd::alone;

/// The manifest that `tag` stands for at the moment.
fn put(registry: &FaultRegistry, tag: &str, version: &str) -> String {
    let bytes = format!("{{\"schemaVersion\":2,\"of\":\"{tag}\",\"version\":\"{version}\"}}");
    registry.put_manifest(tag, MANIFEST_TYPE, bytes.clone());
    bytes
}

/// From now on every answer tells how many of 100 are left.
fn tells(registry: &FaultRegistry, remaining: &'static str) {
    registry.heal("");
    let told = Fault::Header("RateLimit-Remaining", remaining);
    registry.fail(On::Any, "", Times::Always, told);
}

fn pull(proxy: SocketAddr, tag: &str) -> Result<Whole> {
    let path = format!("/v2/team/app/manifests/{tag}?ns=registry.test");
    let whole = Request::get(&path).fetch(proxy)?;
    ensure!(whole.status == 200, "{tag}: {}", whole.text());
    Ok(whole)
}

#[test]
fn a_tag_that_is_known_waits_while_the_registry_has_few_answers_left() -> Result<()> {
    let (registry, home) = (FaultRegistry::start()?, Home::new()?);
    let plain = alone(&home, registry.address());
    let config = plain.replace("[proxy]\n", "[proxy]\ntag_ttl = \"0s\"\n");
    ensure!(config != plain, "no place for the key");
    let darter = Darter::run(&config, &home)?;
    let proxy = darter.proxy()?;
    let first = put(&registry, "moving", "first");
    let other = put(&registry, "other", "only");
    tells(&registry, "5;w=3600");
    ensure!(pull(proxy, "moving")?.text() == first);
    let second = put(&registry, "moving", "second");
    let asked = registry.asked("moving").len();
    let held = pull(proxy, "moving")?;
    let warning = held.header("warning").context("no Warning")?;
    ensure!(held.text() == first && warning.contains("few questions"));
    ensure!(registry.asked("moving").len() == asked, "it was asked");
    ensure!(darter.metric("darter_proxy_tags_total{answer=\"held\"")? > 0.5);
    // Who has no older answer asks, and what he is told is good for all.
    ensure!(pull(proxy, "other")?.text() == other);
    ensure!(pull(proxy, "moving")?.text() == first);
    let newer = put(&registry, "newer", "only");
    tells(&registry, "76;w=3600");
    ensure!(pull(proxy, "newer")?.text() == newer);
    ensure!(pull(proxy, "moving")?.text() == second, "still held back");
    darter.stop()
}
