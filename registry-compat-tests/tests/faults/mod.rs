//! An upstream that fails in every way that is known, before the real binary: each family of
//! clients gets what the table says, and the store stays clean.

mod asker;
mod blobs;
mod case;
mod manifests;
mod redirects;

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    darter::{Darter, Home},
    fault_registry::FaultRegistry,
    http::Whole,
    process::wait_until,
};

pub(crate) use self::asker::Asker;
use self::case::{Case, Content, Expect, Subject};

/// "No such tag" and every other failure of a tag is remembered for some seconds.
const TAG_PATIENCE: Duration = Duration::from_secs(20);

/// How long a node waits for an upstream that must not seem slow, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(20);

/// And for one that is.
const IMPATIENT: Duration = Duration::from_millis(1500);

/// A node before a registry that fails on purpose.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) registry: FaultRegistry,
    pub(crate) home: Home,
    pub(crate) darter: Darter,
    pub(crate) proxy: SocketAddr,
    config: String,
}

/// What one asker of one case asks for again later.
struct Asked<'a> {
    case: &'a Case,
    asker: Asker,
    content: Content,
}

// === impl Stage ===

impl Stage {
    /// `also_trust` are addresses that the registry may redirect to.
    pub(crate) fn start(also_trust: &[SocketAddr]) -> Result<Self> {
        Self::start_with(also_trust, PATIENT)
    }

    fn start_with(also_trust: &[SocketAddr], patience: Duration) -> Result<Self> {
        let (registry, home) = (FaultRegistry::start()?, Home::new()?);
        let trusted: Vec<_> = also_trust.iter().map(SocketAddr::to_string).collect();
        let free = "listen = \"127.0.0.1:0\"";
        let config = format!(
            "data_dir = {2:?}\n[proxy]\n{free}\ndefault_registry = \"registry.test\"\n\
             tag_ttl = \"0s\"\ndeny_ttl = \"0s\"\nmanifest_size_max = \"64KiB\"\n\
             upstream_response_timeout = \"{0}ms\"\nupstream_stall_timeout = \"{0}ms\"\n\
             upstream_fallback_timeout = \"60s\"\nupstream_fallback_memory = \"0s\"\n\
             [[proxy.registry]]\nname = \"registry.test\"\nendpoint = \"http://{1}\"\n\
             also_trust = {trusted:?}\n\
             [swarm]\n{free}\n[scheduler]\n{free}\n[admin]\n{free}\n",
            patience.as_millis(),
            registry.address(),
            home.path().join("data"),
        );
        let darter = Darter::run(&config, &home)?;
        Ok(Self {
            proxy: darter.proxy()?,
            registry,
            home,
            darter,
            config,
        })
    }

    /// SIGKILL, and the node again on what is left.
    pub(crate) fn killed_and_started(self) -> Result<Self> {
        self.darter.kill()?;
        let darter = Darter::run(&self.config, &self.home)?;
        Ok(Self {
            proxy: darter.proxy()?,
            darter,
            ..self
        })
    }

    fn get(&self, case: &Case, asker: Asker, content: &Content) -> Result<Whole> {
        let method = match case.subject.is_head() {
            true => "HEAD",
            false => "GET",
        };
        let mut request = asker.request(method, &content.rest);
        if case.subject == Subject::BlobFromZero {
            request = request.header("Range", "bytes=0-");
        }
        request.fetch(self.proxy)
    }

