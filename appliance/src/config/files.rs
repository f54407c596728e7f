//! Reads the files and directories that the configuration names, up to a bound.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

/// Certificates, keys and logins are shorter.
const FILE_LEN_MAX: u64 = 4 << 20;

/// Directories of `certs.d` have fewer.
const NAMES_MAX: usize = 4096;

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // To open what is no file may wait for somebody.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    let len = file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
    match len as u64 > FILE_LEN_MAX {
        true => Err(io::Error::other(format!(
            "it has more than {FILE_LEN_MAX} bytes"
        ))),
        false => Ok(bytes),
    }
}

/// The names of what is in a directory; those that are no text are nobody's here.
pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        if names.len() == NAMES_MAX {
            let told = format!("there are more than {NAMES_MAX} files in it");
            return Err(io::Error::other(told));
        }
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}
