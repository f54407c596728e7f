//! What this program does for itself as another process, mostly in another network namespace: it
//! fetches, copies and keeps a tracker there, and prints what its parent reads.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use clap::Subcommand;

use crate::{
    copy, herd,
    herd::{pull, tracker},
    load::Target,
    sealed,
    terminal::say,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Errand {
    /// Measures herds: many hosts that want one cold image at the same moment.
    Herd(herd::Options),
    /// Fetches a body once and prints how long it took.
    #[command(hide = true)]
    Fetch {
        address: SocketAddr,
        path: String,
        size: u64,
    },
    /// Fetches blobs as a runtime does and prints how long it took.
    #[command(hide = true)]
    Pull {
        address: SocketAddr,
        paths: Vec<String>,
    },
    /// Sends bytes to one client.
    #[command(hide = true)]
    Give { listen: SocketAddr, size: u64 },
    /// Reads from such a server and prints how long it took.
    #[command(hide = true)]
    Take { address: SocketAddr, size: u64 },
    /// Sends a file to one client, over mutual TLS.
    #[command(hide = true)]
    GiveSealed { papers: PathBuf, file: PathBuf },
    /// Fetches it and prints how long it took.
    #[command(hide = true)]
    TakeSealed {
        papers: PathBuf,
        file: PathBuf,
        address: SocketAddr,
        size: u64,
    },
    /// Tells BitTorrent peers of each other.
    #[command(hide = true)]
    Track { listen: SocketAddr },
}

// === impl Errand ===

impl Errand {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Herd(options) => herd::run(&options),
            Self::Fetch {
                address,
                path,
                size,
            } => {
                let target = Target {
                    address,
                    path,
                    size,
                };
                say(&target.fetch()?.told());
                Ok(())
            }
            Self::Pull { address, paths } => {
                say(&pull::all(address, &paths)?.told());
                Ok(())
            }
            Self::Give { listen, size } => copy::give(listen, size),
            Self::Take { address, size } => copy::take(address, size),
            Self::GiveSealed { papers, file } => sealed::give(&papers, &file),
            Self::TakeSealed {
                papers,
                file,
                address,
                size,
            } => sealed::take(&papers, &file, address, size),
            Self::Track { listen } => tracker::serve(listen),
        }
    }
}

/// A command that runs this program in the way that `enter` has with programs.
pub(crate) fn own(enter: impl Fn(&str) -> Command) -> Result<Command> {
    let program: PathBuf = std::env::current_exe()?;
    Ok(enter(&Path::new(&program).display().to_string()))
}
