//! A host that is killed at random moments of pulls: after a restart it serves what verifies, or
//! fetches it again; never a wrong byte, never a hang.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use registry_compat_tests::{
    can_run,
    content::digest_of,
    darter::{Darter, Home},
    fault_registry::{Fault, FaultRegistry, On, Times, Trickle},
    http::{Ending, Request},
    image::{INDEX_TYPE, Image, MANIFEST_TYPE},
    process::{Stopwatch, wait_until},
};

use crate::{herd::alone, pull::joined, stage::workspace};

/// Kills, in all; each is a moment of its own.
const KILLS: u64 = 200;

/// A store lives through so many kills, each in the pulls that go on where the last one cut them,
/// before all of it is pulled whole and an empty one takes its place.
const KILLS_PER_STORE: u64 = 2;

/// The latest moment of a kill after the registry has begun to send. The biggest layer takes longer.
const MOMENT_MS_MAX: u64 = 200;

/// The longest that a host may take from its start to its first bytes from the registry.
const BEGIN_LIMIT: Duration = Duration::from_secs(20);

/// How bodies come while a host is about to be killed: the biggest layer takes a quarter of a second
/// at least, and a manifest comes at once.
const PACE: Trickle = Trickle {
    first_after: Duration::ZERO,
    step: 32 << 10,
    every: Duration::from_millis(4),
    steps: 1 << 10,
};

/// All of an image: what a client asks for, and the digest of what it must get.
struct Wanted {
    path: String,
    digest: String,
}

/// The registry with an image, whose answers can be slowed.
struct Source {
    registry: FaultRegistry,
    wanted: Vec<Wanted>,
}

// === impl Source ===

impl Source {
    /// Has `image`: its blobs, its manifests by digest, and its index by tag.
    fn of(image: &Image) -> Result<Self> {
        let registry = FaultRegistry::start()?;
        let mut wanted = Vec::new();
        let mut want = |kind: &str, reference: &str, digest: &str| {
            wanted.push(Wanted {
                path: format!("/v2/team/small/{kind}/{reference}?ns=registry.test"),
                digest: digest.to_owned(),
            });
        };
        for blob in image.blobs() {
            registry.put_blob(&blob.digest, image.bytes(&blob.digest)?);
            want("blobs", &blob.digest, &blob.digest);
        }
        for platform in &image.platforms {
            let digest = &platform.manifest.digest;
            registry.put_manifest(digest, MANIFEST_TYPE, image.bytes(digest)?);
            want("manifests", digest, digest);
        }
        let index = &image.index.digest;
        registry.put_manifest("latest", INDEX_TYPE, image.bytes(index)?);
        want("manifests", "latest", index);
        Ok(Self { registry, wanted })
    }

    fn slow_down(&self) {
        let always = Times::Always;
        self.registry
            .fail(On::Get, "", always, Fault::Trickles(PACE));
    }

    fn hurry(&self) {
        self.registry.heal("");
    }

    /// How many bodies it has begun to send.
    fn begun(&self) -> usize {
        let asked = self.registry.asked("");
        asked.iter().filter(|asked| 0 < asked.sent).count()
    }

    /// Whether a body has begun to come and not ended.
    fn is_in_a_body(&self) -> bool {
        let asked = self.registry.asked("");
        let mut asked = asked.iter();
        asked.any(|asked| 0 < asked.sent && asked.ended.is_none())
    }
}

/// What came of a pull.
enum Pulled {
    Whole,
    /// It was cut or refused, or nobody answered; how.
    Not(String),
}

/// Whatever comes of a pull that is cut is fine, but for a complete body of wrong bytes.
fn pull(proxy: SocketAddr, wanted: &Wanted) -> Result<Pulled> {
    let watch = Stopwatch::start();
    let told = match Request::get(&wanted.path).fetch(proxy) {
        Ok(whole) if whole.status == 200 && whole.ending == Ending::Complete => {
            ensure!(
                digest_of(&whole.body) == wanted.digest,
                "wrong bytes of {}",
                wanted.path
            );
            return Ok(Pulled::Whole);
        }
        Ok(whole) if whole.status == 200 => {
            format!("{:?} after {} bytes", whole.ending, whole.body.len())
        }
        Ok(whole) => format!("{} {}", whole.status, whole.text()),
        Err(error) => format!("{error:#}"),
    };
    Ok(Pulled::Not(format!("{told}, in {:?}", watch.elapsed())))
}

/// Starts a host, lets it pull everything, and kills it at the moment of this seed. Tells whether
/// bodies were under way then.
fn killed_in_pulls(seed: u64, source: &Source, (config, home): (&str, &Home)) -> Result<bool> {
    let mut random = StdRng::seed_from_u64(seed);
    let moment = Duration::from_millis(random.random_range(0..MOMENT_MS_MAX));
    let darter = Darter::run(config, home)?;
    let (proxy, before) = (darter.proxy()?, source.begun());
    thread::scope(|scope| {
        let pulls: Vec<_> = source
            .wanted
            .iter()
            .map(|wanted| scope.spawn(move || pull(proxy, wanted)))
            .collect();
        // A host that has just started takes a while to ask: it would be killed before anything.
        let begins = wait_until("a body begins", BEGIN_LIMIT, || before < source.begun());
        thread::park_timeout(moment);
        let is_in_a_body = source.is_in_a_body();
        darter.kill()?;
        let ends: Vec<_> = pulls.into_iter().map(joined).collect();
        begins?;
        ends.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(is_in_a_body)
    })
}

#[test]
fn whenever_it_is_killed_it_serves_right_bytes_after_the_restart() -> Result<()> {
    if !can_run(&["setpriv"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let source = Source::of(&Image::small(&directory.path().join("image"), "kill")?)?;
    let mut in_a_body = 0;
    for first in (0..KILLS).step_by(KILLS_PER_STORE as usize) {
        let home = Home::new()?;
        let config = alone(&home, source.registry.address());
        source.slow_down();
        for seed in first..first + KILLS_PER_STORE {
            let was_in_a_body = killed_in_pulls(seed, &source, (&config, &home))
                .with_context(|| format!("seed {seed}"))?;
            in_a_body += u64::from(was_in_a_body);
        }
        source.hurry();
        let darter = Darter::run(&config, &home)?;
        let proxy = darter.proxy()?;
        for wanted in &source.wanted {
            if let Pulled::Not(told) = pull(proxy, wanted)? {
                // It is in the log once it has ended there, which is after it has ended here.
                let log = darter.stopped()?;
                bail!(
                    "after seed {first} and the next: {} does not come: {told}\n{log}",
                    wanted.path
                );
            }
        }
        darter.kill()?;
    }
    eprintln!("{in_a_body} of {KILLS} kills were in the middle of a body");
    ensure!(KILLS / 2 <= in_a_body, "only {in_a_body} of {KILLS}");
    Ok(())
}
