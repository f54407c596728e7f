//! What an operator asks of a cluster of real processes: to have an image before anybody pulls it,
//! what goes on, and why.

use std::{collections::BTreeSet, sync::atomic::AtomicU64, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run,
    cluster::{Cluster, Member},
    content::{digest_of, noise},
    darter::{Darter, Home},
    fault_registry::{FaultRegistry, Guard},
    image::{Blob, Image, MANIFEST_TYPE},
    process::{self, Finished, wait_until},
    registry::Registry,
};
use serde_json::Value;

use crate::{
    herd::alone,
    pull::{digest_through, digest_while, joined},
    stage::{golden, workspace},
    two_hosts::{FLOW_LIMIT, Pair, path},
};

/// The longest that a command may take here.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

const IMAGE: &str = "registry.test/team/warm";

/// Four hosts before one registry: a scheduler, a seed, and two that runtimes would ask.
struct Ward {
    /// All of them; the last two have a proxy.
    hosts: Vec<Member>,
    registry: Registry,
    image: Image,
    _directory: tempfile::TempDir,
}

// === impl Ward ===

impl Ward {
    fn start() -> Result<Self> {
        Self::start_after(|_, _| Ok(()))
    }

    /// `change` is done to the registry once the image is there, and before anybody asks.
    fn start_after(change: impl FnOnce(&Registry, &Image) -> Result<()>) -> Result<Self> {
        let directory = workspace()?;
        let image = Image::small(&directory.path().join("image"), "warm")?;
        let content = directory.path().join("registry");
        let registry = Registry::start(&content)?;
        registry.push(&image, "team/warm")?;
        change(&registry, &image)?;
        registry.stop()?;
        let registry = Registry::start(&content)?;
        let cluster = Cluster::new(registry.address(), "scheduler", "seed")?;
        let hosts = [
            ("scheduler", Role::Scheduler),
            ("seed", Role::Seed),
            ("first", Role::Proxy),
            ("second", Role::Proxy),
        ];
        let hosts = hosts.map(|(id, role)| cluster.start(id, &[role]));
        Ok(Self {
            hosts: hosts.into_iter().collect::<Result<_>>()?,
            registry,
            image,
            _directory: directory,
        })
    }

    /// What `darter preheat` on the first host told.
    fn preheat(&self, words: &[&str]) -> Result<Finished> {
        let words = [&["preheat", IMAGE], words].concat();
        process::run(self.hosts[2].home.operate(&words), COMMAND_LIMIT)
    }

    /// Fails unless every blob of the image was asked of the registry so many times.
    fn fetched(&self, times: usize) -> Result<()> {
        for Blob { digest, .. } in self.image.blobs() {
            let fetches = self.registry.fetches_of(&digest)?;
            ensure!(fetches == times, "{digest} was asked for {fetches} times");
        }
        Ok(())
    }

    /// How many blobs of the image each host keeps whole.
    fn kept(&self) -> Result<Vec<usize>> {
        let blobs: BTreeSet<_> = self
            .image
            .blobs()
            .into_iter()
            .map(|blob| blob.digest)
            .collect();
        let count = |host: &Member| {
            let cached = host.home.cached()?.into_iter();
            let whole = cached.filter(|entry| entry.is_complete && blobs.contains(&entry.digest));
            Ok(whole.count())
        };
        self.hosts.iter().map(count).collect()
    }
}

/// Fails unless every content was done, by so many of so many hosts.
fn all_done(told: &str, contents: usize, hosts: &str) -> Result<()> {
    let done = told.lines().filter(|line| line.starts_with("done "));
    let by_all = done.filter(|line| line.ends_with(hosts));
    let count = by_all.count();
    ensure!(
        count == contents,
        "{count} of {contents} are at {hosts}:\n{told}"
    );
    Ok(())
}

