//! Keeps local authorities on disk, each in a directory of its own: its key, which nobody else may
//! read, and its certificate.
//!
//! Invariant: files appear whole, by a rename, and are made by one process at a time. A certificate
//! that does not belong to the key beside it, as after a power cut between the two, is made anew.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use proxy::Owner;
use rcgen::{KeyPair, PublicKeyData as _};
use rustix::fs::{FlockOperation, flock};
use x509_parser::pem::parse_x509_pem;

use super::{
    constraints,
    issue::{self, RENEW_BEFORE},
};
use crate::whole_file;

/// The authorities of one data directory.
#[derive(Debug, Clone)]
pub(crate) struct Authorities {
    data_dir: PathBuf,
}

/// One authority.
pub(super) struct Authority {
    pub(super) key: KeyPair,
    pub(super) certificate: String,
    pub(super) not_after: SystemTime,
}

/// Which certificate a file held when it was looked at: another one has another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    modified: SystemTime,
}

/// Authorities of one data directory. Patterns intercept any number of names, and each has its own.
const AUTHORITIES_MAX: usize = 1024;

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "ca.pem";

/// Who may read a key, and a certificate.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;

// === impl Authorities ===

impl Authorities {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
        }
    }

    /// The authority of `owner`; made, or given its next certificate, where it is time to.
    pub(super) fn open(&self, owner: &Owner, now: SystemTime) -> anyhow::Result<Authority> {
        let directory = self.directory(owner);
        let told = || format!("the authority in {}", directory.display());
        if let Some(authority) = read(&directory, now).with_context(told)? {
            return Ok(authority);
        }
        let _lock = self.lock().with_context(told)?;
        match read(&directory, now).with_context(told)? {
            Some(authority) => Ok(authority),
            None => self.make(owner, now).with_context(told),
        }
    }

    /// Those that were made so far.
    pub(super) fn made(&self) -> anyhow::Result<Vec<Owner>> {
        let entries = match fs::read_dir(self.root()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(self.root().display().to_string()),
        };
        let mut owners = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| constraints::owner(name).ok());
            owners.extend(owner.filter(|_| entry.path().join(KEY).exists()));
        }
        owners.sort_by(|a, b| constraints::directory(a).cmp(constraints::directory(b)));
        Ok(owners)
    }

    /// Which certificate `owner`'s authority has now, if any.
    pub(super) fn stamp(&self, owner: &Owner) -> Option<Stamp> {
        let found = fs::metadata(self.directory(owner).join(CERTIFICATE)).ok()?;
        Some(Stamp {
            inode: found.ino(),
            modified: found.modified().ok()?,
        })
    }

    /// The certificate that `owner`'s authority has now, if any.
    pub(super) fn certificate(&self, owner: &Owner) -> Option<String> {
        fs::read_to_string(self.directory(owner).join(CERTIFICATE)).ok()
    }

    fn root(&self) -> PathBuf {
        self.data_dir.join("ca")
    }

    fn directory(&self, owner: &Owner) -> PathBuf {
        self.root().join(constraints::directory(owner))
    }

    /// One process at a time makes something; the lock ends with the value.
    fn lock(&self) -> io::Result<File> {
        self.make_directory(&self.root())?;
        let path = self.root().join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        self.hand_over(&path)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    fn make(&self, owner: &Owner, now: SystemTime) -> anyhow::Result<Authority> {
        let directory = self.directory(owner);
        if !directory.exists() {
            let count = fs::read_dir(self.root())?.count();
            ensure!(
                count <= AUTHORITIES_MAX,
                "there are {AUTHORITIES_MAX} authorities already; remove what is not needed"
            );
        }
        self.make_directory(&directory)?;
        let key = match fs::read_to_string(directory.join(KEY)) {
            Ok(text) => KeyPair::from_pem(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = issue::new_key()?;
                self.write(&directory.join(KEY), &key.serialize_pem(), KEY_MODE)?;
                key
            }
            Err(error) => return Err(error.into()),
        };
        let is_renewed = directory.join(CERTIFICATE).exists();
        let certificate = issue::authority(owner, &key, now)?;
        self.write(&directory.join(CERTIFICATE), &certificate, CERTIFICATE_MODE)?;
        if is_renewed {
            tracing::warn!(
                directory = %directory.display(),
                "a local authority has a new certificate: run `darter ca install` again for the \
                 runtimes that trust it, before the last one ends"
            );
        }
        read(&directory, now)?.context("what was written is not what is read")
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)?;
        self.hand_over(path)
    }

    fn write(&self, path: &Path, text: &str, mode: u32) -> io::Result<()> {
        whole_file::write(path, text, |fresh| {
            fresh
                .as_file()
                .set_permissions(Permissions::from_mode(mode))?;
            self.hand_over(fresh.path())
        })
    }

    /// What root makes here by a command belongs to the node that runs here as another user.
    fn hand_over(&self, path: &Path) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let node = fs::metadata(&self.data_dir)?;
        chown(path, Some(node.uid()), Some(node.gid()))
    }
}

/// The authority in `directory`; `None` where there is none, it is not whole, or it is old.
fn read(directory: &Path, now: SystemTime) -> anyhow::Result<Option<Authority>> {
    let file = |name| match fs::read_to_string(directory.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{name} cannot be read")),
    };
    let (Some(key), Some(certificate)) = (file(KEY)?, file(CERTIFICATE)?) else {
        return Ok(None);
    };
    let key = KeyPair::from_pem(&key).context("key.pem is no key")?;
    let Some(not_after) = end_of(&certificate, &key) else {
        return Ok(None);
    };
    let is_old = not_after < now + RENEW_BEFORE;
    Ok((!is_old).then_some(Authority {
        key,
        certificate,
        not_after,
    }))
}

/// Until when `certificate` holds; `None` where it is none, or not of `key`.
fn end_of(certificate: &str, key: &KeyPair) -> Option<SystemTime> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
    let parsed = pem.parse_x509().ok()?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return None;
    }
    let end = parsed.validity().not_after.timestamp();
    Some(UNIX_EPOCH + Duration::from_secs(end.try_into().ok()?))
}
