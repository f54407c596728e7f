//! A cluster of real processes: a scheduler, a seed and proxies, each with a certificate of one
//! authority, or with whatever a stranger would come with.

use std::{
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use crate::{
    darter::{Darter, Home},
    process,
};
use anyhow::{Context as _, Result};
use protocol::{
    Host, HostId, Role, Roles,
    identity::{Authority, IssuedPem},
};

/// A running process of a cluster.
#[derive(Debug)]
pub struct Member {
    pub darter: Darter,
    pub home: Home,
}

/// The authority of a cluster, where its scheduler and its seed are, and its one registry.
#[derive(Debug)]
pub struct Cluster {
    pub authority: Authority,
    pub scheduler: Host,
    pub seed: Host,
    registry: SocketAddr,
    number: u8,
    members: AtomicU8,
}

/// What a host shows to the others, and whom it believes.
#[derive(Debug)]
pub struct Papers {
    pub ca: String,
    pub issued: IssuedPem,
}

/// The name that every cluster here has.
pub const CLUSTER: &str = "pair";

/// How long a process may take to say what it must.
const WORD_LIMIT: Duration = Duration::from_secs(20);

/// Clusters that tests have started.
static CLUSTERS: AtomicU8 = AtomicU8::new(1);

/// The roles that one word names.
pub const EVERYTHING: [Role; 3] = [Role::Scheduler, Role::Seed, Role::Proxy];

// === impl Cluster ===

impl Cluster {
    /// A cluster before `registry` whose scheduler and whose seed have these ids; nothing runs yet.
    ///
    /// # Errors
    /// A name is no id, or the authority cannot be made.
    pub fn new(registry: SocketAddr, scheduler: &str, seed: &str) -> Result<Self> {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let at = |id: &str, host, port| -> Result<Host> {
            Ok(Host {
                id: id.parse()?,
                address: address(number, host, port),
            })
        };
        Ok(Self {
            number,
            ..Self::elsewhere(registry, at(scheduler, 1, 65005)?, at(seed, 2, 65002)?)?
        })
    }

    /// A cluster whose scheduler and whose seed are where the caller says; every host is to be
    /// started with [`Cluster::start_at`].
    ///
    /// # Errors
    /// The authority cannot be made.
    pub fn elsewhere(registry: SocketAddr, scheduler: Host, seed: Host) -> Result<Self> {
        Ok(Self {
            authority: Authority::new(CLUSTER)?,
            scheduler,
            seed,
            registry,
            number: 0,
            members: AtomicU8::new(3),
        })
    }

    /// Papers of this cluster's authority.
    ///
    /// # Errors
    /// The id is none.
    pub fn papers(&self, id: &str, roles: &[Role]) -> Result<Papers> {
        let roles: Roles = roles.iter().copied().collect();
        let issued = self.authority.issue(&id.parse()?, roles)?;
        Ok(Papers {
            ca: self.authority.ca_pem().to_owned(),
            issued,
        })
    }

    /// Starts a host with papers of this cluster.
    ///
    /// # Errors
    /// It does not come up, or opens no session; the error has what it said.
    pub fn start(&self, id: &str, roles: &[Role]) -> Result<Member> {
        let papers = self.papers(id, roles)?;
        let home = Home::new()?;
        let config = self.config(&home, id, roles, Some(&papers))?;
        let member = Member::run(&config, home)?;
        // What is asked of it before that has no scheduler yet, and is another case.
        member.wait_for_word("session open")?;
        Ok(member)
    }

    /// Starts a host with papers of this cluster that others reach at `swarm`, by the command that
    /// `enter` makes of the program's name.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_at(
        &self,
        id: &str,
        roles: &[Role],
        swarm: SocketAddr,
        enter: impl Fn(&str) -> Command,
    ) -> Result<Member> {
        let papers = self.papers(id, roles)?;
        let home = Home::new()?;
        let config = self.config_at(&home, swarm, roles, Some(&papers))?;
        let darter = Darter::run_by(enter, &config, &home).with_context(|| config.clone())?;
        let member = Member { darter, home };
        member.wait_for_word("session open")?;
        Ok(member)
    }

    /// Starts a proxy with papers of its own making, or with none.
    ///
    /// # Errors
    /// It does not come up; the error has what it said.
    pub fn start_stranger(&self, id: &str, papers: Option<&Papers>) -> Result<Member> {
        let home = Home::new()?;
        let config = self.config(&home, id, &[Role::Proxy], papers)?;
        Member::run(&config, home)
    }

    /// The configuration of a host `id`, with its papers written into `home`.
    ///
    /// # Errors
    /// Nothing can be written.
    pub fn config(
        &self,
        home: &Home,
        id: &str,
        roles: &[Role],
        papers: Option<&Papers>,
    ) -> Result<String> {
        let id: HostId = id.parse()?;
        let swarm = match id == self.seed.id {
            true => self.seed.address,
            false => {
                let host = self.members.fetch_add(1, Ordering::Relaxed);
                address(self.number, host, 65002)
            }
        };
        self.config_at(home, swarm, roles, papers)
    }

    fn config_at(
        &self,
        home: &Home,
        swarm: SocketAddr,
        roles: &[Role],
        papers: Option<&Papers>,
    ) -> Result<String> {
        let names: Vec<_> = roles
            .iter()
            .map(|role| format!("{:?}", role.as_str()))
            .collect();
        let identity = match papers {
            None => String::new(),
            Some(Papers { ca, issued }) => {
                let ca = home.write("ca.pem", ca)?;
                let cert = home.write("cert.pem", &issued.certificate)?;
                let key = home.write("key.pem", &issued.key)?;
                format!("[identity]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n")
            }
        };
        let scheduler = match roles.contains(&Role::Scheduler) {
            true => format!("[scheduler]\nlisten = \"{}\"\n", self.scheduler.address),
            false => String::new(),
        };
        Ok(format!(
            "data_dir = {:?}\nroles = [{}]\n{identity}\
             [proxy]\nlisten = \"127.0.0.1:0\"\n\
             [[proxy.registry]]\nname = \"registry.test\"\nendpoint = \"http://{}\"\n\
             [swarm]\nlisten = \"{swarm}\"\nschedulers = [\"{}\"]\nseeds = [\"{}\"]\n\
             {scheduler}[admin]\nlisten = \"127.0.0.1:0\"\n",
            home.path().join("data"),
            names.join(", "),
            self.registry,
            self.scheduler,
            self.seed,
        ))
    }
}

// === impl Member ===

impl Member {
    fn run(config: &str, home: Home) -> Result<Self> {
        let darter = Darter::run(config, &home).with_context(|| config.to_owned())?;
        Ok(Self { darter, home })
    }

    /// Waits until it has logged a line with `word` in it, and returns that line.
    ///
    /// # Errors
    /// It does not come; the error has what it said.
    pub fn wait_for_word(&self, word: &str) -> Result<String> {
        let line = || {
            let log = self.darter.log().unwrap_or_default();
            log.lines()
                .find(|line| line.contains(word))
                .map(str::to_owned)
        };
        process::wait_until(word, WORD_LIMIT, || line().is_some())
            .with_context(|| self.darter.log().unwrap_or_default())?;
        line().context("a log loses no line")
    }
}

/// An address of the loopback for one host of one cluster of one test process, so that no other
/// test is given its ports: hosts must know each other's before any of them is started.
fn address(cluster: u8, host: u8, port: u16) -> SocketAddr {
    let process = 1 + (std::process::id() % 250) as u8;
    SocketAddr::from(([127, process, cluster, host], port))
}
