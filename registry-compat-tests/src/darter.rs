//! The real binary, started with a configuration of the test's and stopped with it.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use crate::{
    http::Request,
    namespace::{DARTER_UID, REGISTRY, Room},
    process::{self, Process},
};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running node. Dropped, it is killed.
#[derive(Debug)]
pub struct Darter {
    process: Process,
}

/// A line of `darter cache ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    pub digest: String,
    pub is_complete: bool,
}

/// A directory that the user of a room's Darter may use, with the binary in it.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
}

// === impl Darter ===

impl Darter {
    /// `darter up` in a room, as the user that has a route to the registry; it answers on the
    /// real port with the real registry behind `docker.io` and `registry.test:5000`.
    ///
    /// # Errors
    /// It does not come up; the error has what it said.
    pub fn in_room(room: &Room, home: &Home) -> Result<Self> {
        let registry = |name: &str| {
            format!("[[proxy.registry]]\nname = \"{name}\"\nendpoint = \"http://{REGISTRY}\"\n")
        };
        let registries = ["docker.io", "registry.test:5000", "registry.test"].map(registry);
        Self::in_room_with(&registries.concat(), room, home)
    }

    /// As [`Darter::in_room`], with a configuration of the test's.
    ///
    /// # Errors
    /// It does not come up; the error has what it said.
    pub fn in_room_with(config: &str, room: &Room, home: &Home) -> Result<Self> {
        let config = home.write("darter.toml", config)?;
        let mut command = room.darter(&home.binary());
        command.arg("up").arg("--config").arg(config);
        command.arg("--data-dir").arg(home.path().join("data"));
        Self::start(command, home)
    }

    /// `darter run` beside the test, with `config`.
    ///
    /// # Errors
    /// It does not come up; the error has what it said.
    pub fn run(config: &str, home: &Home) -> Result<Self> {
        Self::run_by(|program| process::command(program), config, home)
    }

    /// As [`Darter::run`], with as much in its log as `filter` chooses.
    ///
    /// # Errors
    /// As [`Darter::run`].
    pub fn run_logging(filter: &str, config: &str, home: &Home) -> Result<Self> {
        let enter = |program: &str| {
            let mut command = process::command(program);
            command.env("DARTER_LOG", filter);
            command
        };
        Self::run_by(enter, config, home)
    }

    /// `darter run` with `config`, by the command that `enter` makes of the program's name.
    ///
    /// # Errors
    /// It does not come up; the error has what it said.
    pub fn run_by(enter: impl Fn(&str) -> Command, config: &str, home: &Home) -> Result<Self> {
        let config = home.write("darter.toml", config)?;
        let mut command = enter(&home.binary());
        command.arg("run").arg("--config").arg(config);
        Self::start(command, home)
    }

    /// What runs the binary of `home` in whatever way.
    ///
    /// # Errors
    /// It does not come up; the error has what it said.
    pub fn start(command: Command, home: &Home) -> Result<Self> {
        let log = home.path().join("log");
        // What an earlier process said must not be taken for this one's word.
        fs::write(&log, "")?;
        let mut process = Process::start("darter", command, &log)?;
        // Both ways of starting tell the admin port last, once everything answers.
        let told = |log: &str| log.contains("  admin ") || log.contains("\"listener\":\"admin\"");
        let is_up = || fs::read_to_string(&log).is_ok_and(|text| told(&text));
        process.wait_ready(START_LIMIT, is_up)?;
        Ok(Self { process })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Bytes of memory that no file stands behind: `RssAnon` of proc(5).
    ///
    /// # Errors
    /// The process is gone.
    pub fn anonymous_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no RssAnon is told")?.trim().parse::<u64>()? * 1024)
    }

    /// Lets it have no more than so many files and sockets open from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn limit_descriptors(&self, count: u64) -> Result<()> {
        let pid = Pid::from_raw(self.id().cast_signed());
        let limit = Rlimit {
            current: Some(count),
            maximum: Some(count),
        };
        prlimit(pid, Resource::Nofile, limit)?;
        Ok(())
    }

    /// Where its proxy answers, as it was told; a port that the kernel chose is known to nobody else.
    ///
    /// # Errors
    /// It has told nothing of a proxy.
    pub fn proxy(&self) -> Result<SocketAddr> {
        self.listener("proxy")
    }

    /// All that it counts, in the text format of Prometheus.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self) -> Result<String> {
        let told = Request::get("/metrics").fetch(self.listener("admin")?)?;
        Ok(told.text())
    }

    /// A number that it counts, summed over the labels; `name` may go on with the first of them,
    /// as in `name{label="value"`.
    ///
    /// # Errors
    /// It does not answer, or counts nothing of that name.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.metrics()?;
        let is_it = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ', ',', '}']))
        };
        let numbers = text.lines().filter(is_it).map(|line| {
            let number = line.rsplit(' ').next().context("no number")?;
            Ok(number.parse::<f64>()?)
        });
        let numbers = numbers.collect::<Result<Vec<_>>>()?;
        anyhow::ensure!(!numbers.is_empty(), "nothing is counted as {name}");
        Ok(numbers.iter().sum())
    }

    /// Every address of a listener, as it was told.
    ///
    /// # Errors
    /// It has told nothing of such a listener.
    pub fn listeners(&self, name: &str) -> Result<Vec<SocketAddr>> {
        let log = self.log()?;
        let word = format!("\"listener\":\"{name}\",\"addresses\":\"[");
        let told = log.split(&word).nth(1);
        let told = told.and_then(|told| told.split("]\"").next());
        let told = told.with_context(|| format!("no {name} was told of"))?;
        let addresses = told.split(", ").map(|address| Ok(address.parse()?));
        addresses.collect()
    }

    fn listener(&self, name: &str) -> Result<SocketAddr> {
        let first = self.listeners(name)?.into_iter().next();
        first.with_context(|| format!("{name} has no address"))
    }

    /// Sends a signal, such as `STOP` and `CONT`.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.process.signal(signal)
    }

    /// What it has logged.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }

    /// Waits for its end, which it was told of, and fails unless it ended well.
    ///
    /// # Errors
    /// It still runs after `limit`, or has failed.
    pub fn wait_end(&mut self, limit: Duration) -> Result<()> {
        let status = self.process.wait_end(limit)?;
        anyhow::ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    /// SIGTERM, and the wait for a clean end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop()
    }

    /// All that it has logged, once it was told to end and has.
    ///
    /// # Errors
    /// It does not end in time, or the log cannot be read.
    pub fn stopped(mut self) -> Result<String> {
        self.process.stop()?;
        self.log()
    }

    /// SIGKILL, as a power cut would.
    ///
    /// # Errors
    /// The process is not to be found.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }
}

