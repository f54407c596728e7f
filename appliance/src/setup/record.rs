//! What setups have changed, so that it can be taken back: one record per runtime, below the data
//! directory.
//!
//! A record is written before the files that it tells of, whole or not at all. Only what the same user
//! (or root) has written is believed: whoever may write to the data directory is not thereby given the
//! files of runtimes.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use protocol::Digest;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{edit::Edit, file, runtime::Runtime};

/// What one setup has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) files: Vec<FileRecord>,
    /// Directories that were made, the outer ones first.
    pub(crate) directories: Vec<PathBuf>,
}

/// One file of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// As the runtime names it, without a root.
    pub(crate) path: PathBuf,
    /// What stood there before; `None` where nothing did.
    pub(crate) before: Option<String>,
    /// What was written. More than one while a setup is under way, or after it was cut off.
    pub(crate) writes: Vec<Write>,
}

/// What was written into a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Write {
    pub(crate) digest: String,
    pub(crate) edit: Edit,
    pub(crate) then: Option<String>,
}

/// The records of a data directory.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
}

/// The version of the files, so that a later one can tell what it reads.
const VERSION: u8 = 1;

/// A record has the texts of a runtime's files, each of which is bounded.
const RECORD_LEN_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Versioned {
    version: u8,
    record: Record,
}

// === impl FileRecord ===

impl FileRecord {
    /// Whether `current` is what a setup left there, or what it found.
    pub(crate) fn knows(&self, current: Option<&str>) -> bool {
        self.before.as_deref() == current || current.is_some_and(|text| self.wrote(text))
    }

    /// Whether a setup wrote `text`.
    pub(crate) fn wrote(&self, text: &str) -> bool {
        let digest = digest_of(text);
        self.writes.iter().any(|write| write.digest == digest)
    }
}

/// By what a text is known again.
pub(crate) fn digest_of(text: &str) -> String {
    Digest::sha256_of(text.as_bytes()).to_string()
}

// === impl Records ===

impl Records {
    pub(crate) fn in_data_dir(data_dir: &Path) -> Self {
        Self {
            directory: data_dir.join("setup"),
        }
    }

    /// Keeps every other setup and undo out while the value lives.
    pub(crate) fn lock(&self) -> anyhow::Result<File> {
        self.make(&self.directory)?;
        let path = self.directory.join("lock");
        let mut options = File::options();
        let opened = options.create(true).truncate(false).write(true).open(&path);
        let file = opened.with_context(|| format!("{} cannot be opened", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!("another `darter setup` is at work; run this again when it has ended")
            }
            Err(error) => {
                Err(error).with_context(|| format!("{} cannot be locked", path.display()))
            }
        }
    }

    /// What is recorded of `runtime`; nothing where no setup was.
    pub(crate) fn read(&self, runtime: Runtime) -> anyhow::Result<Record> {
        let path = self.path(runtime);
        let shown = path.display();
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) => return Err(error).with_context(|| format!("{shown} cannot be read")),
        };
        ensure!(
            metadata.is_file() && is_trusted(&metadata),
            "{shown} belongs to somebody else than this user or root, and what it tells is not believed; \
             if it is as the setup left it, give it back: chown root {shown}"
        );
        ensure!(
            metadata.len() <= RECORD_LEN_MAX,
            "{shown} is too long to be a record"
        );
        let text = fs::read(&path).with_context(|| format!("{shown} cannot be read"))?;
        let versioned: Versioned = serde_json::from_slice(&text)
            .with_context(|| format!("{shown} is no record of a setup"))?;
        ensure!(
            versioned.version == VERSION,
            "{shown} is of another version of Darter; undo with that one"
        );
        Ok(versioned.record)
    }

    /// Keeps `record`, or forgets the runtime where nothing is left of it.
    pub(crate) fn write(&self, runtime: Runtime, record: &Record) -> anyhow::Result<()> {
        let path = self.path(runtime);
        let shown = path.display();
        if record.files.is_empty() && record.directories.is_empty() {
            let removed = fs::remove_file(&path);
            return match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("{shown} cannot be removed"))
                }
                Ok(()) | Err(_) => Ok(()),
            };
        }
        self.make(&self.directory.join(runtime.as_str()))?;
        let versioned = Versioned {
            version: VERSION,
            record: record.clone(),
        };
        let text = serde_json::to_string_pretty(&versioned)?;
        file::replace(&path, &text, file::Made::Private)
            .with_context(|| format!("{shown} cannot be written"))
    }

    fn path(&self, runtime: Runtime) -> PathBuf {
        self.directory.join(runtime.as_str()).join("record.json")
    }

    fn make(&self, directory: &Path) -> anyhow::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let shown = directory.display();
        builder
            .create(directory)
            .with_context(|| format!("{shown} cannot be made"))?;
        let metadata = fs::symlink_metadata(directory)?;
        ensure!(
            metadata.is_dir() && is_trusted(&metadata),
            "{shown} is not a directory of this user or root alone; give it back (chown root {shown}; chmod go-w {shown}), or take it away"
        );
        Ok(())
    }
}

/// Whether nobody but this user and root can have written it.
fn is_trusted(metadata: &fs::Metadata) -> bool {
    let is_owned = [rustix::process::geteuid().as_raw(), 0].contains(&metadata.uid());
    is_owned && metadata.mode() & 0o022 == 0
}