/// What a host tells programs.
fn told(host: &Member, words: &[&str]) -> Result<Value> {
    let words = [words, &["--json"]].concat();
    let text = process::check(host.home.operate(&words), COMMAND_LIMIT)?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

#[test]
fn an_image_is_preheated_on_the_seed_then_on_all_and_is_served_without_its_registry() -> Result<()>
{
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let ward = Ward::start()?;
    let refused = ward.preheat(&["--platform", "linux/riscv64"])?;
    ensure!(!refused.status.success(), "{}", refused.output);
    let names = "it has linux/amd64, linux/arm64";
    ensure!(refused.output.contains(names), "{}", refused.output);
    ward.fetched(0)?;

    let blobs = ward.image.blobs().len();
    // The index and a manifest for each platform come on top.
    let contents = blobs + 1 + ward.image.platforms.len();
    let seeds = ["--all-platforms", "--scope", "seeds"];
    all_done(&ward.preheat(&seeds)?.success()?, contents, " 1/1 hosts")?;
    ward.fetched(1)?;
    ensure!(ward.kept()? == [0, blobs, 0, 0], "{:?}", ward.kept()?);
    all_done(&ward.preheat(&seeds)?.success()?, contents, " 1/1 hosts")?;

    let all = ["--all-platforms", "--scope", "all"];
    for _ in 0..2 {
        all_done(&ward.preheat(&all)?.success()?, contents, " 4/4 hosts")?;
        ensure!(ward.kept()? == [blobs; 4], "{:?}", ward.kept()?);
    }
    ward.fetched(1)?;

    let Ward {
        hosts,
        registry,
        image,
        _directory,
    } = ward;
    registry.stop()?;
    for host in &hosts[2..] {
        for Blob { digest, .. } in image.blobs() {
            let path = format!("/v2/team/warm/blobs/{digest}?ns=registry.test");
            let given = digest_through(host.darter.proxy()?, &path)?;
            ensure!(given == digest, "wrong bytes: {given}");
        }
    }
    Ok(())
}

#[test]
fn one_platform_of_an_image_is_preheated_and_no_other() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let ward = Ward::start()?;
    let other = ward
        .image
        .platforms
        .iter()
        .find(|one| one.architecture == "arm64");
    let other = other.context("there is an arm64")?;
    let told = ward.preheat(&["--platform", "linux/arm64/v8"])?.success()?;
    // With its layers come the index, the manifest and the config.
    all_done(&told, 3 + other.layers.len(), " 1/1 hosts")?;
    for one in &ward.image.platforms {
        let fetches = ward.registry.fetches_of(&one.config.digest)?;
        let expect = usize::from(one.architecture == "arm64");
        ensure!(fetches == expect, "{}: {fetches} fetches", one.architecture);
    }
    Ok(())
}

#[test]
fn a_content_that_the_registry_does_not_have_is_told_of() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let ward = Ward::start_after(|registry, image| {
        registry.forget("team/warm", &image.biggest()?.digest)
    })?;
    let lost = &ward.image.biggest()?.digest;
    let told = ward.preheat(&["--all-platforms", "--scope", "all"])?;
    ensure!(!told.status.success(), "{}", told.output);
    let failed = format!("failed {lost}");
    let line = told.output.lines().find(|line| line.starts_with(&failed));
    let line = line.with_context(|| told.output.clone())?;
    ensure!(line.ends_with("the registry does not have it"), "{line}");
    let contents = ward.image.blobs().len() + 1 + ward.image.platforms.len();
    let sentence = format!("1 of {contents} contents failed");
    ensure!(told.output.contains(&sentence), "{}", told.output);
    // One host has asked for what is not there, for all of them.
    let asked = ward.registry.fetches_of(lost)?;
    ensure!(asked == 1, "the registry was asked {asked} times");
    Ok(())
}

#[test]
fn explain_and_status_tell_of_a_download_while_it_runs() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let half = golden()?.image.biggest()?.size / 2;
    let pair = Pair::apart_before_gate(half)?;
    let blob = pair.blob()?;
    let (path, taken) = (path(&blob), AtomicU64::new(0));
    thread::scope(|scope| {
        let pull = scope.spawn(|| digest_while(pair.first.darter.proxy()?, &path, &taken));
        let seen = running(&pair, &blob);
        // Whatever came of it, the client must not wait for ever.
        pair.relay.open();
        let digest = joined(pull)?;
        ensure!(digest == blob.digest, "wrong bytes: {digest}");
        seen
    })
    .with_context(|| pair.logs())?;
    let status = told(&pair.first, &["status"])?;
    ensure!(status["bytes"]["swarm"] == blob.size, "{status}");
    ensure!(status["moved"]["source"] == 0, "{status}");
    let seed = told(&pair.others[1], &["status"])?;
    ensure!(seed["moved"]["source"] == blob.size, "{seed}");
    ensure!(seed["moved"]["uploaded"] == blob.size, "{seed}");
    Ok(())
}

