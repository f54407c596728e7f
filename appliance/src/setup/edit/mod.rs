//! Pure: what a file of a runtime is to have of ours: how it is put in, and how it is taken out again.
//!
//! Everything else in a file stays as people wrote it: order, comments, indentation. Putting in twice
//! is putting in once. What does not parse is refused with its place.

mod buildkit;
mod containerd_config;
mod containerd_hosts;
mod daemon_json;
mod registries_yaml;
#[cfg(test)]
mod tests;
mod toml_text;

use serde::{Deserialize, Serialize};

pub(crate) use containerd_config::{CERTS_DIR, ConfigPath, FoundPath};
pub(crate) use containerd_hosts::has_server;

/// Our part of one file. It is kept with the record of a setup, so that a later version takes out
/// what an earlier one put in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Edit {
    /// A whole file that nobody else writes.
    Own { text: String },
    /// A mirror in docker's `daemon.json`.
    DockerMirror { url: String },
    /// A host in a `hosts.toml`; and the server behind it, where the file names none.
    ContainerdHost { url: String, server: Option<String> },
    /// The directory of the `hosts.toml` files in containerd's `config.toml`.
    ContainerdConfigPath(ConfigPath),
    /// The certificate of an authority of ours, in a file of its own.
    Certificate { text: String },
    /// An authority in a `hosts.toml`; and the server that shows it, where the file names none.
    ContainerdAuthority {
        certificate: String,
        server: Option<String>,
    },
    /// Authorities in `buildkitd.toml`: registries, and where their certificates are.
    BuildkitAuthorities { certificates: Vec<(String, String)> },
    /// Mirrors of registries in `buildkitd.toml`, and that they speak plain HTTP.
    BuildkitMirrors {
        authority: String,
        registries: Vec<String>,
    },
    /// Mirrors of registries in the `registries.yaml` of k3s and rke2.
    RegistriesYaml {
        url: String,
        registries: Vec<String>,
    },
}

/// Why a file is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    #[error("line {line}, column {column}: {problem}")]
    Syntax {
        line: usize,
        column: usize,
        problem: String,
    },
    #[error("{0}")]
    Shape(String),
}

/// The first line of every file that is ours alone.
pub(crate) const OWN_HEADER: &str = "# Made by `darter setup`; `darter setup --undo` removes it.\n";

// === impl Edit ===

impl Edit {
    /// `text` with our part in it.
    pub(crate) fn put_in(&self, text: &str) -> Result<String, EditError> {
        match self {
            Self::Own { text: own } => own_file(own, text),
            Self::DockerMirror { url } => daemon_json::put_in(url, text),
            Self::ContainerdHost { url, server } => {
                containerd_hosts::put_in(url, server.as_deref(), text)
            }
            Self::ContainerdConfigPath(path) => path.put_in(text),
            Self::Certificate { text: own } => certificate(own, text),
            Self::ContainerdAuthority {
                certificate,
                server,
            } => containerd_hosts::trust(certificate, server.as_deref(), text),
            Self::BuildkitAuthorities { certificates } => buildkit::trust(certificates, text),
            Self::BuildkitMirrors {
                authority,
                registries,
            } => buildkit::put_in(authority, registries, text),
            Self::RegistriesYaml { url, registries } => {
                registries_yaml::put_in(url, registries, text)
            }
        }
    }

    /// `text` without our part; `None` where nothing else is in it.
    pub(crate) fn take_out(&self, text: &str) -> Result<Option<String>, EditError> {
        let left = match self {
            Self::Own { text: own } => without_own(own, text)?,
            Self::DockerMirror { url } => daemon_json::take_out(url, text)?,
            Self::ContainerdHost { url, server } => {
                containerd_hosts::take_out(url, server.as_deref(), text)?
            }
            Self::ContainerdConfigPath(path) => path.take_out(text)?,
            Self::Certificate { .. } if is_certificate(text) => String::new(),
            Self::Certificate { .. } => text.to_owned(),
            Self::ContainerdAuthority {
                certificate,
                server,
            } => containerd_hosts::distrust(certificate, server.as_deref(), text)?,
            Self::BuildkitAuthorities { certificates } => buildkit::distrust(certificates, text)?,
            Self::BuildkitMirrors {
                authority,
                registries,
            } => buildkit::take_out(authority, registries, text)?,
            Self::RegistriesYaml { url, registries } => {
                registries_yaml::take_out(url, registries, text)?
            }
        };
        let is_blank = matches!(left.trim(), "" | "{}");
        Ok((!is_blank).then_some(left))
    }

    /// Whether `text` has our part.
    pub(crate) fn stands_in(&self, text: &str) -> bool {
        self.put_in(text).is_ok_and(|put| put == text)
    }
}

/// The file has a name of ours, so another certificate in it is an earlier one.
fn certificate(own: &str, text: &str) -> Result<String, EditError> {
    if text.trim().is_empty() || is_certificate(text) {
        return Ok(own.to_owned());
    }
    let told = "this is no certificate; move it away first";
    Err(EditError::Shape(told.to_owned()))
}

fn is_certificate(text: &str) -> bool {
    text.trim_start().starts_with("-----BEGIN CERTIFICATE-----")
}

fn own_file(own: &str, text: &str) -> Result<String, EditError> {
    if text.contains(own) {
        return Ok(text.to_owned());
    }
    if text.trim().is_empty() || text.starts_with(OWN_HEADER) {
        return Ok(own.to_owned());
    }
    let told = "somebody else has written this file; move it away first";
    Err(EditError::Shape(told.to_owned()))
}

fn without_own(own: &str, text: &str) -> Result<String, EditError> {
    if text.contains(own) {
        return Ok(text.replacen(own, "", 1));
    }
    if text.starts_with(OWN_HEADER) {
        let told = "this file of Darter's was edited; take out by hand what is not wanted any more, then the first line";
        return Err(EditError::Shape(told.to_owned()));
    }
    Ok(text.to_owned())
}
