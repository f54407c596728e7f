//! An upstream that accepts and says nothing: who can go elsewhere is sent there soon, and the next
//! one at once; who cannot waits; and nobody leaves while another host is fetching.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run,
    cluster::Cluster,
    content::{digest_of, noise},
    darter::{Darter, Home},
    fault_registry::{Fault, FaultRegistry, On, Times},
    http::Whole,
    image::MANIFEST_TYPE,
    process::{Stopwatch, wait_until},
};

use crate::{faults::Asker, herd::alone};

const SIZE: usize = 700_000;

/// How long an upstream says nothing that answers after all.
const SLOW: Duration = Duration::from_secs(5);

/// And one that does not, as far as anybody here waits.
const SILENT: Duration = Duration::from_secs(60);

/// How long who can go elsewhere waits.
const LIMIT: Duration = Duration::from_secs(2);

/// How long a machine that is busy may take for what takes no time.
const BUSY: Duration = Duration::from_secs(20);

/// A node before a registry; who can go elsewhere waits for [`LIMIT`].
struct Stage {
    registry: FaultRegistry,
    darter: Darter,
    proxy: SocketAddr,
    _home: Home,
}

// === impl Stage ===

impl Stage {
    fn start(memory: &str) -> Result<Self> {
        let (registry, home) = (FaultRegistry::start()?, Home::new()?);
        let config = impatient(&alone(&home, registry.address()), memory);
        let darter = Darter::run(&config, &home)?;
        Ok(Self {
            proxy: darter.proxy()?,
            registry,
            darter,
            _home: home,
        })
    }

    fn get(&self, asker: Asker, rest: &str) -> Result<Whole> {
        asker.request("GET", rest).fetch(self.proxy)
    }

    /// A blob, as it is asked for.
    fn put(&self, seed: &str) -> Result<String> {
        put(&self.registry, seed)
    }

    fn asked(&self, rest: &str) -> usize {
        self.registry.fetched(&format!("/{rest}")).len()
    }
}

fn put(registry: &FaultRegistry, seed: &str) -> Result<String> {
    let bytes = noise(seed, SIZE)?;
    let digest = digest_of(&bytes);
    registry.put_blob(&digest, bytes);
    Ok(format!("blobs/{digest}"))
}

fn delay(registry: &FaultRegistry, rest: &str, time: Duration) {
    let slow = Fault::SlowStart(time);
    registry.fail(On::Any, &format!("/{rest}"), Times::Always, slow);
}

fn impatient(config: &str, memory: &str) -> String {
    let limit = LIMIT.as_secs();
    let proxy = format!(
        "[proxy]\ndefault_registry = \"registry.test\"\ntag_ttl = \"0s\"\n\
         upstream_fallback_timeout = \"{limit}s\"\nupstream_fallback_memory = \"{memory}\"\n"
    );
    config.replacen("[proxy]\n", &proxy, 1)
}

fn is_blob(whole: &Whole) -> Result<()> {
    let seen = (whole.status, whole.body.len());
    ensure!(seen == (200, SIZE), "{seen:?}: {}", whole.status);
    Ok(())
}

#[test]
fn who_can_fall_back_does_so_soon_and_who_cannot_gets_the_slow_answer() -> Result<()> {
    let stage = Stage::start("0s")?;
    let rest = stage.put("slow")?;
    delay(&stage.registry, &rest, SLOW);
    thread::scope(|scope| {
        let asking = Asker::ALL.map(|asker| {
            let (stage, rest) = (&stage, &rest);
            let ask = move || {
                let watch = Stopwatch::start();
                (stage.get(asker, rest), watch.elapsed())
            };
            (asker, scope.spawn(ask))
        });
        for (asker, thread) in asking {
            let (whole, took) = thread.join().ok().context("an asker panicked")?;
            let whole = whole.with_context(|| format!("{asker:?}"))?;
            if asker.is_direct() {
                is_blob(&whole).with_context(|| format!("{asker:?}"))?;
            } else {
                let status = asker.promised("slow")?.status;
                ensure!(whole.status == status, "{asker:?}: {}", whole.status);
                ensure!(took < SLOW, "{asker:?} was told after {took:?}");
            }
        }
        anyhow::Ok(())
    })?;
    ensure!(stage.asked(&rest) == 1, "{} fetches", stage.asked(&rest));
    stage.darter.stop()
}

