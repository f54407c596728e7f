//! A star of network namespaces: hosts on one switch, each with a link of its own that has a known
//! rate each way.
//!
//! A link is shaped where a real one is: what a host sends leaves through its own card, and what it
//! is sent leaves through the switch's port. What hosts say to themselves is not shaped.
//! Nothing is left behind: the namespaces end with the processes that hold them.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{namespace::Holder, process};

/// Hosts of a star: their numbers go into the last byte of an address.
const HOSTS_MAX: usize = 250;

const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// How much may leave a link at once beyond what is sent in [`BURST_TIME`]: one segment as large as
/// the kernel makes them, so that none is split for being too long.
const BURST_BYTES: u64 = 64 << 10;

const BURST_TIME: Duration = Duration::from_millis(5);

/// The switch and its hosts.
#[derive(Debug)]
pub struct Star {
    hosts: Vec<Holder>,
    switch: Holder,
}

// === impl Star ===

impl Star {
    /// Makes so many hosts whose links carry `rate` bits a second each way. What the processes that
    /// hold the namespaces say goes into `directory`.
    ///
    /// # Errors
    /// Not root, or a tool of iproute2 or util-linux is missing.
    pub fn open(directory: &Path, hosts: usize, rate: u64) -> Result<Self> {
        ensure!(hosts <= HOSTS_MAX, "a star has at most {HOSTS_MAX} hosts");
        fs::create_dir_all(directory)?;
        let switch = Holder::start(&directory.join("switch.log"))?;
        script(
            &switch,
            "ip link add bridge0 type bridge\nip link set bridge0 up\n",
        )?;
        let mut star = Self {
            hosts: Vec::new(),
            switch,
        };
        for number in 0..hosts {
            let host = Holder::start(&directory.join(format!("host-{number}.log")))?;
            star.connect(&host, number, &shape(rate))?;
            star.hosts.push(host);
        }
        Ok(star)
    }

    /// An address of a host.
    #[must_use]
    pub fn address(&self, host: usize, port: u16) -> SocketAddr {
        SocketAddr::new(ip(host), port)
    }

    /// A command that runs on a host, with the test's own files and process ids.
    #[must_use]
    pub fn command(&self, host: usize, program: &str) -> Command {
        self.hosts[host].command(program)
    }

    /// Bytes that a host has put on its link so far, with the heads of its packets.
    ///
    /// # Errors
    /// The namespace has ended.
    pub fn sent(&self, host: usize) -> Result<u64> {
        let file = format!("/proc/{}/net/dev", self.hosts[host].first);
        let devices = fs::read_to_string(file)?;
        let link = devices
            .lines()
            .find_map(|line| line.trim_start().strip_prefix("wire0:"));
        // Eight numbers of what came in stand before those of what went out (proc(5)).
        let sent = link.and_then(|line| line.split_whitespace().nth(8));
        Ok(sent.context("no counter of the link")?.parse()?)
    }

    fn connect(&self, host: &Holder, number: usize, shape: &str) -> Result<()> {
        let switch = self.switch.first;
        let address = ip(number);
        // Nothing is learnt from earlier connections: each herd is to be the first.
        script(
            host,
            &format!(
                "ip link set lo up\n\
                 ip link add wire0 type veth peer name port{number} netns {switch}\n\
                 ip address add {address}/24 dev wire0\n\
                 ip link set wire0 up\n\
                 tc qdisc add dev wire0 {shape}\n\
                 echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save\n"
            ),
        )?;
        script(
            &self.switch,
            &format!(
                "ip link set port{number} master bridge0 up\n\
                 tc qdisc add dev port{number} {shape}\n"
            ),
        )
    }
}

fn ip(host: usize) -> IpAddr {
    // In range: `Star::open` makes no more than HOSTS_MAX.
    IpAddr::from([10, 78, 0, 1 + host as u8])
}

fn shape(rate: u64) -> String {
    let burst = BURST_BYTES + rate * BURST_TIME.as_millis() as u64 / 8000;
    format!("root tbf rate {rate}bit burst {burst} latency 50ms")
}

fn script(holder: &Holder, lines: &str) -> Result<()> {
    let mut command = holder.command("sh");
    command.arg("-euc").arg(lines);
    process::check(command, COMMAND_LIMIT)?;
    Ok(())
}
