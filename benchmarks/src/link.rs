//! A link of a known rate between the registry and everybody else: two network namespaces whose
//! one way to each other is shaped, since the loopback is faster than any upstream is.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use registry_compat_tests::{
    darter::{Darter, Home},
    namespace::Room,
    process,
    registry::Registry,
};
use tempfile::TempDir;

use crate::{
    load::{Fetched, Target},
    upstream::{Content, Upstream},
};

/// What a network card of 1 Gbit/s lets through, with a queue that is as short as a switch's.
const SHAPE: &str = "root tbf rate 1gbit burst 256k latency 20ms";

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Where Darter answers in the room.
const DARTER: &str = "127.0.0.1:65001";

/// A room with the registry at the far end of a link.
#[derive(Debug)]
pub(crate) struct Link {
    room: Room,
    registry: Registry,
    /// This program, for the user that has a route to the registry.
    client: PathBuf,
    _directory: TempDir,
}

// === impl Link ===

impl Link {
    pub(crate) fn open(upstream: &Upstream) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("darter-link-").tempdir()?;
        let room = Room::open(&directory.path().join("room"))?;
        for (mut command, device) in [(room.client("tc"), "up0"), (room.registry("tc"), "down0")] {
            command.args(["qdisc", "add", "dev", device]);
            command.args(SHAPE.split(' '));
            process::check(command, COMMAND_LIMIT)?;
        }
        let registry = Registry::start_at(
            &upstream.registry_directory(),
            room.registry_address(),
            |program| room.registry(program),
        )?;
        let client = directory.path().join("room/client");
        fs::copy(std::env::current_exe()?, &client)?;
        Ok(Self {
            room,
            registry,
            client,
            _directory: directory,
        })
    }

    /// A pull over the link, straight from the registry.
    pub(crate) fn direct(&self, content: &Content) -> Result<Fetched> {
        self.fetch(&content.direct(self.registry.address()))
    }

    /// A pull through a new host with an empty store, which is at this end of the link.
    pub(crate) fn through_new_host(&self, content: &Content) -> Result<Fetched> {
        let home = Home::new()?;
        let darter = Darter::in_room(&self.room, &home)?;
        let fetched = self.fetch(&content.at(DARTER.parse()?));
        darter.kill()?;
        fetched
    }

    /// Has this program fetch the target in the room; it prints what [`Fetched::read`] reads.
    fn fetch(&self, target: &Target) -> Result<Fetched> {
        let mut command = self.room.darter(&self.client.display().to_string());
        command.arg("fetch").arg(target.address.to_string());
        command.arg(&target.path).arg(target.size.to_string());
        let told = process::check(command, COMMAND_LIMIT)?;
        Fetched::read(&told).context(told)
    }
}
