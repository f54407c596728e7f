//! A sealed room: network, mount and process namespaces in which a client finds the real port and
//! the real configuration paths, and in which only one user id has a route to the registry.
//!
//! The seal is the routing table. The room's way out (one pair of virtual interfaces to the
//! registry's network namespace) stands in a table of its own that an `ip rule` gives to
//! [`DARTER_UID`] alone; for every other user there is no route, so a client that falls back to
//! the registry gets "network is unreachable" at once, and the registry's log would show it if not.
//! Nothing is left behind: all namespaces end with the two processes that hold them.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{self, Process};

/// The user that Darter runs as, and that alone has a route out of the room.
pub const DARTER_UID: u32 = 65001;

/// Where the registry listens, seen from the room.
pub const REGISTRY: &str = "10.77.0.2:5000";

/// What the room's hosts file calls the registry.
pub const REGISTRY_NAME: &str = "registry.test";

const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// Directories that each room has for itself, by their real paths.
const OWN_DIRECTORIES: [&str; 10] = [
    "/etc/docker",
    "/etc/containers",
    "/etc/containerd",
    "/root",
    "/run",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/buildkit",
    "/var/tmp",
];

/// The namespaces of one test.
#[derive(Debug)]
pub struct Room {
    inside: Holder,
    outside: Holder,
    directory: PathBuf,
}

/// A process whose namespaces are entered by others.
#[derive(Debug)]
pub(crate) struct Holder {
    /// The first process of the namespaces, in the test's own numbering.
    pub(crate) first: u32,
    _process: Process,
}

// === impl Room ===

impl Room {
    /// Makes the namespaces, with everything that is theirs below `directory`.
    ///
    /// # Errors
    /// Not root, or a tool of iproute2 or util-linux is missing.
    pub fn open(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        let room = Self {
            inside: Holder::start(&directory.join("inside.log"))?,
            outside: Holder::start(&directory.join("outside.log"))?,
            directory: directory.to_owned(),
        };
        room.connect()?;
        room.furnish()?;
        Ok(room)
    }

    /// Where this room's own files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The registry's address.
    ///
    /// # Panics
    /// Never: the address is a constant of this file.
    #[must_use]
    pub fn registry_address(&self) -> SocketAddr {
        REGISTRY.parse().expect("a constant in this file")
    }

    /// A command that runs where clients run.
    #[must_use]
    pub fn client(&self, program: &str) -> Command {
        let mut command = process::command("nsenter");
        command
            .args(["--target", &self.inside.first.to_string()])
            .args(["--net", "--mount", "--pid", "--wdns=/", "--"])
            // What runs in there is a child of the door through which it went in, and ends with it.
            .args(["setpriv", "--pdeathsig", "TERM", "--", program])
            .env("HOME", "/root")
            .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY")
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .env_remove("DOCKER_HOST");
        command
    }

    /// A listener where clients run; the test itself serves it.
    ///
    /// # Errors
    /// There is no such address in the room, or it is taken.
    pub fn listen(&self, place: SocketAddr) -> Result<TcpListener> {
        self.inside.listen(place)
    }

    /// A listener where the registry runs, to which Darter alone has a route.
    ///
    /// # Errors
    /// There is no such address, or it is taken.
    pub fn listen_outside(&self, place: SocketAddr) -> Result<TcpListener> {
        self.outside.listen(place)
    }

    /// Lets clients find these names at these addresses, and none but them and `localhost`.
    ///
    /// # Errors
    /// The room's hosts file cannot be written.
    pub fn call(&self, names: &[(&str, IpAddr)]) -> Result<()> {
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (name, address) in names {
            hosts += &format!("{address} {name}\n");
        }
        fs::write(self.directory.join("root/hosts"), hosts)?;
        Ok(())
    }

    /// A command that runs where the registry runs.
    #[must_use]
    pub fn registry(&self, program: &str) -> Command {
        self.outside.command(program)
    }

    /// A command that runs beside the clients as the one user with a route to the registry. It
    /// keeps the test's process ids and files.
    #[must_use]
    pub fn darter(&self, program: &str) -> Command {
        let uid = DARTER_UID.to_string();
        let mut command = process::command("nsenter");
        command
            .args(["--target", &self.inside.first.to_string(), "--net", "--"])
            .args([
                "setpriv",
                "--reuid",
                &uid,
                "--regid",
                &uid,
                "--clear-groups",
            ])
            .args(["--pdeathsig", "KILL", "--", program]);
        command
    }