#[test]
fn after_a_silence_nobody_who_can_fall_back_asks_until_somebody_is_answered() -> Result<()> {
    let stage = Stage::start("1h")?;
    let silent = stage.put("silent")?;
    delay(&stage.registry, &silent, SILENT);
    let status = Asker::Mirror.promised("slow")?.status;
    let whole = stage.get(Asker::Mirror, &silent)?;
    ensure!(whole.status == status, "{}", whole.status);
    // Each begins to fetch, and would be given what came; nobody waits for it.
    for asker in [Asker::Mirror, Asker::Namespace] {
        let other = stage.put(&format!("{asker:?}"))?;
        delay(&stage.registry, &other, SILENT);
        for method in ["GET", "HEAD"] {
            let watch = Stopwatch::start();
            let whole = asker.request(method, &other).fetch(stage.proxy)?;
            let (told, took) = (whole.status, watch.elapsed());
            ensure!(told == status, "{method} as {asker:?}: {told}");
            ensure!(took < LIMIT, "{method} as {asker:?} waited {took:?}");
        }
    }
    stage.registry.put_manifest("latest", MANIFEST_TYPE, "{}");
    let tag = stage.get(Asker::Mirror, "manifests/latest")?;
    ensure!(
        tag.status == 200,
        "the registry is not silent: {}",
        tag.status
    );
    is_blob(&stage.get(Asker::ByPath, &stage.put("for one who has nowhere to go")?)?)?;
    is_blob(&stage.get(Asker::Namespace, &stage.put("over")?)?)?;
    stage.darter.stop()
}

#[test]
fn a_silence_that_nobody_sees_end_is_forgotten() -> Result<()> {
    let stage = Stage::start("2s")?;
    let rest = stage.put("silent for a while")?;
    delay(&stage.registry, &rest, SILENT);
    let whole = stage.get(Asker::Namespace, &rest)?;
    let status = Asker::Namespace.promised("slow")?.status;
    ensure!(whole.status == status, "{}", whole.status);
    let other = stage.put("asked for again")?;
    wait_until("somebody asks again", BUSY, || {
        let whole = stage.get(Asker::Namespace, &other);
        whole.is_ok_and(|whole| is_blob(&whole).is_ok())
    })?;
    stage.darter.stop()
}

/// The answer that is known is somewhere else to go, for everybody.
#[test]
fn a_known_tag_is_answered_stale_soon_and_the_next_one_without_asking() -> Result<()> {
    let stage = Stage::start("1h")?;
    let known = ["one", "two"].map(|tag| format!("manifests/{tag}"));
    for rest in &known {
        let tag = rest.trim_start_matches("manifests/");
        let body = format!("{{\"tag\":\"{tag}\"}}");
        stage.registry.put_manifest(tag, MANIFEST_TYPE, body);
        ensure!(stage.get(Asker::ByPath, rest)?.status == 200);
        delay(&stage.registry, rest, SILENT);
    }
    let asked = stage.asked(&known[1]);
    for rest in &known {
        let watch = Stopwatch::start();
        let whole = stage.get(Asker::ByPath, rest)?;
        let seen = (whole.status, whole.header("warning").is_some());
        ensure!(seen == (200, true), "{rest}: {seen:?}");
        ensure!(watch.elapsed() < BUSY, "{rest}: {:?}", watch.elapsed());
    }
    ensure!(stage.asked(&known[1]) == asked, "it was asked again");
    stage.darter.stop()
}

/// The seed waits for a slow upstream, and the host of the client for the seed, who is alive.
#[test]
fn a_host_that_waits_for_the_fetcher_of_its_cluster_does_not_send_its_client_away() -> Result<()> {
    if !can_run(&["setpriv"])? {
        return Ok(());
    }
    let registry = FaultRegistry::start()?;
    let cluster = Cluster::new(registry.address(), "scheduler", "seed")?;
    let _scheduler = cluster.start("scheduler", &[Role::Scheduler])?;
    let _seed = cluster.start("seed", &[Role::Seed])?;
    let papers = cluster.papers("proxy", &[Role::Proxy])?;
    let home = Home::new()?;
    let plan = cluster.plan("proxy", &[Role::Proxy]);
    let config = cluster.config(&home, &plan, Some(&papers))?;
    let darter = Darter::run(&impatient(&config, "30s"), &home)?;
    wait_until("a session", BUSY, || {
        darter.log().is_ok_and(|log| log.contains("session open"))
    })?;
    let rest = put(&registry, "slow for the seed")?;
    delay(&registry, &rest, SLOW);
    for asker in [Asker::Namespace, Asker::Mirror] {
        is_blob(&asker.request("GET", &rest).fetch(darter.proxy()?)?)?;
    }
    let asked = registry.fetched(&format!("/{rest}")).len();
    ensure!(asked == 1, "the upstream was asked {asked} times");
    darter.stop()
}
