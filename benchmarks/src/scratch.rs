//! The directory in which everything lies that a run makes, and its janitor: another process that
//! removes it once this one has ended, however it did.
//!
//! Processes and network namespaces need no janitor: the kernel ends them with this process.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow};

/// Reads from a pipe that nobody writes to, until its other end is gone with its process. The
/// children of that process may write for a moment longer.
const JANITOR: &str = "trap '' HUP INT TERM\n\
                       cat\n\
                       for try in $(seq 100); do rm -rf \"$0\" && exit; sleep 0.1; done\n";

/// Dropped, it removes what is in it.
#[derive(Debug)]
pub(crate) struct Scratch {
    janitor: Child,
}

// === impl Scratch ===

impl Scratch {
    /// Makes the directory, into which every temporary file of this process goes from now on.
    pub(crate) fn open() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("darter-benchmark-")
            .tempdir()?;
        let janitor = Command::new("sh")
            .args(["-c", JANITOR])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // What a terminal sends to this process is not for the janitor.
            .process_group(0)
            .spawn()
            .context("the janitor cannot be started")?;
        readable_by_all(directory.path())?;
        tempfile::env::override_temp_dir(directory.path())
            .map_err(|other| anyhow!("temporary files go to {} already", other.display()))?;
        // The janitor removes it from here on.
        let _path = directory.keep();
        Ok(Self { janitor })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        // Whether it could be removed is told by the janitor itself.
        let _status = self.janitor.wait();
    }
}

/// Some of the servers give up their rights, and have their files in here.
fn readable_by_all(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
