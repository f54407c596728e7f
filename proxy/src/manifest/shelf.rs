//! Answers for tags on disk, so that what was pulled once can be pulled again without the upstream,
//! also after a restart. Public answers alone; one small file each, replaced by a rename.
//!
//! Invariant: never more files than the bound, the longest unwritten going first. A file that
//! cannot be read is as good as none: the upstream is asked.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::{Digest, RegistryName, Repository};
use serde::{Deserialize, Serialize};

use crate::route::Tag;

/// A tag of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TagName {
    pub(crate) registry: RegistryName,
    pub(crate) repository: Repository,
    pub(crate) tag: Tag,
}

/// What a tag stood for when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolution {
    pub(crate) digest: Digest,
    pub(crate) media_type: Option<String>,
    pub(crate) size: Option<u64>,
    pub(crate) resolved_at: SystemTime,
}

/// The answers on disk, and a copy in memory of those that were used.
#[derive(Debug)]
pub(crate) struct Shelf {
    directory: PathBuf,
    entries_max: usize,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    next: u64,
    by_age: BTreeMap<u64, String>,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    age: u64,
    loaded: Option<Resolution>,
}

/// The file's content. It names the tag again, so that it explains itself.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    registry: String,
    repository: String,
    tag: String,
    digest: String,
    media_type: Option<String>,
    size: Option<u64>,
    resolved_at_s: u64,
}

const SUFFIX: &str = ".json";

// === impl Shelf ===

impl Shelf {
    /// Lists what is there; contents are read when they are asked for.
    pub(crate) async fn open(directory: &Path, entries_max: usize) -> io::Result<Self> {
        tokio::fs::create_dir_all(directory).await?;
        let mut files = Vec::new();
        let mut listing = tokio::fs::read_dir(directory).await?;
        while let Some(file) = listing.next_entry().await? {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.ends_with(SUFFIX) {
                let written = file
                    .metadata()
                    .await
                    .and_then(|meta| meta.modified())
                    .unwrap_or(UNIX_EPOCH);
                files.push((written, name));
            } else {
                let _ = tokio::fs::remove_file(file.path()).await;
            }
        }
        files.sort();
        let shelf = Self {
            directory: directory.to_owned(),
            entries_max,
            index: Mutex::default(),
        };
        for (_, name) in files {
            shelf.note(name, None);
        }
        Ok(shelf)
    }

    /// The last public answer for `tag`.
    pub(crate) async fn get(&self, tag: &TagName) -> Option<Resolution> {
        let file = tag.file_name();
        {
            let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(loaded) = &index.entries.get(&file)?.loaded {
                return Some(loaded.clone());
            }
        }
        let bytes = tokio::fs::read(self.directory.join(&file)).await.ok()?;
        let resolution = Resolution::read(&bytes, tag)?;
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = index.entries.get_mut(&file)?;
        // A newer answer may have come while the file was read.
        Some(entry.loaded.get_or_insert(resolution).clone())
    }

    /// Remembers an answer. A disk that fails costs the memory of it after a restart, no more.
    pub(crate) async fn put(&self, tag: &TagName, resolution: Resolution) {
        let file = tag.file_name();
        let saved = resolution.write(tag);
        let removed = self.note(file.clone(), Some(resolution));
        for old in removed {
            let _ = tokio::fs::remove_file(self.directory.join(old)).await;
        }
        if let Err(error) = replace(&self.directory, &file, saved).await {
            tracing::warn!(%error, "the answer for a tag is not kept");
        }
    }

    /// Forgets a tag that the upstream does not have any more.
    pub(crate) async fn remove(&self, tag: &TagName) {
        let file = tag.file_name();
        {
            let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(entry) = index.entries.remove(&file) else {
                return;
            };
            index.by_age.remove(&entry.age);
        }
        let _ = tokio::fs::remove_file(self.directory.join(file)).await;
    }

    /// Makes `file` the youngest; gives the files that are too many now.
    fn note(&self, file: String, loaded: Option<Resolution>) -> Vec<String> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let age = index.next;
        index.next += 1;
        if let Some(before) = index.entries.insert(file.clone(), Entry { age, loaded }) {
            index.by_age.remove(&before.age);
        }
        index.by_age.insert(age, file);
        let mut removed = Vec::new();
        while self.entries_max < index.entries.len()
            && let Some((_, oldest)) = index.by_age.pop_first()
        {
            index.entries.remove(&oldest);
            removed.push(oldest);
        }
        removed
    }
}

