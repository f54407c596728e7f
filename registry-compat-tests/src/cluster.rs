//! A cluster of real processes: schedulers, seeds and proxies, each with a certificate of one
//! authority, or with whatever a stranger would come with.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use protocol::{
    Host, HostId, Identity, Role, Roles,
    identity::{Authority, IssuedPem, LIFETIME},
};

use crate::darter::{Darter, Home};

pub use crate::member::{Member, Remains};

/// The authority of a cluster, its schedulers and seeds, and its one registry.
#[derive(Debug)]
pub struct Cluster {
    pub authority: Authority,
    pub view: View,
    /// How long the papers hold that it gives to its hosts.
    pub lifetime: Duration,
    registry: SocketAddr,
    number: u8,
    members: AtomicU8,
}

/// The schedulers and seeds that a host is told of.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub schedulers: Vec<Host>,
    pub seeds: Vec<Host>,
}

/// A host as it is to be started.
#[derive(Debug, Clone)]
pub struct Plan {
    pub id: String,
    pub roles: Vec<Role>,
    pub view: View,
    /// Where it listens for other hosts; any address of the cluster where this is `None`.
    pub listen: Option<SocketAddr>,
    /// Where it keeps what it has; its own home where this is `None`.
    pub data_dir: Option<PathBuf>,
    /// Further lines of its `[swarm]` table.
    pub swarm: String,
}

/// What a host shows to the others, and whom it believes.
#[derive(Debug)]
pub struct Papers {
    pub ca: String,
    pub issued: IssuedPem,
}

