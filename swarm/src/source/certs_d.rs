//! Pure: what TLS to registries rests on where directories in the manner of docker's and containers'
//! `certs.d` say so: in them one directory for each registry, by its name, with authorities in
//! `*.crt` and the certificate to be shown in a `*.cert` beside a `*.key` of the same name.
//!
//! Files are read by the caller. Invariant: what stands in the directory of one registry holds for
//! that one alone, and lets nothing be asked, and nothing be connected to, that was not before.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use protocol::RegistryName;
use rustls_pki_types::CertificateDer;

use super::{
    registry::{Config, SourceConfigError},
    trust::{self, ClientIdentity},
};

/// What TLS to one registry rests on, besides what holds for all.
#[derive(Debug, Clone, Default)]
pub struct Papers {
    pub ca: Vec<CertificateDer<'static>>,
    /// Shown to the registry itself, where it asks for one.
    pub client: Option<ClientIdentity>,
}

/// How files are read, and what is in directories.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    pub names: &'a dyn Fn(&Path) -> io::Result<Vec<String>>,
}

/// The directory of one registry.
struct Directory<'a> {
    path: PathBuf,
    names: Vec<String>,
    files: Files<'a>,
}

/// Directories that are looked into, the registries that are found in all of them, and the files that
/// one registry's has of use here.
const DIRECTORIES_MAX: usize = 8;
const REGISTRIES_MAX: usize = 256;
const FILES_MAX: usize = 64;

const AUTHORITY: &str = ".crt";
const CERTIFICATE: &str = ".cert";
const KEY: &str = ".key";

// === impl Config ===

impl Config {
    /// Adds what `directories` have for registries that may be asked; of several directories for one
    /// registry the first counts. What an entry of the configuration says itself stays.
    ///
    /// # Errors
    /// Everything that is wrong with what is found there.
    pub fn with_certs_d(
        mut self,
        directories: &[PathBuf],
        files: Files<'_>,
    ) -> Result<Self, Vec<SourceConfigError>> {
        let mut problems = Vec::new();
        for (name, path) in self.found(directories, files, &mut problems) {
            let there = Directory::open(path, files, &mut problems);
            match self.registries.get_mut(&name) {
                // Nothing of it is asked by TLS.
                Some(entry) if entry.is_plain() => {}
                Some(entry) => {
                    if entry.ca.is_empty() {
                        entry.ca = there.authorities(&mut problems);
                    }
                    if entry.client.is_none() {
                        entry.client = there.client(&mut problems);
                    }
                }
                None => {
                    let papers = Papers {
                        ca: there.authorities(&mut problems),
                        client: there.client(&mut problems),
                    };
                    self.papers.insert(name, papers);
                }
            }
        }
        match problems.is_empty() {
            true => Ok(self),
            false => Err(problems.into_iter().map(problem).collect()),
        }
    }

    /// The directories of registries that may be asked.
    fn found(
        &self,
        directories: &[PathBuf],
        files: Files<'_>,
        problems: &mut Vec<String>,
    ) -> Vec<(RegistryName, PathBuf)> {
        if DIRECTORIES_MAX < directories.len() {
            problems.push(format!("must be at most {DIRECTORIES_MAX}"));
            return Vec::new();
        }
        let mut found = BTreeMap::new();
        for directory in directories {
            for text in listed(directory, files, problems) {
                // As image names spell it, so that no two directories are of one registry.
                let name = text.parse::<RegistryName>().ok();
                let Some(name) = name.filter(|name| name.as_str() == text && self.allowed(name))
                else {
                    continue;
                };
                let place = directory.join(&text);
                found.entry(text).or_insert((name, place));
            }
        }
        if REGISTRIES_MAX < found.len() {
            let told = format!("these are more than {REGISTRIES_MAX} registries");
            problems.push(told);
            return Vec::new();
        }
        found.into_values().collect()
    }
}

// === impl Files ===

impl fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}

// === impl Directory ===

impl<'a> Directory<'a> {
    fn open(path: PathBuf, files: Files<'a>, problems: &mut Vec<String>) -> Self {
        let is_ours = |name: &String| kind(name).is_some();
        let names = listed(&path, files, problems);
        let mut names: Vec<String> = names.into_iter().filter(is_ours).collect();
        if FILES_MAX < names.len() {
            let told = format!("{} has more than {FILES_MAX} files", path.display());
            problems.push(told);
            names.clear();
        }
        Self { path, names, files }
    }

    /// The names, without their end, of the files of a kind.
    fn stems<'b>(&'b self, wanted: &'b str) -> impl Iterator<Item = &'b str> {
        let kinds = self.names.iter().filter_map(|name| kind(name));
        kinds.filter_map(move |(stem, kind)| (kind == wanted).then_some(stem))
    }

    fn file(&self, stem: &str, kind: &str) -> PathBuf {
        self.path.join(format!("{stem}{kind}"))
    }

    fn authorities(&self, problems: &mut Vec<String>) -> Vec<CertificateDer<'static>> {
        let mut all = Vec::new();
        for stem in self.stems(AUTHORITY) {
            match trust::authorities(&self.file(stem, AUTHORITY), self.files.read) {
                Ok(some) => all.extend(some),
                Err(problem) => problems.push(problem),
            }
        }
        all
    }

    fn client(&self, problems: &mut Vec<String>) -> Option<ClientIdentity> {
        let mut found = None;
        for stem in self.stems(KEY) {
            if !self.stems(CERTIFICATE).any(|other| other == stem) {
                let file = self.file(stem, KEY);
                problems.push(format!("{} has no .cert beside it", file.display()));
            }
        }
        for stem in self.stems(CERTIFICATE) {
            let (cert, key) = (self.file(stem, CERTIFICATE), self.file(stem, KEY));
            let shown = cert.display();
            if !self.stems(KEY).any(|other| other == stem) {
                let told = "has no .key beside it; the file of an authority ends with .crt";
                problems.push(format!("{shown} {told}"));
                continue;
            }
            if found.is_some() {
                let told = "is the second certificate to be shown; write one of them into a [[proxy.registry]]";
                problems.push(format!("{shown} {told}"));
                continue;
            }
            match trust::pair(&cert, &key, self.files.read) {
                Ok(client) => found = Some(client),
                Err((_, problem)) => problems.push(problem),
            }
        }
        found
    }
}

/// The name of a file without its end, and its end, where it is one that counts here.
fn kind(name: &str) -> Option<(&str, &'static str)> {
    let mut kinds = [AUTHORITY, CERTIFICATE, KEY].into_iter();
    kinds.find_map(|kind| Some((name.strip_suffix(kind)?, kind)))
}

/// What is in a directory, in order; nothing where there is none.
fn listed(directory: &Path, files: Files<'_>, problems: &mut Vec<String>) -> Vec<String> {
    match (files.names)(directory) {
        Ok(mut names) => {
            names.sort();
            names
        }
        Err(error) => {
            use io::ErrorKind::{NotADirectory, NotFound};
            if !matches!(error.kind(), NotFound | NotADirectory) {
                problems.push(format!("{} cannot be read: {error}", directory.display()));
            }
            Vec::new()
        }
    }
}

fn problem(problem: String) -> SourceConfigError {
    let key = "proxy.certs_d".to_owned();
    SourceConfigError { key, problem }
}

#[cfg(test)]
mod tests;