// === impl Home ===

impl Home {
    /// A fresh home with an empty data directory.
    ///
    /// # Errors
    /// The binary is not built, or nothing can be written.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("darter-home-").tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let home = Self { directory };
        // Copied by another process: a child that this one forks meanwhile would hold the file open
        // for writing until it execs, and the kernel runs no file that somebody may write.
        let mut copy = process::command("cp");
        copy.arg(built()?).arg(home.binary());
        process::check(copy, START_LIMIT).context("the binary cannot be copied")?;
        fs::create_dir(home.path().join("data"))?;
        chown(home.path().join("data"), Some(DARTER_UID), Some(DARTER_UID))?;
        Ok(home)
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file that everybody may read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(path)
    }

    /// A command to the node that runs here.
    pub fn operate(&self, words: &[&str]) -> Command {
        let mut command = process::command(self.binary());
        command.args(words).arg("--data-dir");
        command.arg(self.path().join("data"));
        command
    }

    /// What `darter setup` with these further words writes for `runtime`: paths and texts.
    ///
    /// # Errors
    /// The command fails, or writes what is no text.
    pub fn setup(&self, runtime: &str, more: &[&str]) -> Result<Vec<(String, String)>> {
        let root = tempfile::tempdir()?;
        let mut setup = self.operate(&["setup", runtime]);
        setup.arg("--root").arg(root.path()).args(more);
        process::check(setup, START_LIMIT)?;
        files_below(root.path())
    }

    /// What `darter ca install` writes for `runtime` to trust `registry`: paths and texts.
    ///
    /// # Errors
    /// The command fails, or writes what is no text.
    pub fn ca_install(&self, runtime: &str, registry: &str) -> Result<Vec<(String, String)>> {
        let root = tempfile::tempdir()?;
        let mut install = self.operate(&["ca", "install", runtime, "--registry", registry]);
        install.arg("--root").arg(root.path());
        process::check(install, START_LIMIT)?;
        files_below(root.path())
    }

    /// The PEM certificate of the authority by which the node that runs here answers as `registry`.
    ///
    /// # Errors
    /// The command fails.
    pub fn ca_of(&self, registry: &str) -> Result<String> {
        process::check(self.operate(&["ca", "show", registry]), START_LIMIT)
    }

    /// What the node that runs here keeps, by its own word.
    ///
    /// # Errors
    /// No node runs here, or it tells something else.
    pub fn cached(&self) -> Result<Vec<Cached>> {
        let told = process::check(self.operate(&["cache", "ls"]), START_LIMIT)?;
        let lines = told.lines().filter(|line| line.starts_with("sha"));
        lines
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let state = words.iter().rev().nth(1).context("no state")?;
                Ok(Cached {
                    digest: words[0].to_owned(),
                    is_complete: *state == "complete",
                })
            })
            .collect()
    }

    /// Where the binary lies.
    #[must_use]
    pub fn binary(&self) -> String {
        self.path().join("darter").display().to_string()
    }
}

/// Every file below `root`: its path as a client sees it, and its text.
fn files_below(root: &Path) -> Result<Vec<(String, String)>> {
    let (mut files, mut directories) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let real = Path::new("/").join(path.strip_prefix(root)?);
            files.push((real.display().to_string(), fs::read_to_string(path)?));
        }
    }
    Ok(files)
}

/// The binary that cargo has put beside this one, or above `deps/` where tests lie.
fn built() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut directory = own.parent().context("a program lies in a directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("deps/ lies in a directory")?;
    }
    let binary = directory.join("darter");
    anyhow::ensure!(
        binary.exists(),
        "{} is missing: build the workspace first, as registry-compat-tests/run does",
        binary.display()
    );
    Ok(binary)
}