    /// Writes a file at its real path, seen by clients in the room only.
    ///
    /// # Errors
    /// The path is in none of the room's own directories.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.host_path(path)?;
        fs::create_dir_all(file.parent().context("a file has a directory")?)?;
        fs::write(file, text)?;
        Ok(())
    }

    /// Where a path of the room lies outside of it.
    ///
    /// # Errors
    /// The path is in none of the room's own directories.
    pub fn host_path(&self, path: &str) -> Result<PathBuf> {
        let own = OWN_DIRECTORIES
            .iter()
            .any(|directory| Path::new(path).starts_with(directory));
        ensure!(own, "{path} is not the room's own");
        Ok(self
            .directory
            .join("root")
            .join(path.trim_start_matches('/')))
    }

    fn connect(&self) -> Result<()> {
        let (inside, outside) = (
            self.inside.first.to_string(),
            self.outside.first.to_string(),
        );
        let mut pair = Command::new("ip");
        pair.args(["link", "add", "up0", "netns", &inside, "type", "veth"])
            .args(["peer", "name", "down0", "netns", &outside]);
        process::check(pair, COMMAND_LIMIT)?;
        let uid = format!("{DARTER_UID}-{DARTER_UID}");
        for (holder, arguments) in [
            (&inside, "link set lo up"),
            (&inside, "addr add 10.77.0.1/32 dev up0"),
            (&inside, "link set up0 up"),
            (&inside, "route add 10.77.0.2/32 dev up0 table 77"),
            (&inside, &format!("rule add uidrange {uid} lookup 77")),
            (&outside, "link set lo up"),
            (&outside, "addr add 10.77.0.2/32 dev down0"),
            (&outside, "link set down0 up"),
            (&outside, "route add 10.77.0.1/32 dev down0"),
        ] {
            let mut command = Command::new("nsenter");
            command
                .args(["--target", holder, "--net", "--", "ip"])
                .args(arguments.split(' '));
            process::check(command, COMMAND_LIMIT)?;
        }
        Ok(())
    }

    fn furnish(&self) -> Result<()> {
        let root = self.directory.join("root");
        let mut script = String::from("set -eu\n");
        for path in OWN_DIRECTORIES {
            fs::create_dir_all(path)?;
            let own = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(&own)?;
            script += &format!("mount --bind {} {path}\n", own.display());
        }
        let registry = self.registry_address().ip();
        self.call(&[
            (REGISTRY_NAME, registry),
            ("registry-1.docker.io", registry),
        ])?;
        fs::write(root.join("resolv.conf"), "nameserver 127.0.0.53\n")?;
        for name in ["hosts", "resolv.conf"] {
            let file = root.join(name);
            script += &format!("mount --bind {} /etc/{name}\n", file.display());
        }
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.inside.first.to_string(),
                "--mount",
                "--",
                "sh",
                "-c",
            ])
            .arg(script);
        process::check(command, COMMAND_LIMIT)?;
        Ok(())
    }
}

// === impl Holder ===

impl Holder {
    pub(crate) fn start(log: &Path) -> Result<Self> {
        let mut command = process::command("unshare");
        command.args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.args(["sleep", "infinity"]);
        let mut process = Process::start("namespaces", command, log)?;
        let parent = process.id();
        let mut first = None;
        process.wait_ready(COMMAND_LIMIT, || {
            first = sleeping_child(parent);
            first.is_some()
        })?;
        let first = first.context("the namespaces have no process")?;
        Ok(Self {
            first,
            _process: process,
        })
    }

    fn listen(&self, place: SocketAddr) -> Result<TcpListener> {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.first))?;
        // A thread that goes there does not come back; a socket belongs to where it was made.
        thread::scope(|scope| {
            let bound = scope.spawn(|| -> Result<TcpListener> {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(TcpListener::bind(place)?)
            });
            bound.join().map_err(|_| anyhow!("the thread failed"))?
        })
    }

    /// A command that runs in this network, with the test's own files and process ids.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = process::command("nsenter");
        command
            .args(["--target", &self.first.to_string()])
            .args(["--net", "--", program]);
        command
    }
}

/// The child of `unshare`, once it has become the sleeper, so that its mounts are made.
fn sleeping_child(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let child = children.split_whitespace().next()?.parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
    (name.trim() == "sleep").then_some(child)
}
