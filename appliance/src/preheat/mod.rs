//! `darter preheat`: what the command asks of the running node, and the lines it is answered with.
//!
//! One JSON value per line; a line that says nothing shows that the node lives.

mod serve;
mod show;

use serde::{Deserialize, Serialize};

pub(crate) use serve::Preheater;
pub(crate) use show::run;

/// Which hosts are to have the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PreheatScope {
    /// For each content the seed that would fetch it anyway.
    Seeds,
    /// Every host of the cluster.
    All,
}

/// What the command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    pub(crate) image: String,
    /// As in `linux/amd64`; none means that of the node.
    pub(crate) platforms: Vec<String>,
    pub(crate) all_platforms: bool,
    pub(crate) scope: PreheatScope,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Line {
    /// What the image consists of; the first line.
    Plan { digest: String, parts: Vec<Part> },
    /// Something has changed for one content.
    Progress(Progress),
    /// Nothing has changed; the node is at it.
    Alive,
    /// It cannot be done; the last line.
    Problem(String),
    /// Everything is over; the last line.
    End { failed: usize },
}

/// One content of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) digest: String,
    /// `index`, `manifest`, `config` or `layer`.
    pub(crate) kind: String,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) platform: Option<String>,
}

/// Where one content stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) digest: String,
    /// Hosts that are to have it, and those that do.
    pub(crate) wanted: u32,
    pub(crate) held: u32,
    /// Pieces over all of these hosts, and of one copy.
    pub(crate) pieces: u64,
    pub(crate) total: Option<u32>,
    pub(crate) state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Running,
    Done,
    Failed(String),
}
