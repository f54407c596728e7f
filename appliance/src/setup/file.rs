//! Reads and replaces files of other programs: whole, with their owner and permissions, and at the
//! target of a link rather than in its place.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use super::below;
use crate::whole_file;

/// Who may read a file that was not there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// Everybody, as is the custom of `/etc`.
    Public,
    Private,
}

/// The longest file that is read.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Links that are followed from one name.
const LINKS_MAX: usize = 40;

/// The text of a file; `None` where there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
    if FILE_LEN_MAX < bytes.len() as u64 {
        return Err(io::Error::other("it is longer than any file of its kind"));
    }
    let text = String::from_utf8(bytes);
    text.map(Some)
        .map_err(|_| io::Error::other("it is no text in UTF-8"))
}

/// Where the file at `path` below `root` really lies: links are followed, those that begin at the top
/// from `root` on.
pub(super) fn target(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut here = below(root, path);
    for _ in 0..LINKS_MAX {
        match fs::read_link(&here) {
            Ok(link) if link.is_absolute() => here = below(root, &link),
            Ok(link) => here = here.parent().unwrap_or(root).join(link),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => return Ok(here),
        }
    }
    Err(io::Error::other("its links lead to no end"))
}

/// Puts `text` at `path`, whole or not at all, with the owner and the permissions of what is there.
pub(super) fn replace(path: &Path, text: &str, made: Made) -> io::Result<()> {
    whole_file::write(path, text, |fresh| {
        let fresh = fresh.as_file();
        match fs::metadata(path) {
            Ok(old) => {
                let is_other = |(ours, theirs)| ours != theirs;
                let now = fresh.metadata()?;
                if is_other((now.uid(), old.uid())) || is_other((now.gid(), old.gid())) {
                    fchown(fresh, Some(old.uid()), Some(old.gid()))?;
                }
                fresh.set_permissions(Permissions::from_mode(old.mode() & 0o7777))
            }
            Err(_) if made == Made::Public => fresh.set_permissions(Permissions::from_mode(0o644)),
            Err(_) => Ok(()),
        }
    })
}

/// Takes a file away, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => path.parent().map_or(Ok(()), whole_file::sync),
    }
}

/// The names in a directory; none where it cannot be read.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.collect()
}
