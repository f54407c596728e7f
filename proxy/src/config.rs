//! Configuration of the proxy: the `[proxy]` table of the file.
//!
//! [`RawConfig`] is the table as written. [`Config`] is what the code runs on. Every problem is
//! told at once.

mod bounds;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use protocol::RegistryName;
use serde::{Deserialize, Serialize};
use swarm::source::{self, Files, ProxyTexts, RawRegistry, SourceConfigError, Timeouts};

use crate::{
    challenge::PingChallenges,
    intercept::{Intercepted, Rules, TunnelFor},
    manifest::freshness::TagTimes,
    rights::RightTimes,
    route::Router,
    upstream_proxy::{self, Chosen},
};

/// The `[proxy]` table as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Where container runtimes reach the proxy. On a loopback address both families are bound.
    pub listen: SocketAddr,

    /// Where containers reach it besides: the addresses of bridges, such as docker0 and kind.
    pub also_listen: Vec<SocketAddr>,

    /// The registry of a name that says none.
    pub default_registry: String,

    /// Registries that are not among the well-known public ones.
    pub registry: Vec<RawRegistry>,

    /// Directories in the manner of docker's `certs.d`: of a registry that may be asked, what TLS to it
    /// rests on, where its entry does not say it.
    pub certs_d: Vec<PathBuf>,

    /// Patterns of further registries that may be asked: `*.corp.example`.
    pub allow: Vec<String>,

    /// Registries whose HTTPS is answered here, for clients with this proxy in `HTTPS_PROXY`: names
    /// or patterns, as for `allow`.
    pub intercept: Vec<String>,

    /// Whose connections to all other hosts are passed on: `none`, `local` or `any`.
    pub tunnel: TunnelFor,

    /// The ports to which they may go.
    pub tunnel_ports: Vec<u16>,

    /// Where the kernel redirects connections to; nowhere when empty.
    pub transparent_listen: String,

    /// Whether the mirror also speaks TLS, by the loopback names.
    pub tls: bool,

    /// Further names by which this proxy is reached, so that it never asks itself.
    pub own_names: Vec<String>,

    /// The HTTP proxy through which upstreams are asked; empty is that of the environment, if any.
    pub upstream_proxy: String,

    /// A file with `user:password` for it; none when empty.
    pub upstream_proxy_credentials: PathBuf,

    /// What is asked without it: names with all below them, addresses, networks.
    pub upstream_no_proxy: Vec<String>,

    /// How long an answer for a tag is given without asking the upstream again.
    #[serde(with = "humantime_serde")]
    pub tag_ttl: Duration,

    /// How old an answer for a tag may be when the upstream fails or limits.
    #[serde(with = "humantime_serde")]
    pub stale_if_error: Duration,

    /// Answers for tags kept on disk; the longest unasked go first.
    pub tags_max: usize,
    #[serde(with = "humantime_serde")]
    pub allow_ttl: Duration,
    #[serde(with = "humantime_serde")]
    pub deny_ttl: Duration,
    #[serde(with = "humantime_serde")]
    pub public_ttl: Duration,
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    pub ping_challenge: PingChallenges,

    /// The largest manifest or list that is taken from an upstream.
    pub manifest_size_max: ByteSize,

    /// From the name of an upstream to the end of its TLS handshake.
    #[serde(with = "humantime_serde")]
    pub upstream_connect_timeout: Duration,

    /// How long an upstream may take to begin its answer.
    #[serde(with = "humantime_serde")]
    pub upstream_response_timeout: Duration,

    /// How long an upstream may take to begin its answer to a push whose last byte it has.
    #[serde(with = "humantime_serde")]
    pub upstream_write_timeout: Duration,

    /// How long an upstream may send nothing in the middle of a body.
    #[serde(with = "humantime_serde")]
    pub upstream_stall_timeout: Duration,

    /// How long who can go elsewhere waits for an upstream that says nothing, retries included: a
    /// client that falls back, and a tag that has an older answer. Not while other hosts fetch.
    #[serde(with = "humantime_serde")]
    pub upstream_fallback_timeout: Duration,

    /// How long those do not wait again for an upstream that kept silent; zero to wait each time.
    #[serde(with = "humantime_serde")]
    pub upstream_fallback_memory: Duration,

    /// How long a connection may wait for its next request.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,

    /// How long a client may read nothing of what is sent to it.
    #[serde(with = "humantime_serde")]
    pub client_stall_timeout: Duration,
}

/// The `[proxy]` table, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub also_listen: Vec<SocketAddr>,
    pub transparent_listen: Option<SocketAddr>,
    pub router: Router,
    /// What is answered in the name of other hosts, and what is passed on.
    pub rules: Rules,
    /// Whether the mirror also speaks TLS, by the loopback names.
    pub tls: bool,
    /// Which registries may be asked; the upstream side runs on the same.
    pub source: source::Config,
    pub tags: TagTimes,
    pub tags_max: usize,
    pub rights: RightTimes,
    pub ping_challenge: PingChallenges,
    /// Where answers for tags are kept.
    pub tags_dir: PathBuf,
    pub manifest_len_max: usize,
    pub idle_timeout: Duration,
    pub client_stall_timeout: Duration,
    /// What the operator is to be told although it stops nothing.
    pub warnings: Vec<String>,
}

