//! Who asks, and what the table on top of `proxy/src/error.rs` promises them.

use anyhow::{Context as _, Result};
use registry_compat_tests::http::Request;

/// One family of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// containerd: the registry in `ns`.
    Namespace,
    /// dockerd with a mirror: a bare name.
    Mirror,
    /// podman: the registry in the path.
    ByPath,
    /// A bare name by a program that nobody knows.
    Stranger,
}

/// A row of the table for one asker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) status: u16,
    pub(crate) code: String,
}

const ERRORS: &str = include_str!("../../../proxy/src/error.rs");

// === impl Asker ===

impl Asker {
    pub(crate) const ALL: [Self; 4] = [Self::Namespace, Self::Mirror, Self::ByPath, Self::Stranger];

    /// A request for `rest` of a repository of `registry.test`, as this family writes it.
    pub(crate) fn request(self, method: &str, rest: &str) -> Request {
        let (target, agent) = match self {
            Self::Namespace => (
                format!("/v2/team/app/{rest}?ns=registry.test"),
                "containerd/v2.1.9",
            ),
            Self::Mirror => (format!("/v2/team/app/{rest}"), "docker/28.5.2 go/go1.25"),
            Self::ByPath => (
                format!("/v2/registry.test/team/app/{rest}"),
                "containers/5.36 (github.com/containers/image)",
            ),
            Self::Stranger => (format!("/v2/team/app/{rest}"), "curl/8"),
        };
        Request::new(method, &target).header("User-Agent", agent)
    }

    /// Whether nobody falls back for this family, so that it gets the upstream's own answer.
    pub(crate) fn is_direct(self) -> bool {
        match self {
            Self::Namespace | Self::Mirror => false,
            Self::ByPath | Self::Stranger => true,
        }
    }

    /// What the table says of `fault` for this family.
    pub(crate) fn promised(self, fault: &str) -> Result<Promise> {
        let column = match self {
            Self::Namespace => 2,
            Self::Mirror => 3,
            Self::ByPath | Self::Stranger => 4,
        };
        let mut rows = ERRORS
            .lines()
            .filter_map(|line| line.strip_prefix("//! |"))
            .map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        let row = rows.find(|row| row.first() == Some(&fault));
        let cell = row.and_then(|row| row.get(column - 1).copied());
        let cell = cell.with_context(|| format!("the table has no row {fault}"))?;
        let (status, code) = cell.split_once(' ').context("a cell is status and code")?;
        Ok(Promise {
            status: status.parse()?,
            code: code.to_owned(),
        })
    }
}
