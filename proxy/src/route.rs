//! Pure: what a request asks for, and of which registry.
//!
//! First match wins: the authority of a request in absolute form (it names its host itself, and the
//! caller's credential is for that host), `?ns=`, a first path element that is written like a
//! registry, the default registry. Paths are read from the right, since `blobs`, `manifests` and
//! `tags` are legal parts of a repository name. Whether a registry may be asked is not decided here.

mod through;

use std::{borrow::Cow, fmt, str::FromStr};

use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use protocol::{Digest, RegistryName, Repository};

pub use self::through::Through;

/// What a request asks of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryRequest {
    /// `/v2/`: is a registry here?
    Ping,
    /// Something in one repository, to be read.
    Read(Target, Resource),
    /// What is the registry's own affair, passed on as it is.
    Through(Through),
    /// A method that would change something, asked of a mirror.
    Write,
    /// A tunnel.
    Connect,
}

/// The repository that a request names, and how it named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub form: Form,
    pub registry: RegistryName,
    pub repository: Repository,
}

/// How a request names its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// `?ns=<registry>`.
    Ns,
    /// `/v2/<registry>/<repository>/…`.
    Prefix,
    /// `/v2/<repository>/…`: the default registry.
    Bare,
    /// Absolute form: the proxy was asked as a forward proxy.
    Forward,
}

/// What is to be read in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Blob(Digest),
    Manifest(Reference),
    TagsList,
    Referrers(Digest),
}

/// How a request names a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

/// A tag as the distribution specification spells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// Why a request leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("nothing is served at this path")]
    NoSuchPath,
    #[error("{0} is no registry, repository or tag name")]
    Name(Shown),
    #[error("{0} is no digest: {1}")]
    Digest(Shown, protocol::digest::DigestError),
    #[error("{0} is this proxy itself")]
    Loop(String),
    #[error("a request has one Host")]
    Host,
}

/// What a request wrote where a name belongs, as far as it may be told and logged: no name has an
/// `@` in it, and what has may be a password before a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(Option<String>);

/// Who this proxy is and what a bare name means.
#[derive(Debug, Clone)]
pub struct Router {
    default_registry: RegistryName,
    own_port: u16,
    own_names: Vec<RegistryName>,
    /// The name that this process writes into `Via`.
    pseudonym: String,
}

/// The longest tag, in bytes.
const TAG_LEN_MAX: usize = 128;

// === impl Router ===

impl Router {
    /// `own_port` on any loopback name is this proxy, and so is every name of `own_names`.
    pub fn new(
        default_registry: RegistryName,
        own_port: u16,
        own_names: Vec<RegistryName>,
        pseudonym: String,
    ) -> Self {
        Self {
            default_registry,
            own_port,
            own_names,
            pseudonym,
        }
    }

    /// What the request asks for. `via` are the values of its `Via` headers.
    pub fn route<'a>(
        &self,
        method: &Method,
        uri: &Uri,
        via: impl IntoIterator<Item = &'a str>,
    ) -> Result<RegistryRequest, RouteError> {
        if method == Method::CONNECT {
            return Ok(RegistryRequest::Connect);
        }
        if via.into_iter().any(|value| self.was_here(value)) {
            return Err(RouteError::Loop("the sender of this request".to_owned()));
        }
        let forward = match self.forward(uri)? {
            Some(registry) if !uri.path().starts_with("/v2/") => {
                let through = Through::new(Form::Forward, registry, uri.path());
                return Ok(RegistryRequest::Through(through));
            }
            forward => forward,
        };
        let path = decode(uri.path())?;
        let below = match path.as_ref() {
            "/v2" | "/v2/" if forward.is_none() => return Ok(RegistryRequest::Ping),
            path => path.strip_prefix("/v2/").ok_or(RouteError::NoSuchPath)?,
        };
        let (form, registry, name) = self.named(uri, forward, below)?;
        if self.is_own(&registry) {
            return Err(RouteError::Loop(registry.to_string()));
        }
        let is_read = method == Method::GET || method == Method::HEAD;
        if !is_read {
            return Ok(match form {
                Form::Ns | Form::Bare => RegistryRequest::Write,
                Form::Prefix | Form::Forward => {
                    let writes = through::written(method, &registry, name);
                    let through = Through::new(form, registry, uri.path());
                    RegistryRequest::Through(Through { writes, ..through })
                }
            });
        }
        match split(name) {
            Ok((name, resource)) => {
                let repository = repository(&registry, name)?;
                let target = Target {
                    form,
                    registry,
                    repository,
                };
                Ok(RegistryRequest::Read(target, resource))
            }
            Err(RouteError::NoSuchPath) if through::is_passed_on(form, name) => Ok(
                RegistryRequest::Through(Through::new(form, registry, uri.path())),
            ),
            Err(error) => Err(error),
        }
    }

    /// The registry of a request in absolute form; this proxy's own name says nothing.
    fn forward(&self, uri: &Uri) -> Result<Option<RegistryName>, RouteError> {
        let forward = uri
            .authority()
            .map(|authority| registry(authority.as_str()))
            .transpose()?;
        Ok(forward.filter(|registry| !self.is_own(registry)))
    }

    /// How a request names its registry, which, and what of its path below `/v2/` is left.
    fn named<'a>(
        &self,
        uri: &Uri,
        forward: Option<RegistryName>,
        below: &'a str,
    ) -> Result<(Form, RegistryName, &'a str), RouteError> {
        Ok(if let Some(registry) = forward {
            (Form::Forward, registry, below)
        } else if let Some(ns) = namespace(uri) {
            (Form::Ns, registry(&ns)?, below)
        } else if let Some((first, rest)) = below
            .split_once('/')
            .filter(|(first, _)| is_registry(first))
        {
            (Form::Prefix, registry(first)?, rest)
        } else {
            (Form::Bare, self.default_registry.clone(), below)
        })
    }

    fn is_own(&self, registry: &RegistryName) -> bool {
        if self.own_names.contains(registry) {
            return true;
        }
        let port = registry.as_str()[registry.host().len()..].trim_start_matches(':');
        port.parse() == Ok(self.own_port) && is_loopback(registry.host())
    }

    /// Whether a `Via` value (RFC 9110 section 7.6.3) names this process.
    fn was_here(&self, via: &str) -> bool {
        via.split(',')
            .any(|hop| hop.split_whitespace().nth(1) == Some(&self.pseudonym))
    }
}