/// What the table does not say: where data lies, how files are read, who this process is.
#[derive(Debug)]
pub struct Surroundings<'a, R> {
    pub data_dir: &'a Path,
    /// The name of this process in `Via`.
    pub pseudonym: &'a str,
    /// The HTTP proxy that the environment names.
    pub proxy: ProxyTexts,
    /// Gives the bytes of a file that the configuration names.
    pub read: R,
    /// Gives the names of what is in a directory that the configuration names.
    pub names: fn(&Path) -> io::Result<Vec<String>>,
}

/// A value that parses but cannot be run with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    pub key: String,
    pub problem: String,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

// === impl RawConfig ===

impl Default for RawConfig {
    fn default() -> Self {
        let upstream = Timeouts::default();
        let rights = RightTimes::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 65001)),
            also_listen: Vec::new(),
            default_registry: "docker.io".to_owned(),
            registry: Vec::new(),
            certs_d: Vec::new(),
            allow: Vec::new(),
            intercept: Vec::new(),
            tunnel: TunnelFor::Local,
            tunnel_ports: vec![443],
            transparent_listen: String::new(),
            tls: false,
            own_names: Vec::new(),
            upstream_proxy: String::new(),
            upstream_proxy_credentials: PathBuf::new(),
            upstream_no_proxy: Vec::new(),
            tag_ttl: Duration::from_secs(60),
            stale_if_error: 30 * DAY,
            tags_max: 10_000,
            allow_ttl: rights.allow,
            deny_ttl: rights.deny,
            public_ttl: rights.public,
            grace: rights.grace,
            ping_challenge: PingChallenges::default(),
            manifest_size_max: ByteSize::mib(16),
            upstream_connect_timeout: upstream.connect,
            upstream_response_timeout: upstream.response,
            upstream_write_timeout: upstream.write,
            upstream_stall_timeout: upstream.stall,
            upstream_fallback_timeout: upstream.fallback,
            upstream_fallback_memory: upstream.fallback_memory,
            idle_timeout: Duration::from_secs(120),
            client_stall_timeout: Duration::from_secs(600),
        }
    }
}

impl RawConfig {
    /// The checked configuration, or every problem in this table.
    pub fn check<R>(self, surroundings: &Surroundings<'_, R>) -> Result<Config, Vec<ConfigError>>
    where
        R: Fn(&Path) -> io::Result<Vec<u8>>,
    {
        let mut problems = Vec::new();
        let mut name = |key: &str, text: &str| match text.parse::<RegistryName>() {
            Ok(name) => Some(name),
            Err(error) => {
                problems.push(ConfigError::new(key, format!("{text:?}: {error}")));
                None
            }
        };
        let default_registry = name("proxy.default_registry", &self.default_registry);
        let own_names = self.own_names.iter();
        let mut own_names: Vec<_> = own_names
            .filter_map(|text| name("proxy.own_names", text))
            .collect();
        let addresses = self.also_listen.iter().map(ToString::to_string);
        own_names.extend(addresses.filter_map(|text| name("proxy.also_listen", &text)));
        let source = self.source(surroundings, &mut problems);
        let rules = source
            .as_ref()
            .and_then(|source| self.rules(source, &mut problems));
        let transparent_listen = self.transparent_listen();
        let transparent_listen = transparent_listen.map_err(|error| problems.push(error));
        let chosen = self.upstream_proxy(surroundings, &mut problems);
        problems.extend(self.out_of_bounds());
        let (Some(default_registry), Some(source), Some(rules), Ok(transparent_listen), true) = (
            default_registry,
            source,
            rules,
            transparent_listen,
            problems.is_empty(),
        ) else {
            return Err(problems);
        };
        let pseudonym = surroundings.pseudonym.to_owned();
        Ok(Config {
            listen: self.listen,
            also_listen: self.also_listen.clone(),
            transparent_listen,
            rules,
            tls: self.tls,
            router: Router::new(default_registry, self.listen.port(), own_names, pseudonym),
            source: source::Config {
                timeouts: self.timeouts(),
                pseudonym: surroundings.pseudonym.to_owned(),
                proxy: chosen.proxy,
                ..source
            },
            tags: TagTimes {
                ttl: self.tag_ttl,
                stale_if_error: self.stale_if_error,
            },
            tags_max: self.tags_max,
            rights: self.rights(),
            ping_challenge: self.ping_challenge,
            tags_dir: surroundings.data_dir.join("tags"),
            manifest_len_max: usize::try_from(self.manifest_size_max.as_u64())
                .unwrap_or(usize::MAX),
            idle_timeout: self.idle_timeout,
            client_stall_timeout: self.client_stall_timeout,
            warnings: chosen.warning.into_iter().collect(),
        })
    }

    fn source<R>(
        &self,
        surroundings: &Surroundings<'_, R>,
        problems: &mut Vec<ConfigError>,
    ) -> Option<source::Config>
    where
        R: Fn(&Path) -> io::Result<Vec<u8>>,
    {
        let files = Files {
            read: &surroundings.read,
            names: &surroundings.names,
        };
        let source = source::check(&self.registry, &self.allow, &surroundings.read);
        let source = source.and_then(|source| source.with_certs_d(&self.certs_d, files));
        let told = |error: SourceConfigError| ConfigError::new(&error.key, error.problem);
        source
            .map_err(|errors| problems.extend(errors.into_iter().map(told)))
            .ok()
    }

    fn rights(&self) -> RightTimes {
        RightTimes {
            allow: self.allow_ttl,
            deny: self.deny_ttl,
            public: self.public_ttl,
            grace: self.grace,
        }
    }

    fn upstream_proxy<R>(
        &self,
        surroundings: &Surroundings<'_, R>,
        problems: &mut Vec<ConfigError>,
    ) -> Chosen
    where
        R: Fn(&Path) -> io::Result<Vec<u8>>,
    {
        let chosen = upstream_proxy::choose(self, &surroundings.proxy, &surroundings.read);
        chosen.unwrap_or_else(|errors| {
            problems.extend(errors);
            Chosen::default()
        })
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: self.upstream_connect_timeout,
            response: self.upstream_response_timeout,
            write: self.upstream_write_timeout,
            stall: self.upstream_stall_timeout,
            fallback: self.upstream_fallback_timeout,
            fallback_memory: self.upstream_fallback_memory,
            ..Timeouts::default()
        }
    }

