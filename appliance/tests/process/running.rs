//! A `darter` that runs, on ports of its own, and is stopped whatever the test does.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

/// A test waits no longer than this for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A configuration in which the kernel chooses every port.
pub(super) const FREE_PORTS: &str = "
[admin]
listen = \"127.0.0.1:0\"
[proxy]
listen = \"127.0.0.1:0\"
[swarm]
listen = \"127.0.0.1:0\"
[scheduler]
listen = \"127.0.0.1:0\"
";

/// A running process; dropped, it is killed.
pub(super) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    /// What it said once it was up.
    pub(super) said: String,
}

// === impl Running ===

impl Running {
    /// `darter up` on `folder`, with ports that the kernel chooses.
    pub(super) fn up(folder: &Path, config: &str) -> anyhow::Result<Self> {
        let file = folder.join("darter.toml");
        std::fs::write(&file, config)?;
        let mut child = command()
            .args(["up", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut running = Self {
            child,
            out,
            said: String::new(),
        };
        while !running.said.contains("admin ") {
            let mut line = String::new();
            anyhow::ensure!(
                running.out.read_line(&mut line)? > 0,
                "it ended: {}",
                running.said
            );
            running.said.push_str(&line);
        }
        Ok(running)
    }

    /// The addresses of a listener, as it was told.
    pub(super) fn addresses(&self, listener: &str) -> anyhow::Result<Vec<SocketAddr>> {
        let line = self
            .said
            .lines()
            .find_map(|line| line.trim().strip_prefix(listener));
        let told = line.with_context(|| format!("no listener {listener} in {}", self.said))?;
        told.trim()
            .split(" and ")
            .map(|address| Ok(address.parse()?))
            .collect()
    }

    pub(super) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        anyhow::ensure!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()?
                .success()
        );
        Ok(())
    }

    /// Waits for the end and tells the exit code. The end of standard output is the end of the
    /// process, so nothing polls.
    pub(super) fn ended(mut self) -> anyhow::Result<Option<i32>> {
        self.out.read_to_string(&mut self.said)?;
        Ok(self.child.wait()?.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The binary, with no environment of ours and its log out of the way.
pub(super) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darter"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Sends one request on a connection of its own and reads the whole answer.
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 ") {
        bail!("no answer to {path}: {answer}");
    }
    Ok(answer)
}