    /// Asks while the upstream fails.
    fn ask<'a>(&self, case: &'a Case, asker: Asker) -> Result<Asked<'a>> {
        let content = case.put(&self.registry, asker)?;
        if case.subject.is_known_before() {
            let before = self.get(case, asker, &content)?;
            content.is_whole(case.subject, &before).context("before")?;
        }
        let before = self.registry.asked(&content.path()).len();
        case.fail(&self.registry, &content);
        let whole = self.get(case, asker, &content)?;
        case.judge(asker, &content, &whole)?;
        case.judge_asked(&self.registry.asked(&content.path())[before..])?;
        let must_come = matches!(case.expect, Expect::Content | Expect::Stale);
        if !must_come && !case.subject.is_known_before() {
            ensure!(!self.is_complete(&content)?, "it is listed as complete");
        }
        self.registry.heal(&content.path());
        Ok(Asked {
            case,
            asker,
            content,
        })
    }

    fn is_complete(&self, content: &Content) -> Result<bool> {
        let cached = self.home.cached()?;
        let mut of_content = cached.iter().filter(|line| line.digest == content.digest);
        Ok(of_content.any(|line| line.is_complete))
    }

    /// Asks again, the upstream being well: now it must come.
    fn ask_again(&self, asked: &Asked<'_>) -> Result<()> {
        let (case, content) = (asked.case, &asked.content);
        let mut last = None;
        let came = wait_until("the content", TAG_PATIENCE, || {
            let whole = self.get(case, asked.asker, content);
            let judged = whole.and_then(|whole| content.is_whole(case.subject, &whole));
            last = judged.err();
            // Only what is remembered of a tag may stand in the way for a while.
            last.is_none() || !content.rest.starts_with("manifests/")
        });
        match last {
            None => came,
            Some(error) => Err(error),
        }
    }
}

/// Runs every case for every asker; then all again with the upstream well; then again after a kill.
pub(crate) fn check(cases: &[Case]) -> Result<()> {
    let (slow, quick): (Vec<_>, Vec<_>) = cases.iter().partition(|case| case.is_slow());
    check_with(&quick, PATIENT)?;
    check_with(&slow, IMPATIENT)
}

fn check_with(cases: &[&Case], patience: Duration) -> Result<()> {
    if cases.is_empty() {
        return Ok(());
    }
    let stage = Stage::start_with(&[], patience)?;
    let mut asked = Vec::new();
    for case in cases {
        let told = |asker: Asker, result: Result<_>| {
            let log = || stage.darter.log().unwrap_or_default();
            result.with_context(|| format!("{}\n{} as {asker:?}", log(), case.name))
        };
        asked.extend(thread::scope(|scope| {
            let asking: Vec<_> = Asker::ALL
                .map(|asker| {
                    (
                        asker,
                        scope.spawn({
                            let stage = &stage;
                            move || stage.ask(case, asker)
                        }),
                    )
                })
                .into_iter()
                .collect();
            let joined = asking.into_iter().map(|(asker, thread)| {
                let result = thread.join().ok().context("an asker panicked")?;
                told(asker, result)
            });
            joined.collect::<Result<Vec<_>>>()
        })?);
    }
    let again = |stage: &Stage, when: &str| -> Result<()> {
        asked.iter().try_for_each(|asked| {
            let log = || stage.darter.log().unwrap_or_default();
            let told = || {
                let Asked { case, asker, .. } = asked;
                format!("{}\n{} as {asker:?} {when}", log(), case.name)
            };
            stage.ask_again(asked).with_context(told)
        })
    };
    again(&stage, "once the upstream is well")?;
    let kept: Vec<_> = asked.iter().filter(|asked| is_kept(asked.case)).collect();
    for asked in &kept {
        wait_until("it is listed as complete", TAG_PATIENCE, || {
            stage
                .is_complete(&asked.content)
                .is_ok_and(|complete| complete)
        })
        .with_context(|| asked.case.name)?;
    }
    let stage = stage.killed_and_started()?;
    let before = stage.registry.asked("").len();
    again(&stage, "after a kill")?;
    let fetched: Vec<_> = stage.registry.asked("")[before..]
        .iter()
        .filter(|asked| asked.method == "GET" && asked.path.contains(":"))
        .map(|asked| asked.path.clone())
        .collect();
    ensure!(fetched.is_empty(), "fetched again: {fetched:?}");
    stage.darter.stop()
}

/// Whether what the case asks for is in the store, once the upstream is well.
fn is_kept(case: &Case) -> bool {
    !case.subject.is_head()
}
