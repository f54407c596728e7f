//! Puts a file in its place whole or not at all, also when the power fails.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use tempfile::NamedTempFile;

/// Writes `text` to `path` once `prepare` has seen the empty file elsewhere in its directory, where it
/// is its owner's alone to read.
pub(crate) fn write(
    path: &Path,
    text: &str,
    prepare: impl FnOnce(&NamedTempFile) -> io::Result<()>,
) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let mut fresh = tempfile::Builder::new()
        .prefix(".darter-")
        .tempfile_in(directory)?;
    prepare(&fresh)?;
    fresh.write_all(text.as_bytes())?;
    fresh.as_file().sync_all()?;
    fresh.persist(path)?;
    sync(directory)
}

/// What has come into a directory, or gone from it, stays so.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
