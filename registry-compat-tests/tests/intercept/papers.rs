//! An operator's authority and the certificate of its registry, and a docker-registry that shows it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use registry_compat_tests::{
    authority::TestAuthority,
    process,
    registry::{Registry, free_address},
};
use tempfile::TempDir;

/// The files.
#[derive(Debug)]
pub(crate) struct Papers(TempDir);

// === impl Papers ===

impl Papers {
    /// For a registry with these names and addresses.
    pub(crate) fn of(names: &[&str]) -> Result<Self> {
        let papers = Self(tempfile::tempdir()?);
        let ca = TestAuthority::new()?;
        let leaf = ca.issue(names)?;
        fs::write(papers.ca(), ca.pem())?;
        fs::write(papers.at("leaf.pem"), leaf.certificate)?;
        fs::write(papers.at("leaf.key"), leaf.key)?;
        // Another user reads them too.
        process::check(open_up(papers.0.path()), super::LIMIT)?;
        Ok(papers)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.at("ca.pem")
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What makes a docker-registry show the certificate.
    pub(crate) fn tls(&self) -> String {
        tls(&self.at("leaf.pem"), &self.at("leaf.key"))
    }

    /// A registry on the loopback with its content in `directory`.
    pub(crate) fn registry(&self, directory: &Path) -> Result<Registry> {
        Registry::start_with(&self.tls(), directory, free_address()?, |program| {
            process::command(program)
        })
    }
}

/// What makes a docker-registry show this certificate.
pub(crate) fn tls(certificate: &Path, key: &Path) -> String {
    format!("  tls: {{certificate: {certificate:?}, key: {key:?}}}\n")
}

fn open_up(directory: &Path) -> std::process::Command {
    let mut command = process::command("chmod");
    command.arg("-R").arg("a+rX").arg(directory);
    command
}