/// What is told of the biggest layer while the registry has stopped in the middle of it.
fn running(pair: &Pair, blob: &Blob) -> Result<()> {
    let explain = || -> Result<Value> { told(&pair.second, &["explain", &blob.digest]) };
    let first = |explained: &Value| {
        let children = explained["children"].as_array()?;
        children
            .iter()
            .find(|child| child["host"] == "first")
            .cloned()
    };
    let is_fed = |child: &Value| child["state"] == "fed";
    wait_until("the first host has a parent", FLOW_LIMIT, || {
        explain().is_ok_and(|explained| first(&explained).is_some_and(|child| is_fed(&child)))
    })?;
    let explained = explain()?;
    let child = first(&explained).with_context(|| explained.to_string())?;
    let candidate = |id: &str| {
        let all = child["candidates"].as_array();
        let all = all.into_iter().flatten();
        all.clone()
            .find(|one| one["host"] == id)
            .cloned()
            .unwrap_or_default()
    };
    let (seed, itself) = (candidate("seed"), candidate("first"));
    ensure!(seed["is_parent"] == true, "{explained}");
    ensure!(
        seed["score"].as_f64().is_some_and(|score| 0.0 < score),
        "{explained}"
    );
    ensure!(seed["parts"][0]["name"] == "pieces", "{explained}");
    ensure!(itself["refusal"] == "itself", "{explained}");

    let scheduler = told(&pair.others[0], &["status"])?;
    let tasks = scheduler["scheduler"]["tasks"].as_array();
    let task = tasks.and_then(|tasks| tasks.iter().find(|task| task["task"] == *blob.digest));
    let task = task.with_context(|| scheduler.to_string())?;
    ensure!(
        task["phase"] == "fetching" && task["source"] == "seed",
        "{task}"
    );
    ensure!(scheduler["scheduler"]["host_count"] == 4, "{scheduler}");
    let status = told(&pair.first, &["status"])?;
    let sessions = serde_json::json!({"open": 1, "known": 1});
    ensure!(status["sessions"] == sessions, "{status}");
    ensure!(status["downloads"][0]["task"] == *blob.digest, "{status}");
    ensure!(status["scheduler"].is_null(), "{status}");
    Ok(())
}

#[test]
fn a_private_image_is_not_preheated_and_the_reason_is_told() -> Result<()> {
    if !can_run(&["setpriv"])? {
        return Ok(());
    }
    let registry = FaultRegistry::start()?;
    registry.put_manifest("latest", MANIFEST_TYPE, "{}");
    registry.guard(Guard::Basic);
    let home = Home::new()?;
    let _node = Darter::run(&alone(&home, registry.address()), &home)?;
    let refused = process::run(home.operate(&["preheat", IMAGE]), COMMAND_LIMIT)?;
    ensure!(!refused.status.success(), "{}", refused.output);
    let reason = "this version preheats public images only";
    ensure!(refused.output.contains(reason), "{}", refused.output);
    ensure!(
        registry
            .asked("/latest")
            .iter()
            .all(|asked| !asked.is_authorized)
    );
    registry.guard(Guard::Open);
    let unread = process::run(home.operate(&["preheat", IMAGE]), COMMAND_LIMIT)?;
    let reason = "neither an index nor a manifest";
    ensure!(unread.output.contains(reason), "{}", unread.output);
    Ok(())
}

#[test]
fn a_content_that_is_removed_is_gone_and_can_be_had_again() -> Result<()> {
    if !can_run(&["setpriv"])? {
        return Ok(());
    }
    let (kept, removed) = (noise("kept", 300 << 10)?, noise("removed", 300 << 10)?);
    let digests = [digest_of(&kept), digest_of(&removed)];
    let registry = FaultRegistry::start()?;
    registry.put_blob(&digests[0], kept);
    registry.put_blob(&digests[1], removed);
    let home = Home::new()?;
    let node = Darter::run(&alone(&home, registry.address()), &home)?;
    let pull = |digest: &str| {
        let path = format!("/v2/team/image/blobs/{digest}?ns=registry.test");
        let given = digest_through(node.proxy()?, &path)?;
        ensure!(given == digest, "wrong bytes: {given}");
        Ok(())
    };
    let is_cached = |digest: &str| {
        let cached = home.cached()?;
        Ok::<_, anyhow::Error>(cached.iter().any(|entry| entry.digest == digest))
    };
    for digest in &digests {
        pull(digest)?;
        ensure!(is_cached(digest)?, "{digest} is not kept");
    }
    let [kept, removed] = &digests;
    let remove = || process::run(home.operate(&["cache", "rm", removed]), COMMAND_LIMIT);
    remove()?.success()?;
    ensure!(is_cached(kept)? && !is_cached(removed)?);
    let again = remove()?;
    ensure!(!again.status.success(), "{}", again.output);
    for digest in &digests {
        pull(digest)?;
    }
    let asked = digests.each_ref().map(|digest| {
        let asked = registry.asked(digest);
        asked.iter().filter(|asked| asked.method == "GET").count()
    });
    ensure!(asked == [1, 2], "the registry was asked {asked:?} times");
    Ok(())
}
