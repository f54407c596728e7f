//! What anybody may read, before a registry that wants a token for it: asked once for a whole cluster.

use std::thread;

use anyhow::{Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run,
    cluster::{Cluster, Member},
    content::{digest_of, noise},
    http::Request,
    token_registry::{Door, Settings, TokenRegistry, basic, text_of},
};
use serde_json::json;
use tempfile::TempDir;

/// A scheduler, two seeds and some hosts before a registry with a public repository.
struct Herd {
    registry: TokenRegistry,
    seeds: Vec<Member>,
    hosts: Vec<Member>,
    _scheduler: Member,
    directory: TempDir,
}

const HOSTS: usize = 4;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

// === impl Herd ===

impl Herd {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = directory.path().join("registry");
        let registry = TokenRegistry::start(&at, Settings::default())?;
        registry.change(|rules| {
            rules
                .user("ann", "a")
                .public("team/open")
                .writer("team/open", "ann");
        });
        let address = registry.behind().address();
        let cluster = Cluster::of(address, &["scheduler"], &["seed-1", "seed-2"])?;
        let entry = registry.entry("open.test");
        let start = |id: &str, role: Role| {
            let mut plan = cluster.plan(id, &[role]);
            plan.swarm.clone_from(&entry);
            cluster.start_as(&plan)
        };
        let scheduler = start("scheduler", Role::Scheduler)?;
        let seeds = ["seed-1", "seed-2"].map(|id| start(id, Role::Seed));
        let hosts = (0..HOSTS).map(|number| start(&format!("host-{number}"), Role::Proxy));
        let herd = Self {
            registry,
            seeds: seeds.into_iter().collect::<Result<_>>()?,
            hosts: hosts.collect::<Result<_>>()?,
            _scheduler: scheduler,
            directory,
        };
        for host in &herd.hosts {
            host.wait_for_sessions(1)?;
        }
        Ok(herd)
    }

    /// What `latest` is from now on: a manifest of one layer.
    fn put(&self, seed: &str) -> Result<(Vec<u8>, Vec<u8>)> {
        let layer = noise(seed, 300_000)?;
        let digest = digest_of(&layer);
        let file = self.directory.path().join("blob");
        std::fs::write(&file, &layer)?;
        let behind = self.registry.behind();
        behind.push_blob("team/open", &digest, &file)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": layer.len()},
            "layers": [],
        });
        let manifest = manifest.to_string().into_bytes();
        behind.push_manifest("team/open", "latest", OCI_MANIFEST, &manifest)?;
        Ok((manifest, layer))
    }

    fn get(&self, host: &Member, rest: &str) -> Result<Vec<u8>> {
        let path = format!("/v2/team/open/{rest}?ns=open.test");
        let seen = Request::get(&path).fetch(host.darter.proxy()?)?;
        let logs = || {
            self.hosts
                .iter()
                .chain(&self.seeds)
                .filter_map(|member| member.darter.log().ok())
        };
        ensure!(
            seen.status == 200,
            "{}: {}\n{}",
            seen.status,
            seen.text(),
            logs().collect::<String>()
        );
        Ok(seen.body)
    }

    /// Requests at one of the registry's doors.
    fn asked(&self, door: Door, method: &str) -> Vec<String> {
        let heard = self.registry.heard();
        let asked = heard
            .iter()
            .filter(|heard| heard.door == door && heard.method == method);
        asked
            .map(|heard| format!("{} {:?} {}", heard.path, heard.caller, heard.status))
            .collect()
    }
}

#[test]
fn a_public_image_is_asked_for_once_by_all_hosts_together() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let herd = Herd::start()?;
    let (manifest, layer) = herd.put("asked for once")?;
    let blob = format!("blobs/{}", digest_of(&layer));
    thread::scope(|scope| {
        let pulls: Vec<_> = herd
            .hosts
            .iter()
            .map(|host| {
                scope.spawn(|| {
                    ensure!(
                        herd.get(host, "manifests/latest")? == manifest,
                        "another manifest"
                    );
                    ensure!(herd.get(host, &blob)? == layer, "another layer");
                    anyhow::Ok(())
                })
            })
            .collect();
        pulls
            .into_iter()
            .try_for_each(|pull| pull.join().expect("no pull falls"))
    })?;
    // Besides what is refused for want of a token: the tag, and one token for each seed.
    let heads = herd.asked(Door::Registry, "HEAD");
    let told = heads.iter().filter(|line| line.ends_with(" 200"));
    ensure!(told.count() == 1, "{heads:#?}");
    let tokens = herd.asked(Door::Realm, "GET");
    ensure!(tokens.len() <= herd.seeds.len(), "{tokens:#?}");
    let given = herd.asked(Door::Storage, "GET");
    ensure!(given.len() == 1, "{given:#?}");
    Ok(())
}

#[test]
fn a_tag_that_was_pushed_here_is_not_what_a_seed_was_told_before() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let herd = Herd::start()?;
    let (old, _) = herd.put("the old one")?;
    let host = &herd.hosts[0];
    ensure!(
        herd.get(host, "manifests/latest")? == old,
        "another manifest"
    );
    let (new, _) = herd.put("the new one")?;
    ensure!(
        herd.get(host, "manifests/latest")? == old,
        "the answer is not remembered"
    );
    // Somebody pushes through this host what is there already.
    let scope = "repository:open.test/team/open:pull,push";
    let given = Request::get(&format!("/token?scope={scope}"))
        .header("Authorization", &basic("ann", "a"))
        .fetch(host.darter.proxy()?)?;
    let token = text_of(&given.body, "token")?;
    let pushed = Request::new("PUT", "/v2/open.test/team/open/manifests/latest")
        .header("Authorization", &format!("Bearer {token}"))
        .header("Content-Type", OCI_MANIFEST)
        .send_with(host.darter.proxy()?, &mut &new[..], new.len() as u64)?
        .whole()?;
    ensure!(pushed.status == 201, "{}: {}", pushed.status, pushed.text());
    ensure!(
        herd.get(host, "manifests/latest")? == new,
        "the old manifest"
    );
    Ok(())
}

#[test]
fn without_a_seed_each_host_asks_for_itself() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let mut herd = Herd::start()?;
    let (manifest, _) = herd.put("no seed")?;
    for seed in herd.seeds.drain(..) {
        seed.kill()?;
    }
    for host in &herd.hosts {
        ensure!(
            herd.get(host, "manifests/latest")? == manifest,
            "another manifest"
        );
    }
    let asked = herd.asked(Door::Registry, "HEAD");
    let told = asked.iter().filter(|line| line.ends_with(" 200")).count();
    ensure!(told == HOSTS, "{asked:#?}");
    Ok(())
}
