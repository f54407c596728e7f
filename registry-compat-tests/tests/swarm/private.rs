//! Private contents in a cluster: fetched once, shared between hosts, and given on each of them to
//! those alone whom the registry lets read them.

use std::thread;

use anyhow::{Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run,
    cluster::{Cluster, Member},
    content::{digest_of, noise},
    http::{Request, Whole},
    token_registry::{Door, Forbidden, Settings, TokenForm, TokenRegistry},
};
use tempfile::TempDir;

/// A scheduler, a seed and two hosts before a registry with a private repository.
struct Herd {
    registry: TokenRegistry,
    hosts: Vec<Member>,
    others: Vec<Member>,
    directory: TempDir,
}

const SIZE: usize = 5_000_000;

// === impl Herd ===

impl Herd {
    fn start() -> Result<Self> {
        Self::start_with(TokenForm::Jwt, Forbidden::Insufficient)
    }

    fn start_with(token_form: TokenForm, forbidden: Forbidden) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = directory.path().join("registry");
        let settings = Settings {
            token_form,
            ..Settings::default()
        };
        let registry = TokenRegistry::start(&at, settings)?;
        registry.change(|rules| {
            rules.forbidden = forbidden;
            rules.user("ann", "a").user("bob", "b");
            rules.private("team/own", &["ann"]);
        });
        let cluster = Cluster::new(registry.behind().address(), "scheduler", "seed")?;
        let entry = registry.entry("private.test");
        let start = |id: &str, role: Role| {
            let mut plan = cluster.plan(id, &[role]);
            plan.swarm.clone_from(&entry);
            cluster.start_as(&plan)
        };
        let others = vec![
            start("scheduler", Role::Scheduler)?,
            start("seed", Role::Seed)?,
        ];
        let hosts = vec![start("first", Role::Proxy)?, start("second", Role::Proxy)?];
        for host in &hosts {
            host.wait_for_sessions(1)?;
        }
        Ok(Self {
            registry,
            hosts,
            others,
            directory,
        })
    }

    fn put(&self, seed: &str) -> Result<(Vec<u8>, String)> {
        let bytes = noise(seed, SIZE)?;
        let digest = digest_of(&bytes);
        let file = self.directory.path().join("blob");
        std::fs::write(&file, &bytes)?;
        self.registry
            .behind()
            .push_blob("team/own", &digest, &file)?;
        Ok((bytes, digest))
    }

    /// What `user` gets at `host`.
    fn ask(&self, host: &Member, digest: &str, user: Option<(&str, &str)>) -> Result<Whole> {
        let path = format!("/v2/team/own/blobs/{digest}?ns=private.test");
        let mut request = Request::get(&path);
        if let Some((user, password)) = user {
            let token = self.registry.token(user, password, "team/own")?;
            request = request.header("Authorization", &format!("Bearer {token}"));
        }
        request.fetch(host.darter.proxy()?)
    }

    /// How often the bytes of a blob left the registry.
    fn fetches(&self, digest: &str) -> usize {
        let heard = self.registry.heard_of(Door::Storage, "GET", digest);
        heard.len()
    }

    fn logs(&self) -> String {
        let members = self.hosts.iter().chain(&self.others);
        let logs = members.filter_map(|member| member.darter.log().ok());
        logs.collect()
    }
}

#[test]
fn a_private_blob_is_fetched_once_and_shared_with_those_who_may_read_it() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    for forbidden in [Forbidden::Insufficient, Forbidden::Hidden] {
        is_fetched_once(&Herd::start_with(TokenForm::Jwt, forbidden)?)?;
    }
    Ok(())
}

fn is_fetched_once(herd: &Herd) -> Result<()> {
    let ann = Some(("ann", "a"));
    // One after the other, and both at once.
    let (bytes, digest) = herd.put("one after the other")?;
    for host in &herd.hosts {
        let seen = herd.ask(host, &digest, ann)?;
        ensure!(seen.body == bytes, "{}: {}", seen.status, herd.logs());
    }
    ensure!(
        herd.fetches(&digest) == 1,
        "{} fetches: {}",
        herd.fetches(&digest),
        herd.logs()
    );
    let (bytes, digest) = herd.put("at once")?;
    thread::scope(|scope| {
        let asking: Vec<_> = herd
            .hosts
            .iter()
            .map(|host| scope.spawn(|| herd.ask(host, &digest, ann)))
            .collect();
        for asked in asking {
            let seen = asked.join().expect("an asker does not fall")?;
            ensure!(seen.body == bytes, "{}: {}", seen.status, herd.logs());
        }
        anyhow::Ok(())
    })?;
    ensure!(
        herd.fetches(&digest) == 1,
        "{} fetches",
        herd.fetches(&digest)
    );
    // The seed has brought it in, by a right that was lent to it; the hosts have asked for no bytes.
    let from_registry = |member: &Member| member.darter.metric("darter_source_bytes_total");
    let brought = from_registry(&herd.others[1])?;
    ensure!(
        brought >= 2.0 * SIZE as f64,
        "the seed has had {brought} bytes of the registry"
    );
    for host in &herd.hosts {
        let had = from_registry(host)?;
        ensure!(
            had < SIZE as f64 / 10.0,
            "a host has had {had} bytes of the registry"
        );
    }
    // It is held on both hosts, and on neither is it anybody else's.
    for host in &herd.hosts {
        for user in [None, Some(("bob", "b"))] {
            let seen = herd.ask(host, &digest, user)?;
            ensure!(
                seen.status == 401 || seen.status == 404,
                "{user:?}: {}",
                seen.status
            );
            ensure!(
                !seen.body.windows(16).any(|part| part == &bytes[..16]),
                "its bytes"
            );
        }
    }
    Ok(())
}

/// Nobody here knows what an opaque token opens, so it stays with the host that it was shown to.
#[test]
fn a_token_that_does_not_say_what_it_opens_is_lent_to_nobody() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let herd = Herd::start_with(TokenForm::Opaque, Forbidden::Insufficient)?;
    let (bytes, digest) = herd.put("by an opaque token")?;
    for host in &herd.hosts {
        let seen = herd.ask(host, &digest, Some(("ann", "a")))?;
        ensure!(seen.body == bytes, "{}: {}", seen.status, herd.logs());
    }
    ensure!(
        herd.fetches(&digest) == 1,
        "{} fetches",
        herd.fetches(&digest)
    );
    let seed = &herd.others[1].darter;
    let brought = seed.metric("darter_source_bytes_total")?;
    ensure!(
        brought < SIZE as f64 / 10.0,
        "the seed has had {brought} bytes of the registry"
    );
    Ok(())
}

#[test]
fn who_has_no_right_gets_nothing_of_what_other_hosts_hold() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let herd = Herd::start()?;
    let (bytes, digest) = herd.put("held elsewhere")?;
    let seen = herd.ask(&herd.hosts[0], &digest, Some(("ann", "a")))?;
    ensure!(seen.body == bytes, "{}", seen.status);
    let stranger = &herd.hosts[1];
    for user in [None, Some(("bob", "b"))] {
        let seen = herd.ask(stranger, &digest, user)?;
        ensure!(
            seen.status == 401 || seen.status == 404,
            "{user:?}: {}",
            seen.status
        );
    }
    // Not even into its store.
    let taken = stranger
        .darter
        .metric("darter_swarm_piece_fetch_bytes_total")?;
    ensure!(taken < 1.0, "{taken} bytes were taken from other hosts");
    Ok(())
}
