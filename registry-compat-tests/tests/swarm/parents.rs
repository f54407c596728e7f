//! Parents that die, stand still, are cut off, or lie: every pull ends right and none hangs, nobody
//! else asks the registry, and who lied is not asked again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use registry_compat_tests::{
    cluster::Plan,
    content::{digest_of, noise},
    image::Blob,
    process::wait_until,
};

use super::{
    HERD_LIMIT, Herd, Shape, can_herd,
    liar::{LIAR, Liar, Lie},
    pull_within,
    source::Source,
};

const SIZE: usize = 16 << 20;

/// Large enough for a host to get to see what every one of its parents gives, before the others have
/// given it all.
const SIZE_AMONG_OTHERS: usize = 48 << 20;

/// The longest that a pull may take beside a parent that is of no use: twice the time in which such
/// a one is left.
pub(super) const PULL_LIMIT: Duration = Duration::from_secs(20);

/// The same where the parent says nothing: children that it had may be given to each other before
/// all have left it.
const SILENCE_LIMIT: Duration = Duration::from_secs(45);

const FOUR: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed"],
    hosts: 4,
};

/// It leaves a parent that says nothing after six of these, that one who brings nothing after one.
pub(super) fn impatient(_: usize, mut plan: Plan) -> Plan {
    plan.swarm = "piece_timeout = \"2s\"".to_owned();
    plan
}

/// What becomes of a liar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its children leave it, and do not take it for a liar.
    Left,
    /// Each child that it lied to asks it no more, and after three of them the cluster bans it.
    Banned,
}

/// A herd, a liar in it, and two blobs.
struct Stage {
    herd: Herd,
    source: Source,
    blobs: [(Blob, Bytes); 2],
}

// === impl Stage ===

impl Stage {
    fn start(name: &str, size: usize) -> Result<Self> {
        let source = Source::new(name, size)?;
        let other = Bytes::from(noise(&format!("{name}-2"), size)?);
        let second = Blob {
            digest: digest_of(&other),
            size: size as u64,
        };
        source.registry.put_blob(&second.digest, other.clone());
        let first = Bytes::from(noise(name, size)?);
        Ok(Self {
            herd: Herd::start_with(source.address(), FOUR, impatient)?,
            blobs: [(source.blob.clone(), first), (second, other)],
            source,
        })
    }

    /// These hosts pull a blob, in the time that a pull may take.
    fn pull(&self, hosts: std::ops::Range<usize>, blob: usize) -> Result<()> {
        let told = format!("{hosts:?} of blob {blob}");
        let proxies = &self.herd.proxies()?[hosts];
        pull_within(PULL_LIMIT, proxies, &self.blobs[blob].0, |_| Ok(())).context(told)
    }

    fn banned(&self) -> f64 {
        let scheduler = &self.herd.schedulers[0].darter;
        scheduler
            .metric("darter_scheduler_banned_total")
            .unwrap_or(-1.0)
    }

    /// Beside true parents there is one that lies.
    fn among_true_parents(&self, lie: Lie, fate: Fate) -> Result<()> {
        self.pull(0..1, 0)?;
        self.pull(0..1, 1)?;
        let liar = Liar::start(&self.herd.cluster, lie, &self.blobs)?;
        let asked = |host: &str, blob: usize| liar.asked_by(host, &self.blobs[blob].0);
        self.pull(1..2, 0)?;
        ensure!(0 < asked("host-1", 0)?, "host-1 never came to {LIAR}");
        self.pull(1..2, 1)?;
        if fate == Fate::Banned {
            ensure!(asked("host-1", 1)? == 0, "host-1 came to {LIAR} again");
            ensure!(self.banned() == 0.0, "banned by the word of one");
        }
        self.pull(2..4, 0)?;
        for host in ["host-2", "host-3"] {
            ensure!(0 < asked(host, 0)?, "{host} never came to {LIAR}");
        }
        self.meets(fate)?;
        self.source.fetched_once()
    }

    fn meets(&self, fate: Fate) -> Result<()> {
        match fate {
            Fate::Banned => wait_until("the ban", HERD_LIMIT, || self.banned() == 1.0),
            Fate::Left => {
                ensure!(self.banned() == 0.0, "it was banned");
                Ok(())
            }
        }
    }

    /// Nobody holds the blob but, by its own word, the liar.
    fn alone(&self, lie: Lie, fate: Fate) -> Result<()> {
        let liar = Liar::start(&self.herd.cluster, lie, &self.blobs)?;
        let limit = match lie {
            Lie::Silent => SILENCE_LIMIT,
            _ => PULL_LIMIT,
        };
        pull_within(limit, &self.herd.proxies()?, &self.blobs[0].0, |_| Ok(()))?;
        let asked = liar.asked_by("host-0", &self.blobs[0].0)?;
        ensure!(0 < asked, "host-0 never came to {LIAR}");
        self.meets(fate)?;
        self.source.fetched_once()
    }
}

fn check((name, size): (&str, usize), act: impl FnOnce(&Stage) -> Result<()>) -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let stage = Stage::start(name, size)?;
    let acted = act(&stage);
    stage.herd.told(acted)
}

#[test]
fn who_gives_wrong_bytes_is_banned() -> Result<()> {
    check(("wrong", SIZE_AMONG_OTHERS), |stage| {
        stage.among_true_parents(Lie::WrongBytes, Fate::Banned)
    })
}

#[test]
fn who_claims_pieces_that_it_lacks_is_left() -> Result<()> {
    check(("lacks", SIZE_AMONG_OTHERS), |stage| {
        stage.among_true_parents(Lie::Lacks, Fate::Left)
    })
}

#[test]
fn who_stalls_after_half_a_piece_is_left() -> Result<()> {
    check(("stalls", SIZE_AMONG_OTHERS), |stage| {
        stage.among_true_parents(Lie::StallsInPiece, Fate::Left)
    })
}

#[test]
fn who_serves_garbage_for_pieces_is_left() -> Result<()> {
    check(("garbage", SIZE_AMONG_OTHERS), |stage| {
        stage.among_true_parents(Lie::GarbagePieces, Fate::Left)
    })
}

#[test]
fn who_serves_garbage_for_availability_is_left() -> Result<()> {
    check(("frames", SIZE_AMONG_OTHERS), |stage| {
        stage.among_true_parents(Lie::GarbageStream, Fate::Left)
    })
}

#[test]
fn who_signs_without_the_right_is_left() -> Result<()> {
    check(("right", SIZE_AMONG_OTHERS), |stage| {
        stage.among_true_parents(Lie::NoRight, Fate::Left)
    })
}

#[test]
fn the_only_holder_signs_without_the_right_and_the_seed_fetches() -> Result<()> {
    check(("only-right", SIZE), |stage| {
        stage.alone(Lie::NoRight, Fate::Left)
    })
}

#[test]
fn the_only_holder_is_silent_and_the_seed_fetches() -> Result<()> {
    check(("silent", SIZE), |stage| {
        stage.alone(Lie::Silent, Fate::Left)
    })
}

#[test]
fn the_only_holder_forges_a_batch_and_is_banned() -> Result<()> {
    check(("forged", SIZE), |stage| {
        stage.alone(Lie::Forged, Fate::Banned)
    })
}
