//! Two hosts as separate processes: one is scheduler, seed and proxy, the other a proxy. What both
//! want is asked of the registry once.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU8, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use protocol::{Role, Roles, identity::Authority};
use registry_compat_tests::{
    can_run,
    content::digest_of,
    darter::{Darter, Home},
    http::Request,
    registry::Registry,
};

use crate::stage::{Golden, golden};

/// A host that runs, and where its proxy answers.
struct Host {
    darter: Darter,
    proxy: SocketAddr,
    _home: Home,
}

/// Pairs that tests have started.
static PAIRS: AtomicU8 = AtomicU8::new(1);

/// Two hosts before one registry.
struct Pair {
    first: Host,
    second: Host,
    registry: Registry,
    golden: std::sync::Arc<Golden>,
}

impl Pair {
    fn start() -> Result<Self> {
        let golden = golden()?;
        let registry = Registry::start(&golden.registry_directory())?;
        let authority = Authority::new("pair")?;
        // Loopback addresses of this pair alone, so that no other test is given their ports.
        let pair = PAIRS.fetch_add(1, Ordering::Relaxed);
        let at = |host: u8, port: u16| SocketAddr::from(([127, 77, pair, host], port));
        let (swarm, scheduler) = (at(1, 65002), at(1, 65005));
        let all = [Role::Scheduler, Role::Seed, Role::Proxy];
        let start = |id: &str, roles: &[Role], swarm| {
            start_host(
                &authority,
                (id, roles),
                (swarm, scheduler),
                registry.address(),
            )
        };
        let first = start("first", &all, swarm)?;
        let second = start("second", &[Role::Proxy], at(2, 65002))?;
        Ok(Self {
            first,
            second,
            registry,
            golden,
        })
    }

    /// Both, or one of them, get the biggest layer; it was asked of the registry once.
    fn get(&self, hosts: &[&Host]) -> Result<()> {
        let blob = self.golden.image.biggest()?;
        let path = format!("/v2/team/sealed/blobs/{}?ns=registry.test", blob.digest);
        let pull = |host: &Host| -> Result<()> {
            let whole = Request::get(&path).fetch(host.proxy)?;
            ensure!(
                digest_of(&whole.body) == blob.digest,
                "{} bytes came",
                whole.body.len()
            );
            Ok(())
        };
        thread::scope(|scope| {
            let pulls: Vec<_> = hosts
                .iter()
                .map(|host| scope.spawn(|| pull(host)))
                .collect();
            pulls
                .into_iter()
                .try_for_each(|pull| pull.join().unwrap_or_else(|_| Ok(())))
        })
        .with_context(|| self.second.darter.log().unwrap_or_default())?;
        let fetches = self.registry.fetches_of(&blob.digest)?;
        ensure!(fetches == 1, "the registry was asked {fetches} times");
        Ok(())
    }
}

fn start_host(
    authority: &Authority,
    (id, roles): (&str, &[Role]),
    (swarm, scheduler): (SocketAddr, SocketAddr),
    registry: SocketAddr,
) -> Result<Host> {
    let home = Home::new()?;
    let named: Roles = roles.iter().copied().collect();
    let issued = authority.issue(&id.parse()?, named)?;
    let ca = home.write("ca.pem", authority.ca_pem())?;
    let cert = home.write("cert.pem", &issued.certificate)?;
    let key = home.write("key.pem", &issued.key)?;
    let names: Vec<_> = roles
        .iter()
        .map(|role| format!("{:?}", role.as_str()))
        .collect();
    let config = format!(
        "data_dir = {:?}\nroles = [{}]\n\
         [identity]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n\
         [proxy]\nlisten = \"127.0.0.1:0\"\n\
         [[proxy.registry]]\nname = \"registry.test\"\nendpoint = \"http://{registry}\"\n\
         [swarm]\nlisten = \"{swarm}\"\nschedulers = [\"first@{scheduler}\"]\n\
         [scheduler]\nlisten = \"{scheduler}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n",
        home.path().join("data"),
        names.join(", "),
    );
    let darter = Darter::run(&config, &home)?;
    let proxy = darter.proxy()?;
    Ok(Host {
        darter,
        proxy,
        _home: home,
    })
}

#[test]
fn two_hosts_that_want_a_cold_blob_at_once_cost_the_registry_one_fetch() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let pair = Pair::start()?;
    pair.get(&[&pair.first, &pair.second])?;
    pair.get(&[&pair.second])
}

#[test]
fn a_host_that_wants_what_nobody_has_gets_it_from_the_seed() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let pair = Pair::start()?;
    pair.get(&[&pair.second])?;
    pair.get(&[&pair.first])
}
