//! Child processes of a test: started with their output in a file, ended with the test.
//!
//! Invariant: a child never outlives the thread that started it; the kernel kills it when that
//! thread ends, and `Drop` kills it sooner. Every wait here has a deadline. This is the only file
//! of the harness that reads the clock or sleeps: it drives processes that cannot call back.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};

/// How often a condition outside this process is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// How long a daemon may take to end after SIGTERM before it is killed.
const TERM_GRACE: Duration = Duration::from_secs(10);

/// A running child and the file that has its output.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What a finished command left behind.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub output: String,
    pub took: Duration,
}

/// A point in time that waits are measured against.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

// === impl Process ===

impl Process {
    /// Starts `command` with both its outputs in `log`.
    ///
    /// # Errors
    /// The program is missing or the log cannot be made.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The process id, in the test's own process namespace.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything written so far.
    ///
    /// # Errors
    /// The log is gone.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Waits until `ready` holds, or says why not with the log.
    ///
    /// # Errors
    /// The process ended, or `limit` passed.
    pub fn wait_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let watch = Stopwatch::start();
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended with {status} before it was ready:\n{}",
                    self.name,
                    self.log()?
                );
            }
            if watch.elapsed() > limit {
                bail!(
                    "{} is not ready after {limit:?}:\n{}",
                    self.name,
                    self.log()?
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Sends a signal by its name, as `kill` spells it.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status()?;
        if !status.success() {
            bail!("{} could not be sent {signal}", self.name);
        }
        Ok(())
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        match wait_child(&mut self.child, limit)? {
            Some(status) => Ok(status),
            None => bail!("{} still runs after {limit:?}:\n{}", self.name, self.log()?),
        }
    }

    /// Kills the process outright and reaps it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end, and insists when it does not.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.signal("TERM")?;
        if wait_child(&mut self.child, TERM_GRACE)?.is_none() {
            self.kill()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about a child that cannot be killed; the kernel kills it with us.
        let _already_gone = self.kill();
    }
}

// === impl Finished ===

impl Finished {
    /// The output, when the command succeeded.
    ///
    /// # Errors
    /// The command failed; the message carries its output.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!(
                "ended with {} after {:?}:\n{}",
                self.status,
                self.took,
                self.output
            );
        }
        Ok(self.output)
    }
}

// === impl Stopwatch ===

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness drives real processes in real time"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Time since the epoch, as certificates and tokens have it.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "what a test gives to real clients is dated by the real clock"
)]
pub fn unix_time() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 tells nothing worth more than that.
    since.unwrap_or(Duration::ZERO)
}

/// A command that dies with the thread that starts it.
#[must_use]
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or still runs after `limit`, at which it is killed.
pub fn run(mut command: Command, limit: Duration) -> Result<Finished> {
    let output = tempfile::NamedTempFile::new()?;
    // One place in the file for both, or each would write over the other.
    let both = output.as_file();
    let watch = Stopwatch::start();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(both.try_clone()?)
        .stderr(both.try_clone()?)
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let status = wait_child(&mut child, limit)?;
    let text = String::from_utf8_lossy(&fs::read(output.path())?).into_owned();
    let Some(status) = status else {
        child.kill()?;
        child.wait()?;
        bail!("{command:?} still runs after {limit:?}:\n{text}");
    };
    Ok(Finished {
        status,
        output: text,
        took: watch.elapsed(),
    })
}

/// Runs a command that must succeed and returns what it printed.
///
/// # Errors
/// It failed, or did not end in time; the message has the command and its output.
pub fn check(command: Command, limit: Duration) -> Result<String> {
    let told = format!("{command:?}");
    run(command, limit)?.success().context(told)
}

/// Waits until a condition holds.
///
/// # Errors
/// It does not hold after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let watch = Stopwatch::start();
    while !holds() {
        if watch.elapsed() > limit {
            bail!("waited {limit:?} in vain for: {what}");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

fn wait_child(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let watch = Stopwatch::start();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if watch.elapsed() > limit {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}