// === impl TagName ===

impl TagName {
    /// Names hold what files cannot be called, so the file is called by their digest.
    fn file_name(&self) -> String {
        let name = format!(
            "{}/{}:{}",
            self.registry,
            self.repository,
            self.tag.as_str()
        );
        format!("{}{SUFFIX}", Digest::sha256_of(name.as_bytes()).encoded())
    }
}

// === impl Resolution ===

impl Resolution {
    fn write(&self, tag: &TagName) -> Vec<u8> {
        let since_epoch = self
            .resolved_at
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let saved = Saved {
            registry: tag.registry.to_string(),
            repository: tag.repository.to_string(),
            tag: tag.tag.as_str().to_owned(),
            digest: self.digest.to_string(),
            media_type: self.media_type.clone(),
            size: self.size,
            resolved_at_s: since_epoch.as_secs(),
        };
        serde_json::to_vec(&saved).unwrap_or_default()
    }

    /// `None` where the file is torn, or is of another tag.
    fn read(bytes: &[u8], tag: &TagName) -> Option<Self> {
        let saved: Saved = serde_json::from_slice(bytes).ok()?;
        let is_same = saved.registry == tag.registry.as_str()
            && saved.repository == tag.repository.as_str()
            && saved.tag == tag.tag.as_str();
        let resolved_at = UNIX_EPOCH.checked_add(Duration::from_secs(saved.resolved_at_s))?;
        let digest = saved.digest.parse().ok().filter(|_| is_same)?;
        Some(Self {
            digest,
            media_type: saved.media_type,
            size: saved.size,
            resolved_at,
        })
    }
}

/// Writes beside, syncs, and renames: a reader sees the old file or the new one.
async fn replace(directory: &Path, file: &str, bytes: Vec<u8>) -> io::Result<()> {
    let (directory, file) = (directory.to_owned(), file.to_owned());
    tokio::task::spawn_blocking(move || {
        let beside = directory.join(format!("{file}.{:?}", std::thread::current().id()));
        let mut written = std::fs::File::create(&beside)?;
        io::Write::write_all(&mut written, &bytes)?;
        written.sync_data()?;
        std::fs::rename(beside, directory.join(file))
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(tag: &str) -> TagName {
        TagName {
            registry: "r.example:5000".parse().unwrap(),
            repository: "a/b".parse().unwrap(),
            tag: tag.parse().unwrap(),
        }
    }

    fn resolution(body: &[u8]) -> Resolution {
        Resolution {
            digest: Digest::sha256_of(body),
            media_type: Some("application/vnd.x+json".to_owned()),
            size: Some(7),
            resolved_at: UNIX_EPOCH + Duration::from_secs(1_000),
        }
    }

    #[tokio::test]
    async fn an_answer_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(directory.path(), 9).await.unwrap();
        shelf.put(&name("v1"), resolution(b"1")).await;
        shelf.put(&name("v2"), resolution(b"2")).await;
        shelf.put(&name("v1"), resolution(b"3")).await;
        shelf.remove(&name("v2")).await;
        for shelf in [&shelf, &Shelf::open(directory.path(), 9).await.unwrap()] {
            assert_eq!(shelf.get(&name("v1")).await, Some(resolution(b"3")));
            assert_eq!(shelf.get(&name("v2")).await, None);
        }
    }

    #[tokio::test]
    async fn the_oldest_goes_when_there_are_too_many() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(directory.path(), 2).await.unwrap();
        for tag in ["v1", "v2", "v1", "v3"] {
            shelf.put(&name(tag), resolution(b"1")).await;
        }
        assert_eq!(shelf.get(&name("v2")).await, None);
        assert!(shelf.get(&name("v1")).await.is_some());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn a_torn_file_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(directory.path(), 2).await.unwrap();
        shelf.put(&name("v1"), resolution(b"1")).await;
        let file = directory.path().join(name("v1").file_name());
        let whole = std::fs::read(&file).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&file, &whole[..len]).unwrap();
            let shelf = Shelf::open(directory.path(), 2).await.unwrap();
            assert_eq!(shelf.get(&name("v1")).await, None, "cut at {len}");
        }
    }
}
