//! The configuration of a whole appliance: one TOML file, one table per role.
//!
//! [`RawConfig`] is the file as written, [`Config`] what the process runs on. Each crate checks
//! its own table; this file checks what concerns the process, and what one table asks of another.

mod change;
mod files;
mod identity;
mod problem;
mod read;

use std::{net::SocketAddr, path::PathBuf, sync::LazyLock, time::Duration};

use protocol::{Identity, Role, Roles};
use serde::{Deserialize, Serialize};

use crate::environment;

pub(crate) use change::needing_restart;
pub use identity::RawIdentity;
pub use problem::{Problem, Problems};
pub use read::read;

/// Where a system service keeps its data.
pub const DATA_DIR: &str = "/var/lib/darter";

/// Where a system service has its configuration.
pub const CONFIG_FILE: &str = "/etc/darter/darter.toml";

/// The roles that this version can run.
pub const BUILT_ROLES: [Role; 3] = [Role::Scheduler, Role::Seed, Role::Proxy];

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Where everything that outlives the process is kept.
    pub data_dir: PathBuf,

    /// What this process does: `scheduler`, `seed`, `proxy`.
    pub roles: Vec<String>,

    /// How long running bodies may go on after the process was told to stop.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,

    /// Connections that each listener holds at once; further ones wait in the kernel.
    pub connections_max: u32,

    /// `auto`, `text` or `json`; `auto` is text on a terminal.
    pub log_format: LogFormat,

    pub identity: RawIdentity,
    pub proxy: proxy::RawConfig,
    pub swarm: swarm::config::RawConfig,
    pub scheduler: scheduler::RawConfig,
    pub seed: seed::RawConfig,
    pub admin: RawAdmin,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

/// The `[admin]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAdmin {
    pub listen: SocketAddr,
}

/// The whole file, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    pub roles: Roles,
    pub drain_timeout: Duration,
    pub connections_max: usize,
    pub log_format: LogFormat,
    pub identity: Identity,
    pub proxy: proxy::Config,
    pub swarm: swarm::config::Config,
    pub scheduler: scheduler::Config,
    pub seed: seed::Config,
    pub admin_listen: SocketAddr,
    /// Every port that this process listens on.
    pub own_ports: Vec<u16>,
}

// === impl RawConfig ===

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from(DATA_DIR),
            roles: BUILT_ROLES.map(|role| role.as_str().to_owned()).to_vec(),
            drain_timeout: Duration::from_secs(30),
            connections_max: 4096,
            log_format: LogFormat::Auto,
            identity: RawIdentity::default(),
            proxy: proxy::RawConfig::default(),
            swarm: swarm::config::RawConfig::default(),
            scheduler: scheduler::RawConfig::default(),
            seed: seed::RawConfig::default(),
            admin: RawAdmin::default(),
        }
    }
}

impl RawConfig {
    /// The checked configuration, or every problem in it.
    pub fn check(self) -> Result<Config, Vec<Problem>> {
        let mut problems = Vec::new();
        if self.data_dir.as_os_str().is_empty() {
            problems.push(Problem::at("data_dir", "must name a directory"));
        }
        let roles = check_roles(&self.roles, &mut problems);
        if self.drain_timeout > Duration::from_secs(3600) {
            problems.push(Problem::at("drain_timeout", "must be 1h or shorter"));
        }
        if self.connections_max == 0 {
            problems.push(Problem::at("connections_max", "must be at least 1"));
        }
        problems.extend(self.listeners_that_clash());
        let own_ports = self.listeners().iter().map(|(_, at)| at.port()).collect();
        if self.identity.is_empty() {
            problems.extend(self.listeners_that_need_an_identity());
        }
        let surroundings = proxy::config::Surroundings {
            data_dir: &self.data_dir,
            pseudonym: &PSEUDONYM,
            proxy: environment::upstream_proxies(),
            read: files::read,
            names: files::names,
        };
        let proxy = told(self.proxy.check(&surroundings), &mut problems);
        let swarm = told(self.swarm.check(), &mut problems);
        let scheduler = told(self.scheduler.check(), &mut problems);
        let seed = told(self.seed.check(), &mut problems);
        let identity = self.identity.check(roles, &mut problems);
        let (Some(proxy), Some(swarm), Some(scheduler), Some(seed), Some(identity), true) =
            (proxy, swarm, scheduler, seed, identity, problems.is_empty())
        else {
            return Err(problems);
        };
        Ok(Config {
            data_dir: self.data_dir,
            roles,
            drain_timeout: self.drain_timeout,
            connections_max: self.connections_max as usize,
            log_format: self.log_format,
            identity,
            proxy,
            swarm,
            scheduler,
            seed,
            admin_listen: self.admin.listen,
            own_ports,
        })
    }

