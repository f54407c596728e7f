//! What was found, before anybody says what it means.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::SystemTime};

use serde::Deserialize;

/// All of it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) now: SystemTime,
    pub(super) configuration_problem: Option<String>,
    pub(super) data_dir: PathBuf,
    pub(super) disk: Result<Disk, String>,
    /// What the node says of itself, or why it does not.
    pub(super) node: Result<Node, String>,
    pub(super) listeners: Vec<Listener>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) runtimes: Vec<Runtime>,
    /// `None` where there is no node to pull through.
    pub(super) pull: Option<Result<Pulled, String>>,
    pub(super) is_default_image: bool,
    /// Where runtimes are to ask.
    pub(super) port: u16,
}

/// The part of `darter status` that is needed.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Node {
    pub(super) version: String,
    pub(super) phase: String,
    pub(super) listeners: BTreeMap<String, Vec<SocketAddr>>,
}

/// The data directory and its file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk {
    pub(super) free: u64,
    /// What the node leaves free.
    pub(super) min_free: u64,
    pub(super) is_writable: bool,
    /// Others than its owner may write there.
    pub(super) is_open: bool,
}

/// An address that the node answers on, or would.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// Whether somebody takes connections there; the error if not.
    pub(super) answered: Result<(), String>,
}

/// A certificate of this host.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    /// Whose it is, for a person.
    pub(super) of: String,
    /// What makes a new one.
    pub(super) renewal: String,
    /// From when until when, or why it cannot be told.
    pub(super) validity: Result<(SystemTime, SystemTime), String>,
}

/// A registry, as the node would ask it.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub(super) registry: String,
    pub(super) is_configured: bool,
    pub(super) answer: Result<Greeting, String>,
    /// Why the file with this node's login cannot be read.
    pub(super) login_problem: Option<String>,
}

/// An answer to `GET /v2/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Greeting {
    pub(super) status: u16,
    pub(super) has_challenge: bool,
    /// By the registry's clock, and by ours at that moment.
    pub(super) dates: Option<(SystemTime, SystemTime)>,
}

/// A container runtime.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    pub(super) name: &'static str,
    pub(super) is_installed: bool,
    pub(super) setup: Result<Setup, String>,
}

/// How a runtime is pointed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setup {
    /// By nothing that is known.
    None,
    /// By a file that no setup has written.
    ByHand,
    /// By a setup.
    Recorded {
        /// Files that have our part no more.
        missing: Vec<PathBuf>,
        /// Whether one of the files names the port of the node.
        is_port_named: bool,
    },
}

/// What came through the node.
#[derive(Debug, Clone)]
pub(super) struct Pulled {
    pub(super) image: String,
    pub(super) blob: String,
    pub(super) len: usize,
}

// === impl Node ===

impl Node {
    /// Where the mirror is reached from this host.
    pub(super) fn mirror(&self) -> Option<SocketAddr> {
        let first = self.listeners.get("proxy")?.first()?;
        Some(reachable(*first))
    }
}

/// `address` as this host reaches it: one that stands for all is also the loopback's.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