/// The name that every cluster here has.
pub const CLUSTER: &str = "pair";

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
        Self::of(registry, &[scheduler], &[seed])
    }

    /// A cluster with these schedulers and seeds, which may have none; nothing runs yet.
    ///
    /// # Errors
    /// As [`Cluster::new`].
    pub fn of(registry: SocketAddr, schedulers: &[&str], seeds: &[&str]) -> Result<Self> {
        let mut cluster = Self {
            authority: Authority::new(CLUSTER)?,
            view: View::default(),
            lifetime: LIFETIME,
            registry,
            number: CLUSTERS.fetch_add(1, Ordering::Relaxed),
            members: AtomicU8::new(1),
        };
        for (ids, port) in [(schedulers, 65005), (seeds, 65002)] {
            let hosts = ids.iter().map(|id| {
                let address = cluster.address(port);
                Ok(Host {
                    id: id.parse()?,
                    address,
                })
            });
            let hosts = hosts.collect::<Result<Vec<_>>>()?;
            match port {
                65005 => cluster.view.schedulers = hosts,
                _ => cluster.view.seeds = hosts,
            }
        }
        Ok(cluster)
    }

    /// A cluster whose scheduler and whose seed are where the caller says; every host is to be
    /// started with [`Cluster::start_at`].
    ///
    /// # Errors
    /// The authority cannot be made.
    pub fn elsewhere(registry: SocketAddr, scheduler: Host, seed: Host) -> Result<Self> {
        let mut cluster = Self::of(registry, &[], &[])?;
        cluster.view = View {
            schedulers: vec![scheduler],
            seeds: vec![seed],
        };
        Ok(cluster)
    }

    /// The first scheduler of the view.
    #[must_use]
    pub fn scheduler(&self) -> &Host {
        &self.view.schedulers[0]
    }

    /// The first seed of the view.
    #[must_use]
    pub fn seed(&self) -> &Host {
        &self.view.seeds[0]
    }

    /// An address of the loopback that no other host is given, so that hosts can know each other's
    /// before any of them is started.
    #[must_use]
    pub fn address(&self, port: u16) -> SocketAddr {
        let process = 1 + (std::process::id() % 250) as u8;
        let host = self.members.fetch_add(1, Ordering::Relaxed);
        SocketAddr::from(([127, process, self.number, host], port))
    }

    /// Papers of this cluster's authority.
    ///
    /// # Errors
    /// The id is none.
    pub fn papers(&self, id: &str, roles: &[Role]) -> Result<Papers> {
        let roles: Roles = roles.iter().copied().collect();
        let issued = self
            .authority
            .issue_for(&id.parse()?, roles, self.lifetime)?;
        Ok(Papers {
            ca: self.authority.ca_pem().to_owned(),
            issued,
        })
    }

    /// What such papers make of whoever holds them.
    ///
    /// # Errors
    /// The id is none.
    pub fn identity(&self, id: &str, roles: &[Role]) -> Result<Identity> {
        self.papers(id, roles)?.identity()
    }

    /// A host that knows all that there is to know.
    #[must_use]
    pub fn plan(&self, id: &str, roles: &[Role]) -> Plan {
        Plan {
            id: id.to_owned(),
            roles: roles.to_vec(),
            view: self.view.clone(),
            listen: None,
            data_dir: None,
            swarm: String::new(),
        }
    }

    /// Starts a host with papers of this cluster.
    ///
    /// # Errors
    /// It does not come up, or opens no session; the error has what it said.
    pub fn start(&self, id: &str, roles: &[Role]) -> Result<Member> {
        let member = self.start_as(&self.plan(id, roles))?;
        // What is asked of it before that has no scheduler yet, and is another case.
        member.wait_for_sessions(self.view.schedulers.len())?;
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
        let plan = Plan {
            listen: Some(swarm),
            ..self.plan(id, roles)
        };
        let papers = self.papers(id, roles)?;
        let home = Home::new()?;
        let config = self.config(&home, &plan, Some(&papers))?;
        let darter = Darter::run_by(enter, &config, &home).with_context(|| config.clone())?;
        let member = Member {
            darter,
            home,
            id: plan.id,
            config,
        };
        member.wait_for_sessions(self.view.schedulers.len())?;
        Ok(member)
    }

    /// Starts a host as planned, with papers of this cluster, and waits for no scheduler.
    ///
    /// # Errors
    /// It does not come up; the error has what it said.
    pub fn start_as(&self, plan: &Plan) -> Result<Member> {
        let papers = self.papers(&plan.id, &plan.roles)?;
        let home = Home::new()?;
        let config = self.config(&home, plan, Some(&papers))?;
        Member::run(plan.id.clone(), config, home)
    }

    /// Starts a host that may find no scheduler: with papers of its own making, or with none.
    ///
    /// # Errors
    /// It does not come up; the error has what it said.
    pub fn start_stranger(
        &self,
        id: &str,
        roles: &[Role],
        papers: Option<&Papers>,
    ) -> Result<Member> {
        let home = Home::new()?;
        let config = self.config(&home, &self.plan(id, roles), papers)?;
        Member::run(id.to_owned(), config, home)
    }

    /// The configuration of a host, with its papers written into `home`.
    ///
    /// # Errors
    /// Nothing can be written.
    pub fn config(&self, home: &Home, plan: &Plan, papers: Option<&Papers>) -> Result<String> {
        let identity = match papers {
            None => String::new(),
            Some(papers) => {
                let [ca, cert, key] = papers.write(home)?;
                format!("[identity]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n")
            }
        };
        let id: HostId = plan.id.parse()?;
        let placed = |hosts: &[Host]| {
            let found = hosts.iter().find(|host| host.id == id);
            found.map(|host| host.address)
        };
        let own = placed(&self.view.seeds).or(plan.listen);
        let swarm = own.unwrap_or_else(|| self.address(65002));
        // One that is in nobody's view stands where the first one should.
        let scheduler = match plan.roles.contains(&Role::Scheduler) {
            true => {
                let first = || self.scheduler().address;
                let listen = placed(&self.view.schedulers).unwrap_or_else(first);
                format!("[scheduler]\nlisten = \"{listen}\"\n")
            }
            false => String::new(),
        };
        let roles = plan.roles.iter().map(|role| role.as_str());
        let names = |hosts: &[Host]| quoted(hosts.iter().map(ToString::to_string));
        let at_home = || home.path().join("data");
        Ok(format!(
            "data_dir = {:?}\nroles = {}\n{identity}\
             [proxy]\nlisten = \"127.0.0.1:0\"\n\
             [[proxy.registry]]\nname = \"registry.test\"\nendpoint = \"http://{}\"\n\
             [swarm]\nlisten = \"{swarm}\"\nschedulers = {}\nseeds = {}\n{}\n\
             {scheduler}[admin]\nlisten = \"127.0.0.1:0\"\n",
            plan.data_dir.clone().unwrap_or_else(at_home),
            quoted(roles),
            self.registry,
            names(&plan.view.schedulers),
            names(&plan.view.seeds),
            plan.swarm,
        ))
    }
}

// === impl Papers ===

impl Papers {
    /// Puts them where a host that was started by a [`Cluster`] has its own: the CA, the certificate,
    /// the key.
    ///
    /// # Errors
    /// Nothing can be written.
    pub fn write(&self, home: &Home) -> Result<[PathBuf; 3]> {
        Ok([
            home.write("ca.pem", &self.ca)?,
            home.write("cert.pem", &self.issued.certificate)?,
            home.write("key.pem", &self.issued.key)?,
        ])
    }

    /// What they make of whoever holds them.
    ///
    /// # Errors
    /// They do not hold.
    pub fn identity(&self) -> Result<Identity> {
        let IssuedPem { certificate, key } = &self.issued;
        Ok(Identity::from_pem(&self.ca, certificate, key)?)
    }
}

fn quoted(words: impl Iterator<Item = impl AsRef<str>>) -> String {
    let words: Vec<_> = words.map(|word| format!("{:?}", word.as_ref())).collect();
    format!("[{}]", words.join(", "))
}
