//! Pure: what is passed on to a registry as it is, and under which path the registry knows it.

use http::Method;
use protocol::{RegistryName, Repository};

use super::{Form, Reference, Resource, repository, split};

/// A request that its registry answers, whatever it is: a push, a catalog, its token server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Through {
    pub form: Form,
    pub registry: RegistryName,
    /// As the registry is to see it, percent-encoded as the caller wrote it.
    pub path: String,
    /// What a success writes or removes, as far as it may be remembered here.
    pub writes: Option<(Repository, Reference)>,
}

/// The list of all repositories, below `/v2/`.
const CATALOG: &str = "_catalog";

// === impl Through ===

impl Through {
    pub(super) fn new(form: Form, registry: RegistryName, path: &str) -> Self {
        let path = match form {
            Form::Prefix => without_first_component(path),
            Form::Ns | Form::Bare | Form::Forward => path.to_owned(),
        };
        Self {
            form,
            registry,
            path,
            writes: None,
        }
    }
}

/// Whether what is no content, `name` below `/v2/`, is the registry's to answer: everything that a
/// forward proxy is asked, and of the others the list of all repositories, and how far an upload has
/// come.
pub(super) fn is_passed_on(form: Form, name: &str) -> bool {
    match form {
        Form::Forward => true,
        Form::Prefix => name.is_empty() || name == CATALOG || name.contains("/blobs/uploads/"),
        Form::Ns | Form::Bare => name == CATALOG,
    }
}

/// The manifest that `method` writes or removes at `name`.
pub(super) fn written(
    method: &Method,
    registry: &RegistryName,
    name: &str,
) -> Option<(Repository, Reference)> {
    if method != Method::PUT && method != Method::DELETE {
        return None;
    }
    match split(name).ok()? {
        (name, Resource::Manifest(reference)) => {
            Some((repository(registry, name).ok()?, reference))
        }
        (_, Resource::Blob(_) | Resource::TagsList | Resource::Referrers(_)) => None,
    }
}

/// `/v2/a/b` without its `a`.
fn without_first_component(path: &str) -> String {
    let below = path.strip_prefix("/v2/").unwrap_or_default();
    let (_, rest) = below.split_once('/').unwrap_or_default();
    format!("/v2/{rest}")
}
