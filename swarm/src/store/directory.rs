//! Where tasks lie on the disk: `v1/<algorithm>/<2 hex>/<hex>/{data,log}` below the store's directory,
//! with a `pin` beside them where the task is to stay.
//!
//! Invariant: one process has the directory at a time. A task's directory is taken away by one
//! rename, so no crash leaves the log of one attempt beside the data of another.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use protocol::{content::TaskId, digest::Digest};
use rustix::fs::{FlockOperation, flock, statvfs};

use super::error::StoreError;

/// What a task's directory itself takes on most file systems.
const DIRECTORY_BYTES: u64 = 4096;

/// The mark of a pinned task, beside its data and log.
const PIN: &str = "pin";

/// The version of this layout of directories.
const VERSION: u32 = 1;

const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// The directory of the store, locked.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    trash: PathBuf,
    /// Makes the names of this run's trash differ from those of earlier runs.
    started: u128,
    discarded: AtomicU64,
    /// Open as long as the lock is to be held.
    _lock: File,
}

/// The two files of a task.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) data: File,
    pub(super) log: File,
}

// === impl Directory ===

impl Directory {
    /// Makes the directory, takes its lock and sees that it can be written.
    pub(super) fn open(path: &Path, now: SystemTime) -> Result<Self, StoreError> {
        let cannot_use = |source| StoreError::Directory {
            path: path.to_owned(),
            source,
        };
        make_directories(path).map_err(cannot_use)?;
        let lock = file_options()
            .create(true)
            .open(path.join("lock"))
            .map_err(cannot_use)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(cannot_use(error.into())),
        }
        for entry in fs::read_dir(path).map_err(cannot_use)? {
            let name = entry.map_err(cannot_use)?.file_name();
            let version = name
                .to_str()
                .and_then(|name| name.strip_prefix('v')?.parse().ok());
            if version.is_some_and(|version: u32| version > VERSION) {
                return Err(StoreError::NewerFormat {
                    path: path.to_owned(),
                });
            }
        }
        let root = path.join(format!("v{VERSION}"));
        let trash = root.join("trash");
        make_directories(&trash).map_err(cannot_use)?;
        probe(&root.join("probe")).map_err(cannot_use)?;
        let started = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        Ok(Self {
            root,
            trash,
            started,
            discarded: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// Makes the files of a task that has none.
    pub(super) fn create(&self, task: TaskId) -> io::Result<Files> {
        let path = self.path_of(task);
        make_directories(&path)?;
        let data = file_options().create_new(true).open(path.join("data"))?;
        let log = file_options().create_new(true).open(path.join("log"))?;
        Ok(Files { data, log })
    }

    /// Opens the files of a task; `None` where there are none.
    pub(super) fn open_task(&self, task: TaskId) -> io::Result<Option<Files>> {
        let path = self.path_of(task);
        let open = |name| match file_options().open(path.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let Some(data) = open("data")? else {
            return Ok(None);
        };
        Ok(open("log")?.map(|log| Files { data, log }))
    }

    /// Unlinks the files of a task; `false` where there were none. Who has them open reads on.
    pub(super) fn discard(&self, task: TaskId) -> io::Result<bool> {
        let count = self.discarded.fetch_add(1, Ordering::Relaxed);
        let grave = self.trash.join(format!("{}-{count}", self.started));
        match fs::rename(self.path_of(task), &grave) {
            Ok(()) => fs::remove_dir_all(&grave).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unlinks what a crash kept an earlier run from unlinking.
    pub(super) fn empty_trash(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.trash)? {
            fs::remove_dir_all(entry?.path())?;
        }
        Ok(())
    }

    pub(super) fn holds(&self, task: TaskId) -> bool {
        self.path_of(task).exists()
    }

    /// Every task that has a directory, in no order. What is no task is passed over.
    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskId> + use<> {
        let root = self.root.clone();
        ALGORITHMS.into_iter().flat_map(move |algorithm| {
            entries(root.join(algorithm))
                .flat_map(entries)
                .filter_map(move |path| {
                    let encoded = path.file_name()?.to_str()?;
                    let digest: Digest = format!("{algorithm}:{encoded}").parse().ok()?;
                    Some(TaskId(digest))
                })
        })
    }

    /// Bytes that the file system has left for us.
    pub(super) fn available(&self) -> io::Result<u64> {
        let told = statvfs(&self.root)?;
        Ok(told.f_bavail.saturating_mul(told.f_frsize))
    }

    /// Whether the task's files carry the mark of a pin.
    pub(super) fn is_pinned(&self, task: TaskId) -> bool {
        self.path_of(task).join(PIN).exists()
    }

    pub(super) fn pin(&self, task: TaskId) -> io::Result<()> {
        let mark = self.path_of(task).join(PIN);
        file_options().create(true).truncate(true).open(mark)?;
        Ok(())
    }

    /// Takes the mark away; tells whether it was there.
    pub(super) fn unpin(&self, task: TaskId) -> io::Result<bool> {
        match fs::remove_file(self.path_of(task).join(PIN)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn path_of(&self, task: TaskId) -> PathBuf {
        let encoded = task.0.encoded();
        self.root
            .join(task.0.algorithm())
            .join(&encoded[..2])
            .join(encoded)
    }
}

/// Bytes that a task takes on the disk: holes take none.
pub(super) fn allocated(data: &File, log: &File) -> io::Result<u64> {
    Ok((data.metadata()?.blocks() + log.metadata()?.blocks()) * 512 + DIRECTORY_BYTES)
}

/// What [`allocated`] will tell of a file of `len` bytes, rounded up as file systems do.
pub(super) fn rounded(len: u64) -> u64 {
    len.next_multiple_of(4096)
}

/// What a new task takes before its first byte.
pub(super) const EMPTY_TASK_BYTES: u64 = DIRECTORY_BYTES + 4096;

/// The entries of a directory; none where it cannot be read.
fn entries(path: PathBuf) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
}

fn make_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn file_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Finds out whether a block can be had.
fn probe(path: &Path) -> io::Result<()> {
    let mut file = file_options().create(true).truncate(true).open(path)?;
    file.write_all(&[0; 4096])?;
    drop(file);
    fs::remove_file(path)
}
