//! The ways by which a herd can have an image, and what each of them runs.

use std::{fmt::Debug, net::SocketAddr};

use anyhow::Result;
use clap::ValueEnum;
use protocol::{Host, Role};
use registry_compat_tests::{cluster::Cluster, registry::Registry};

use super::ground::{FIRST, Ground, HELPER};
use crate::nginx::Nginx;

/// In the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    Darter,
    /// aria2 on every host and on the helper, from aria2 beside the registry.
    Bittorrent,
    /// nginx with slices and locks on the helper.
    Nginx,
    /// docker-registry as a pull-through cache on the helper.
    Distribution,
    /// Everybody at the registry.
    Direct,
}

/// What clients can ask: running servers, and the way to one for each host of a herd.
#[derive(Debug)]
pub(crate) struct Servers {
    /// All of them but the registry behind.
    pub(crate) processes: Vec<u32>,
    pub(crate) doors: Vec<SocketAddr>,
    /// What stands behind a path.
    pub(crate) query: &'static str,
    /// What ends with this value.
    _running: Box<dyn Debug + Sync>,
}

const CACHE_PORT: u16 = 8080;

// === impl Method ===

impl Method {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Darter => "Darter",
            Self::Bittorrent => "BitTorrent (aria2)",
            Self::Nginx => "nginx cache",
            Self::Distribution => "docker-registry cache",
            Self::Direct => "everyone direct",
        }
    }

    /// Whether all bytes come from one host, whose link alone decides how long a herd takes. Every
    /// round is the same then, and long.
    pub(crate) fn has_one_giver(self) -> bool {
        match self {
            Self::Darter | Self::Bittorrent => false,
            Self::Nginx | Self::Distribution | Self::Direct => true,
        }
    }
}

// === impl Servers ===

impl Servers {
    pub(crate) fn darter(ground: &Ground, hosts: usize) -> Result<Self> {
        let helper = |port| -> Result<Host> {
            Ok(Host {
                id: "helper".parse()?,
                address: ground.address(HELPER, port),
            })
        };
        let registry = ground.registry.address();
        let cluster = Cluster::elsewhere(registry, helper(65005)?, helper(65002)?)?;
        let start = |id: &str, roles: &[Role], host: usize| {
            cluster.start_at(id, roles, ground.address(host, 65002), ground.on(host))
        };
        let mut members = vec![start("helper", &[Role::Scheduler, Role::Seed], HELPER)?];
        let mut doors = Vec::new();
        for host in 0..hosts {
            let member = start(&format!("host-{host}"), &[Role::Proxy], FIRST + host)?;
            doors.push(member.darter.proxy()?);
            members.push(member);
        }
        Ok(Self {
            processes: members.iter().map(|member| member.darter.id()).collect(),
            doors,
            query: "?ns=registry.test",
            _running: Box::new(members),
        })
    }

    pub(crate) fn nginx(ground: &Ground, hosts: usize) -> Result<Self> {
        let address = ground.address(HELPER, CACHE_PORT);
        let nginx = Nginx::cache(ground.registry.address(), address, ground.on(HELPER))?;
        Ok(Self {
            processes: vec![nginx.id()],
            doors: vec![address; hosts],
            query: "",
            _running: Box::new(nginx),
        })
    }

    pub(crate) fn distribution(ground: &Ground, hosts: usize) -> Result<Self> {
        let directory = ground.directory()?;
        let address = ground.address(HELPER, CACHE_PORT);
        let upstream = ground.registry.address();
        let enter = ground.on(HELPER);
        let cache = Registry::start_cache_at(upstream, directory.path(), address, enter)?;
        Ok(Self {
            processes: vec![cache.id()],
            doors: vec![address; hosts],
            query: "",
            _running: Box::new((cache, directory)),
        })
    }

    pub(crate) fn none(ground: &Ground, hosts: usize) -> Self {
        Self {
            processes: Vec::new(),
            doors: vec![ground.registry.address(); hosts],
            query: "",
            _running: Box::new(()),
        }
    }
}