    /// Nothing binds an address that others reach before this host belongs to a cluster.
    fn listeners_that_need_an_identity(&self) -> Vec<Problem> {
        self.listeners()
            .into_iter()
            .filter(|(_, address)| !address.ip().is_loopback())
            .map(|(key, _)| {
                Problem::at(
                    key,
                    "must be a loopback address while [identity] is not set",
                )
            })
            .collect()
    }

    /// A further address of the proxy that is one of another listener, or that it has twice.
    fn listeners_that_clash(&self) -> Vec<Problem> {
        let listeners = self.listeners();
        let mut problems = Vec::new();
        for (index, (key, address)) in listeners.iter().enumerate() {
            let clashes = |(_, other): &&(&str, SocketAddr)| {
                let is_any = other.ip().is_unspecified() && other.is_ipv4() == address.is_ipv4();
                let is_shared = other.ip() == address.ip() || is_any;
                address.port() != 0 && other.port() == address.port() && is_shared
            };
            let taken_by = listeners[..index].iter().find(clashes);
            let is_further = matches!(*key, "proxy.also_listen" | "proxy.transparent_listen");
            if let (true, Some((taken_by, _))) = (is_further, taken_by) {
                let problem = format!("{address} is an address of {taken_by} already");
                problems.push(Problem::at(key, &problem));
            }
        }
        problems
    }

    /// Every key that names an address to listen on.
    pub fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let mut listeners = vec![
            ("proxy.listen", self.proxy.listen),
            ("swarm.listen", self.swarm.listen),
            ("scheduler.listen", self.scheduler.listen),
            ("admin.listen", self.admin.listen),
        ];
        let also = self.proxy.also_listen.iter();
        listeners.extend(also.map(|address| ("proxy.also_listen", *address)));
        if let Ok(Some(address)) = self.proxy.transparent_listen() {
            listeners.push(("proxy.transparent_listen", address));
        }
        listeners
    }
}

/// The checked table; its problems go to the others.
fn told<C, E: ToString>(checked: Result<C, Vec<E>>, problems: &mut Vec<Problem>) -> Option<C> {
    let told =
        |errors: Vec<E>| problems.extend(errors.iter().map(|e| Problem::told(&e.to_string())));
    checked.map_err(told).ok()
}

fn check_roles(names: &[String], problems: &mut Vec<Problem>) -> Roles {
    if names.is_empty() {
        problems.push(Problem::at(
            "roles",
            "must name at least one of scheduler, seed, proxy",
        ));
    }
    let mut roles = Vec::new();
    for name in names {
        match name.parse::<Role>() {
            Ok(role) if BUILT_ROLES.contains(&role) => roles.push(role),
            Ok(role) => problems.push(Problem::at("roles", &not_built(role))),
            Err(problem) => problems.push(Problem::at("roles", &problem)),
        }
    }
    roles.into_iter().collect()
}

/// A name that no other process has, so that only a request of this one is taken for a loop. It
/// stays over a reload: a request that left before may come back after.
static PSEUDONYM: LazyLock<String> =
    LazyLock::new(|| format!("darter-{:016x}", rand::random::<u64>()));

fn not_built(role: Role) -> String {
    format!(
        "the {} role is not in this version; remove it",
        role.as_str()
    )
}

// === impl RawAdmin ===

impl Default for RawAdmin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 65009)),
        }
    }
}