    fn rules(&self, source: &source::Config, problems: &mut Vec<ConfigError>) -> Option<Rules> {
        let told = |text| ConfigError::new("proxy.intercept", text);
        let intercept = Intercepted::check(&self.intercept, source);
        let intercept = intercept.map_err(|texts| problems.extend(texts.into_iter().map(told)));
        if self.tunnel_ports.contains(&0) {
            let problem = "0 is no port".to_owned();
            problems.push(ConfigError::new("proxy.tunnel_ports", problem));
        }
        Some(Rules {
            intercept: intercept.ok()?,
            tunnel: self.tunnel,
            tunnel_ports: self.tunnel_ports.clone(),
        })
    }

    /// Where the kernel redirects connections to, if anywhere.
    pub fn transparent_listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let key = "proxy.transparent_listen";
        if self.transparent_listen.is_empty() {
            return Ok(None);
        }
        if self.intercept.is_empty() {
            let problem = "is of no use while proxy.intercept names nothing".to_owned();
            return Err(ConfigError::new(key, problem));
        }
        let address = self.transparent_listen.parse();
        address.map(Some).map_err(|_| {
            let problem = format!("`{}` is not written address:port", self.transparent_listen);
            ConfigError::new(key, problem)
        })
    }
}

// === impl ConfigError ===

impl ConfigError {
    fn new(key: &str, problem: String) -> Self {
        Self {
            key: key.to_owned(),
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: RawConfig) -> Result<Config, Vec<String>> {
        let surroundings = Surroundings {
            data_dir: Path::new("/data"),
            pseudonym: "darter-1",
            proxy: ProxyTexts::default(),
            read: |_: &Path| Err(io::ErrorKind::NotFound.into()),
            names: |_| Err(io::ErrorKind::NotFound.into()),
        };
        raw.check(&surroundings)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_default_holds() {
        let config = check(RawConfig::default()).unwrap();
        assert_eq!(config.tags_dir, Path::new("/data/tags"));
        assert_eq!(config.source.timeouts, Timeouts::default());
        assert!(config.source.allowed(&"docker.io".parse().unwrap()));
        assert!(!config.source.allowed(&"r.example".parse().unwrap()));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let told = check(RawConfig {
            default_registry: "http://x".to_owned(),
            own_names: vec!["a/b".to_owned()],
            also_listen: vec!["[::ffff:0.0.0.0]:65001".parse().unwrap(); 17],
            allow: vec!["*".to_owned()],
            tunnel_ports: vec![443, 0],
            transparent_listen: "127.0.0.1:65443".to_owned(),
            registry: vec![RawRegistry {
                name: "a b".to_owned(),
                ..RawRegistry::default()
            }],
            tags_max: 0,
            manifest_size_max: ByteSize::mib(17),
            upstream_stall_timeout: Duration::ZERO,
            upstream_fallback_timeout: Duration::ZERO,
            upstream_fallback_memory: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            ..RawConfig::default()
        })
        .unwrap_err();
        let mut keys = told
            .iter()
            .filter_map(|line| line.split(": ").next())
            .collect::<Vec<_>>();
        keys.dedup();
        let expect = [
            "proxy.default_registry",
            "proxy.own_names",
            "proxy.registry[a b].name",
            "proxy.allow[*]",
            "proxy.transparent_listen",
            "proxy.also_listen",
            "proxy.tags_max",
            "proxy.upstream_stall_timeout",
            "proxy.upstream_fallback_timeout",
            "proxy.idle_timeout",
            "proxy.manifest_size_max",
        ];
        assert_eq!(keys, expect);
    }
}
