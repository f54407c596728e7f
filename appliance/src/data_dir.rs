//! The one directory of a process: made, tried and locked before anything else is started.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

/// Written at start to learn whether the disk has room at all, in bytes.
const PROBE_LEN: usize = 64 * 1024;

/// A directory that this process alone uses. The lock ends with the value.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

// === impl DataDir ===

impl DataDir {
    /// Makes `path` where it is missing, locks it and writes to it once.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| sentence(path, &error))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("{shown} cannot be resolved"))?;
        let lock = lock(&path)?;
        probe(&path).map_err(|error| sentence(&path, &error))?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where local commands reach the process that runs on `data_dir`.
    pub(crate) fn socket_in(data_dir: &Path) -> PathBuf {
        data_dir.join("control.sock")
    }
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("lock");
    let opened = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path);
    let mut file = opened.map_err(|error| sentence(data_dir, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            let _unknown = file.read_to_string(&mut owner);
            let owner = if owner.trim().is_empty() {
                "?"
            } else {
                owner.trim()
            };
            bail!(
                "{} is in use by another darter (pid {owner}); stop it or choose another data directory",
                data_dir.display()
            );
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
        }
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|error| sentence(data_dir, &error))?;
    Ok(file)
}

/// Writes a file and takes it away again.
fn probe(data_dir: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(data_dir)?;
    file.write_all(&[0; PROBE_LEN])?;
    file.sync_data()
}

/// One sentence that says what is wrong with the directory and what to do.
fn sentence(path: &Path, error: &io::Error) -> anyhow::Error {
    let remedy = "choose another with --data-dir or the key data_dir";
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            anyhow::anyhow!(
                "the disk of the data directory {path} is full; free some space or {remedy}"
            )
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            anyhow::anyhow!("the data directory {path} is not writable; {remedy}")
        }
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            anyhow::anyhow!("the data directory {path} is not a directory; {remedy}")
        }
        _ => anyhow::anyhow!("the data directory {path} cannot be used: {error}; {remedy}"),
    }
}