// === impl Shown ===

impl Shown {
    fn of(text: &str) -> Self {
        let is_safe = !text.contains('@') && !text.to_ascii_lowercase().contains("%40");
        Self(is_safe.then(|| text.to_owned()))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(text) => write!(f, "{text:?}"),
            None => f.write_str("what holds an `@`"),
        }
    }
}

// === impl Reference, Tag ===

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(&tag.0),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = RouteError;

    /// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
    fn from_str(text: &str) -> Result<Self, RouteError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let inner = |byte: u8| word(byte) || byte == b'.' || byte == b'-';
        let holds = text.len() <= TAG_LEN_MAX
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(inner);
        if holds {
            Ok(Self(text.to_owned()))
        } else {
            Err(RouteError::Name(Shown::of(text)))
        }
    }
}

/// The path with its percent-encoding undone; an encoded slash would change what is a component.
fn decode(path: &str) -> Result<Cow<'_, str>, RouteError> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let bad = || RouteError::Name(Shown::of(path));
    if path.to_ascii_lowercase().contains("%2f") {
        return Err(bad());
    }
    percent_decode_str(path).decode_utf8().map_err(|_| bad())
}

/// The name, and what is asked for below it: `<name>/<kind>/<reference>`, read from the right.
fn split(path: &str) -> Result<(&str, Resource), RouteError> {
    let (head, reference) = path.rsplit_once('/').ok_or(RouteError::NoSuchPath)?;
    let (name, kind) = head.rsplit_once('/').ok_or(RouteError::NoSuchPath)?;
    let resource = match (kind, reference) {
        ("tags", "list") => Resource::TagsList,
        ("blobs", text) => Resource::Blob(digest(text)?),
        ("referrers", text) => Resource::Referrers(digest(text)?),
        ("manifests", text) if text.contains(':') => {
            Resource::Manifest(Reference::Digest(digest(text)?))
        }
        ("manifests", text) => Resource::Manifest(Reference::Tag(text.parse()?)),
        (_, _) => return Err(RouteError::NoSuchPath),
    };
    Ok((name, resource))
}

fn digest(text: &str) -> Result<Digest, RouteError> {
    text.parse()
        .map_err(|error| RouteError::Digest(Shown::of(text), error))
}

fn registry(text: &str) -> Result<RegistryName, RouteError> {
    text.parse().map_err(|_| RouteError::Name(Shown::of(text)))
}

/// Hub's official images have one component in their short name and `library/` in their real one.
fn repository(registry: &RegistryName, name: &str) -> Result<Repository, RouteError> {
    let is_official = registry.as_str() == "docker.io" && !name.contains('/');
    let full = if is_official {
        Cow::Owned(format!("library/{name}"))
    } else {
        Cow::Borrowed(name)
    };
    full.parse().map_err(|_| RouteError::Name(Shown::of(name)))
}

/// The first `ns` of the query; an empty one says nothing.
fn namespace(uri: &Uri) -> Option<Cow<'_, str>> {
    let query = uri.query()?.as_bytes();
    url::form_urlencoded::parse(query)
        .find(|(key, _)| key == "ns")
        .map(|(_, value)| value)
        .filter(|value| !value.is_empty())
}

/// Whether the first component of a name is written like a registry (as `docker pull` reads it).
fn is_registry(component: &str) -> bool {
    component.contains(['.', ':']) || component == "localhost"
}

fn is_loopback(host: &str) -> bool {
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    match address {
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests;
