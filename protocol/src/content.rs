//! What is moved: tasks, attempts, where content comes from and who may see it.

use std::{fmt, str::FromStr};

use crate::{digest::Digest, layout::Layout};

/// One content to be had, named by its digest: the same layer in two repositories is one task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub Digest);

/// One try at a task by one fetcher. Pieces of different attempts never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// Which endpoint of the distribution specification serves the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentKind {
    Blob,
    Manifest,
}

/// Who may be given the content from a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Some copy was fetched with no credential: anybody may have it.
    Public,
    /// Fetched with a credential: only for requests to one of these registries, and only to
    /// callers whom that registry lets read it.
    Private { origins: Vec<RegistryName> },
}

/// A registry as image names spell it: `docker.io`, `registry.example.com:5000`, `[::1]:5000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName(String);

/// A repository as the distribution specification spells it: `library/alpine`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

/// Where a content may be fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub registry: RegistryName,
    pub repository: Repository,
    pub kind: ContentKind,
}

/// What one attempt at a task turned out to be: told by its fetcher once the source has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub attempt: AttemptId,
    pub layout: Layout,
    /// The `Content-Type` of the source's answer; blobs have none that matters.
    pub media_type: Option<String>,
    pub visibility: Visibility,
}

/// Why a text is no registry or repository name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a registry is written host or host:port, with no scheme, user or path")]
    Registry,
    #[error(
        "a repository name is lower-case path components of letters, digits and single separators"
    )]
    Repository,
}

/// The longest registry or repository name that is accepted, in bytes.
pub const NAME_LEN_MAX: usize = 255;

// === impl TaskId, AttemptId ===

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for AttemptId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Visibility ===

impl Visibility {
    /// Whether whoever may see what is `other` may see this.
    pub fn is_as_open_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Public, _) => true,
            (Self::Private { .. }, Self::Public) => false,
            (Self::Private { origins }, Self::Private { origins: fewer }) => {
                fewer.iter().all(|origin| origins.contains(origin))
            }
        }
    }

    /// What it is after `registry` gave the same bytes to a caller whom it knows.
    pub fn with_origin(&self, registry: &RegistryName) -> Self {
        match self {
            Self::Public => Self::Public,
            Self::Private { origins } if origins.contains(registry) => self.clone(),
            Self::Private { origins } => {
                let registry = std::iter::once(registry.clone());
                let origins = origins.iter().cloned().chain(registry).collect();
                Self::Private { origins }
            }
        }
    }
}

// === impl RegistryName ===

impl RegistryName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its port.
    pub fn host(&self) -> &str {
        match self.0.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            Some(_) | None => &self.0,
        }
    }
}

impl FromStr for RegistryName {
    type Err = NameError;

    /// Docker Hub's three names become `docker.io`; letters become lower case.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.to_ascii_lowercase();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            Some(_) | None => (text.as_str(), None),
        };
        let port_holds = port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        let host_holds = match host.strip_prefix('[') {
            Some(inner) => inner
                .strip_suffix(']')
                .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
            None => is_host_name(host),
        };
        if !host_holds || !port_holds || text.len() > NAME_LEN_MAX {
            return Err(NameError::Registry);
        }
        match text.as_str() {
            "index.docker.io" | "registry-1.docker.io" => Ok(Self("docker.io".to_owned())),
            _ => Ok(Self(text)),
        }
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Repository ===

impl Repository {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_LEN_MAX || !text.split('/').all(is_path_component) {
            return Err(NameError::Repository);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = bytes.first().zip(bytes.last());
    if !edges.is_some_and(|(first, last)| word(*first) && word(*last)) {
        return false;
    }
    component
        .split(|letter: char| letter.is_ascii() && word(letter as u8))
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    #[track_caller]
    fn registry(text: &str, expect: Option<(&str, &str)>) {
        let parsed = text.parse::<RegistryName>().ok();
        let seen = parsed.as_ref().map(|name| (name.as_str(), name.host()));
        assert_eq!(seen, expect, "{text}");
    }

    #[test]
    fn a_registry_is_a_host_and_perhaps_a_port() {
        registry("docker.io", Some(("docker.io", "docker.io")));
        registry("Index.Docker.io", Some(("docker.io", "docker.io")));
        registry("registry-1.docker.io", Some(("docker.io", "docker.io")));
        registry("r.example:5000", Some(("r.example:5000", "r.example")));
        registry("[::1]:5000", Some(("[::1]:5000", "[::1]")));
        registry("[::1]", Some(("[::1]", "[::1]")));
        for bad in [
            "", ":1", "a:", "a:0", "a:99999", "a/b", "u@a", "a..b", "-a", "[x]:1", "a:+1",
            "http://a",
        ] {
            registry(bad, None);
        }
    }

    #[test]
    fn a_repository_follows_the_specification() {
        for good in [
            "a",
            "library/alpine",
            "a/b/c",
            "a__b",
            "a---b",
            "a.b_c-d",
            "0/blobs/manifests",
        ] {
            assert!(good.parse::<Repository>().is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "A", "a..b", "a___b", "a._b", "-a", "a-", "a b", "é", "a/../b",
        ] {
            assert!(bad.parse::<Repository>().is_err(), "{bad}");
        }
        assert!("a".repeat(NAME_LEN_MAX + 1).parse::<Repository>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_fall(text in ".*") {
            if let Ok(name) = text.parse::<RegistryName>() {
                prop_assert_eq!(name.as_str().parse::<RegistryName>(), Ok(name));
            }
            let _ = text.parse::<Repository>();
        }
    }
}
