//! The line that is logged of each request: where its bytes came from, what was asked for, and why
//! it was refused.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run,
    cluster::Cluster,
    content::{digest_of, noise},
    darter::{Darter, Home},
    fault_registry::{Fault, FaultRegistry, On, Sluice, Times},
    http::{Request, Whole},
    process::wait_until,
};
use serde_json::{Value, json};

use crate::{faults::Asker, herd::alone};

const SIZE: usize = 700_000;

/// How long a line may be on its way.
const LINE_LIMIT: Duration = Duration::from_secs(20);

/// A blob that `registry` has, and its digest.
fn put(registry: &FaultRegistry, seed: &str) -> Result<String> {
    let bytes = noise(seed, SIZE)?;
    let digest = digest_of(&bytes);
    registry.put_blob(&digest, bytes);
    Ok(digest)
}

fn get(asker: Asker, digest: &str) -> Request {
    asker.request("GET", &format!("blobs/{digest}"))
}

fn is_whole(whole: &Whole) -> Result<()> {
    let seen = (whole.status, whole.body.len());
    ensure!(seen == (200, SIZE), "{seen:?}");
    Ok(())
}

/// The lines of requests that name `reference`, once there are so many.
fn lines(darter: &Darter, reference: &str, count: usize) -> Result<Vec<Value>> {
    let read = || -> Vec<Value> {
        let log = darter.log().unwrap_or_default();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|line: &Value| line["message"] == "request" && line["reference"] == reference)
            .collect()
    };
    wait_until("the lines", LINE_LIMIT, || count <= read().len())
        .with_context(|| darter.log().unwrap_or_default())?;
    Ok(read())
}

/// Whether `line` has all of `expect`, and whether its bytes add up.
fn says(line: &Value, expect: &Value) -> Result<()> {
    let pairs = expect.as_object().context("an object")?;
    for (key, value) in pairs {
        ensure!(line[key] == *value, "{key} is not {value}: {line}");
    }
    let bytes = |key: &str| line[key].as_u64().with_context(|| format!("{key}: {line}"));
    let by_origin = ["bytes_hit", "bytes_joined", "bytes_swarm", "bytes_source"];
    let sum: u64 = by_origin
        .iter()
        .map(|key| bytes(key))
        .sum::<Result<u64>>()?;
    // Bytes of a refusal came from nowhere.
    let served = bytes("bytes")?;
    ensure!(line["fault"].is_string() || served == sum, "{line}");
    ensure!(bytes("first_byte_ms")? <= bytes("total_ms")?, "{line}");
    Ok(())
}

#[test]
fn a_line_tells_the_client_the_name_the_range_and_where_each_byte_came_from() -> Result<()> {
    let (registry, home) = (FaultRegistry::start()?, Home::new()?);
    let darter = Darter::run(&alone(&home, registry.address()), &home)?;
    let proxy = darter.proxy()?;
    let digest = put(&registry, "source, then hit")?;
    // A line is written after the last byte was read: the next request could be before it.
    for count in 1..=2 {
        is_whole(&get(Asker::Namespace, &digest).fetch(proxy)?)?;
        lines(&darter, &digest, count)?;
    }
    let part = get(Asker::ByPath, &digest).header("Range", "bytes=300000-399999");
    ensure!(part.fetch(proxy)?.status == 206);
    lines(&darter, &digest, 3)?;
    let head = Asker::ByPath.request("HEAD", &format!("blobs/{digest}"));
    ensure!(head.fetch(proxy)?.status == 200);
    let told = lines(&darter, &digest, 4)?;
    let common = json!({
        "client": "containerd", "kind": "blob", "method": "GET", "status": 200,
        "registry": "registry.test", "repository": "team/app", "bytes": SIZE,
    });
    says(&told[0], &common)?;
    says(&told[0], &json!({"bytes_source": SIZE}))?;
    says(&told[1], &common)?;
    says(&told[1], &json!({"bytes_hit": SIZE}))?;
    ensure!(told[1]["fault"].is_null(), "{}", told[1]);
    let of_part = json!({
        "client": "containers-image", "status": 206, "range": "bytes=300000-399999",
        "bytes": 100_000, "bytes_hit": 100_000,
    });
    says(&told[2], &of_part)?;
    says(
        &told[3],
        &json!({"method": "HEAD", "status": 200, "bytes": 0}),
    )?;
    darter.stop()
}

#[test]
fn bytes_that_another_request_was_fetching_are_told_as_joined() -> Result<()> {
    let (registry, home) = (FaultRegistry::start()?, Home::new()?);
    let darter = Darter::run(&alone(&home, registry.address()), &home)?;
    let digest = put(&registry, "joined")?;
    let sluice = Sluice::at(SIZE / 2);
    let path = format!("/blobs/{digest}");
    registry.fail(
        On::Get,
        &path,
        Times::Always,
        Fault::Sluiced(sluice.clone()),
    );
    let first = get(Asker::Namespace, &digest).send(darter.proxy()?)?;
    let second = get(Asker::ByPath, &digest).send(darter.proxy()?)?;
    sluice.open();
    is_whole(&first.whole()?)?;
    is_whole(&second.whole()?)?;
    let told = lines(&darter, &digest, 2)?;
    let joined = |line: &&Value| line["client"] == "containers-image";
    let joined = told.iter().find(joined).context("no line of the second")?;
    let by = (&joined["bytes_joined"], &joined["bytes_hit"]);
    let sum = by.0.as_u64().zip(by.1.as_u64()).map(|(a, b)| a + b);
    ensure!(sum == Some(SIZE as u64) && *by.0 != 0, "{joined}");
    darter.stop()
}

#[test]
fn bytes_of_another_host_are_told_as_of_the_swarm() -> Result<()> {
    if !can_run(&["setpriv"])? {
        return Ok(());
    }
    let registry = FaultRegistry::start()?;
    let cluster = Cluster::new(registry.address(), "scheduler", "seed")?;
    let _scheduler = cluster.start("scheduler", &[Role::Scheduler])?;
    let _seed = cluster.start("seed", &[Role::Seed])?;
    let proxy = cluster.start("proxy", &[Role::Proxy])?;
    let digest = put(&registry, "swarm")?;
    is_whole(&get(Asker::Namespace, &digest).fetch(proxy.darter.proxy()?)?)?;
    let told = lines(&proxy.darter, &digest, 1)?;
    says(&told[0], &json!({"bytes_swarm": SIZE, "bytes_source": 0}))
}

/// Those who can fall back get one status for everything; the line says what it was.
#[test]
fn a_refused_request_tells_its_fault_and_so_does_a_body_that_was_cut() -> Result<()> {
    let (registry, home) = (FaultRegistry::start()?, Home::new()?);
    let darter = Darter::run(&alone(&home, registry.address()), &home)?;
    let fails = [
        ("blob-unknown", None),
        ("failing", Some(Fault::Status(500))),
        ("limited", Some(Fault::Limited { retry_after: 99 })),
        ("corrupt", Some(Fault::WrongByte(9))),
    ];
    for (label, fault) in fails {
        let mut digest = digest_of(label.as_bytes());
        if let Some(fault) = fault {
            digest = put(&registry, label)?;
            let path = format!("/blobs/{digest}");
            registry.fail(On::Any, &path, Times::Always, fault);
        }
        let status = get(Asker::Namespace, &digest)
            .fetch(darter.proxy()?)?
            .status;
        let told = lines(&darter, &digest, 1)?;
        says(&told[0], &json!({"fault": label, "status": status}))?;
        ensure!(
            told[0]["broken"].is_string() == (status == 200),
            "{}",
            told[0]
        );
    }
    darter.stop()
}
