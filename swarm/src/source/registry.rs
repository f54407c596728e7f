//! Which registries may be asked, and where each of them is.
//!
//! Pure: files are read by the caller of [`check`]. Plain HTTP and addresses that are not
//! everybody's are reached only through an entry of the configuration.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use protocol::RegistryName;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    certs_d::Papers,
    corporate::UpstreamProxy,
    docker_config,
    pattern::{self, Pattern},
    trust::{self, ClientIdentity},
};

/// One `[[proxy.registry]]` of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawRegistry {
    /// As image names spell it.
    pub name: String,
    /// `https://<name>` when empty.
    pub endpoint: String,
    /// Several instead, nearest first: the first that answers is used. All of them are trusted with the
    /// credentials of callers, and to say what is public.
    pub endpoints: Vec<String>,
    /// A PEM file of authorities trusted for this registry besides the system's; none when empty.
    pub ca: PathBuf,
    /// PEM files of the certificate, with its chain, that this registry and what is also trusted are shown
    /// where they ask for one, and of its private key; both or neither.
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
    /// A file in the form of docker's `config.json` that has this node's login; none when empty. What it
    /// opens, every client of this node may read.
    pub docker_config: PathBuf,
    /// Where redirects and challenges of this registry may also lead, whatever the address is:
    /// `host:port`, as they write it.
    pub also_trust: Vec<String>,
}

/// The registries and time-outs of the source, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub registries: HashMap<RegistryName, RegistryConfig>,
    /// What TLS to registries without an entry rests on, besides what holds for all. They are allowed
    /// by nothing in here.
    pub papers: HashMap<RegistryName, Papers>,
    pub allow: Vec<Pattern>,
    pub timeouts: Timeouts,
    /// What stands between this host and the upstreams, if anything.
    pub proxy: Option<UpstreamProxy>,
    /// The name that this process writes into `Via` (RFC 9110, section 7.6.3): visible ASCII.
    pub pseudonym: String,
}

/// One registry that the operator named.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// At least one; asked in this order.
    pub endpoints: Vec<Url>,
    /// Further places that may be connected to whatever their address is. The endpoints are some.
    pub also_trust: Vec<Authority>,
    pub ca: Vec<CertificateDer<'static>>,
    /// Shown to the endpoints and to what is also trusted, where they ask for it.
    pub client: Option<ClientIdentity>,
    /// Where this node's login is.
    pub docker_config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the name to the end of the TLS handshake.
    pub connect: Duration,
    /// From the request to the head of the response.
    pub response: Duration,
    /// From the last byte of a request that writes something to the head of the response: a registry may
    /// have much to do with a large blob before it says that it has it.
    pub write: Duration,
    /// Between two pieces of a body.
    pub stall: Duration,
    /// The pause before the first retry; later ones are longer.
    pub backoff: Duration,
    /// From the request to the head of the response, for who can go elsewhere: retries included.
    pub fallback: Duration,
    /// How long those do not wait again for an upstream that kept silent; zero to wait each time.
    pub fallback_memory: Duration,
}

/// Where a URL connects to, as written: host in lower case, and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    pub host: url::Host<String>,
    pub port: u16,
}

/// A value that parses but cannot be run with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct SourceConfigError {
    pub key: String,
    pub problem: String,
}

/// Endpoints of one registry; each may be waited for.
const ENDPOINTS_MAX: usize = 8;

const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ENDPOINT: &str = "https://registry-1.docker.io";

/// The checked configuration, or every problem in it. `read` gives the bytes of a file.
pub fn check(
    registries: &[RawRegistry],
    allow: &[String],
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Config, Vec<SourceConfigError>> {
    let mut problems = Vec::new();
    let mut checked = HashMap::new();
    for (index, raw) in registries.iter().enumerate() {
        let mut problem = |key: &str, problem: String| {
            let name = if raw.name.is_empty() {
                index.to_string()
            } else {
                raw.name.clone()
            };
            problems.push(SourceConfigError {
                key: format!("proxy.registry[{name}].{key}"),
                problem,
            });
        };
        let name = raw
            .name
            .parse::<RegistryName>()
            .map_err(|error| problem("name", error.to_string()));
        let ca = trust::authorities(&raw.ca, &read).map_err(|error| problem("ca", error));
        let client = trust::client_identity(raw, &read).map_err(|(key, error)| problem(key, error));
        let also_trust: Vec<_> = raw
            .also_trust
            .iter()
            .filter_map(|text| {
                let parsed = text.parse();
                parsed.map_err(|error| problem("also_trust", error)).ok()
            })
            .collect();
        let Ok(name) = name else { continue };
        let endpoints = endpoints(&name, raw).map_err(|(key, error)| problem(key, error));
        let is_plain = endpoints.as_ref().is_ok_and(|all| are_plain(all));
        if is_plain && !raw.client_cert.as_os_str().is_empty() {
            let told = "is of no use: the endpoint is reached without TLS";
            problem("client_cert", told.to_owned());
        }
        let login = login(raw, &read).map_err(|error| problem("docker_config", error));
        let (Ok(endpoints), Ok(ca), Ok(client), Ok(docker_config)) = (endpoints, ca, client, login)
        else {
            continue;
        };
        let config = RegistryConfig {
            endpoints,
            also_trust,
            ca,
            client,
            docker_config,
        };
        if checked.insert(name, config).is_some() {
            problem("name", "is configured twice".to_owned());
        }
    }
    let patterns = patterns(allow, &mut problems);
    if problems.is_empty() {
        Ok(Config {
            registries: checked,
            allow: patterns,
            ..Config::default()
        })
    } else {
        Err(problems)
    }
}

fn patterns(allow: &[String], problems: &mut Vec<SourceConfigError>) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for text in allow {
        match text.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                problems.push(SourceConfigError {
                    key: format!("proxy.allow[{text}]"),
                    problem: format!("{error}"),
                });
            }
        }
    }
    patterns
}

// === impl Config ===

impl Default for Config {
    /// The well-known registries alone.
    fn default() -> Self {
        Self {
            registries: HashMap::new(),
            papers: HashMap::new(),
            allow: Vec::new(),
            timeouts: Timeouts::default(),
            proxy: None,
            pseudonym: "darter".to_owned(),
        }
    }
}

impl Config {
    pub fn allowed(&self, registry: &RegistryName) -> bool {
        self.registries.contains_key(registry)
            || pattern::is_well_known(registry)
            || self.allow.iter().any(|pattern| pattern.matches(registry))
    }

    /// Whether `registry` itself is meant by something, and not all that a pattern may come to match.
    pub fn is_named(&self, registry: &RegistryName) -> bool {
        self.registries.contains_key(registry)
            || pattern::is_well_known(registry)
            || self.allow.iter().any(|pattern| pattern.is_name(registry))
    }
}

// === impl RegistryConfig ===

impl RegistryConfig {
    /// Whether it is asked without TLS alone.
    pub(super) fn is_plain(&self) -> bool {
        are_plain(&self.endpoints)
    }
}

fn are_plain(endpoints: &[Url]) -> bool {
    endpoints.iter().all(|url| url.scheme() == "http")
}

/// Whether the name is Docker Hub's, wherever the configuration has it.
pub(super) fn is_docker_hub(name: &RegistryName) -> bool {
    name.as_str() == DOCKER_HUB
}

// === impl Timeouts ===

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(30),
            write: Duration::from_secs(10 * 60),
            stall: Duration::from_secs(30),
            backoff: Duration::from_millis(100),
            fallback: Duration::from_secs(10),
            fallback_memory: Duration::from_secs(30),
        }
    }
}

// === impl Authority ===

impl Authority {
    /// `None` for a URL that is neither `http` nor `https`.
    pub fn of(url: &Url) -> Option<Self> {
        Some(Self {
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }
}

impl FromStr for Authority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || format!("`{text}` is not written host:port");
        let (host, port) = text.rsplit_once(':').ok_or_else(told)?;
        let (Ok(host), Ok(port)) = (url::Host::parse(host), port.parse()) else {
            return Err(told());
        };
        Ok(Self { host, port })
    }
}

/// Where a registry is that no entry says anything else of.
pub(super) fn default_endpoint(name: &RegistryName) -> Result<Url, String> {
    if is_docker_hub(name) {
        return parse_endpoint(DOCKER_HUB_ENDPOINT);
    }
    parse_endpoint(&format!("https://{name}"))
}

/// Where the registry is; the key of the configuration that is wrong, and what is wrong with it.
fn endpoints(name: &RegistryName, raw: &RawRegistry) -> Result<Vec<Url>, (&'static str, String)> {
    if raw.endpoints.is_empty() {
        let one = match raw.endpoint.as_str() {
            "" => default_endpoint(name),
            text => parse_endpoint(text),
        };
        return one.map(|url| vec![url]).map_err(|told| ("endpoint", told));
    }
    let in_list = |told: String| ("endpoints", told);
    if !raw.endpoint.is_empty() {
        return Err(in_list(
            "stands beside `endpoint`; write one of them".to_owned(),
        ));
    }
    if ENDPOINTS_MAX < raw.endpoints.len() {
        return Err(in_list(format!("must be at most {ENDPOINTS_MAX}")));
    }
    let mut all = Vec::new();
    for text in &raw.endpoints {
        let url = parse_endpoint(text).map_err(|told| in_list(format!("{text:?} {told}")))?;
        if all.contains(&url) {
            return Err(in_list(format!("{url} is there twice")));
        }
        all.push(url);
    }
    Ok(all)
}

/// Where the login is, if anywhere; its file must be one.
fn login(
    raw: &RawRegistry,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Option<PathBuf>, String> {
    let path = &raw.docker_config;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let file = read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    match docker_config::look_up(&file, &[]) {
        Ok(_) => Ok(Some(path.clone())),
        Err(told) => Err(format!("{} {told}", path.display())),
    }
}

fn parse_endpoint(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("must be http://host[:port] or https://host[:port]".to_owned());
    }
    let credential = !url.username().is_empty() || url.password().is_some();
    if credential || url.query().is_some() || url.fragment().is_some() {
        return Err("must have no user, query or fragment".to_owned());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(name: &str, endpoint: &str) -> RawRegistry {
        RawRegistry {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            ..RawRegistry::default()
        }
    }

    fn no_file(_: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    #[track_caller]
    fn endpoint_of(name: &str, text: &str, expect: &str) {
        let config = check(&[raw(name, text)], &[], no_file).unwrap();
        let endpoints = &config.registries[&name.parse().unwrap()].endpoints;
        let seen: Vec<&str> = endpoints.iter().map(Url::as_str).collect();
        assert_eq!(seen, [expect]);
    }

    #[test]
    fn the_endpoint_is_the_name_unless_said() {
        endpoint_of("r.example:5000", "", "https://r.example:5000/");
        endpoint_of(
            "r.example:5000",
            "http://127.0.0.1:5000",
            "http://127.0.0.1:5000/",
        );
        endpoint_of("docker.io", "", "https://registry-1.docker.io/");
        endpoint_of(
            "docker.io",
            "https://m.example/hub",
            "https://m.example/hub/",
        );
        endpoint_of("[::1]:5000", "", "https://[::1]:5000/");
    }

    fn raw_of(endpoint: &str, endpoints: &[&str]) -> RawRegistry {
        RawRegistry {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            ..raw("r.example", endpoint)
        }
    }

    #[test]
    fn several_endpoints_are_kept_in_their_order() {
        let raw = raw_of("", &["https://near.example", "http://10.0.0.1:5000"]);
        let config = check(&[raw], &[], no_file).unwrap();
        let endpoints = &config.registries[&"r.example".parse().unwrap()].endpoints;
        let seen: Vec<&str> = endpoints.iter().map(Url::as_str).collect();
        assert_eq!(seen, ["https://near.example/", "http://10.0.0.1:5000/"]);
    }

    #[test]
    fn endpoints_that_are_too_many_the_same_or_beside_one_are_a_problem() {
        let many: Vec<String> = (0..9).map(|n| format!("https://{n}.example")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for raw in [
            raw_of("https://a.example", &["https://b.example"]),
            raw_of("", &["https://a.example", "https://A.example:443/"]),
            raw_of("", &["https://a.example", ""]),
            raw_of("", &["https://a.example", "ftp://b.example"]),
            raw_of("", &many),
        ] {
            let told = check(std::slice::from_ref(&raw), &[], no_file).unwrap_err();
            let keys: Vec<&str> = told.iter().map(|error| error.key.as_str()).collect();
            assert_eq!(keys, ["proxy.registry[r.example].endpoints"], "{raw:?}");
        }
    }

    #[test]
    fn a_place_that_is_also_trusted_is_the_one_that_a_url_names() {
        for (text, url) in [
            ("Store.example:9000", "http://store.example:9000/bucket?x"),
            ("store.example:443", "https://store.example/"),
            ("10.0.0.7:9000", "http://10.0.0.7:9000/"),
            ("[fd00::7]:9000", "http://[fd00::7]:9000/"),
        ] {
            let authority = Authority::of(&Url::parse(url).unwrap());
            assert_eq!(text.parse().ok(), authority, "{text}");
        }
        for text in [
            "",
            "store.example",
            ":9000",
            "store.example:",
            "a:b:1",
            "http://a:1",
        ] {
            assert!(text.parse::<Authority>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let mut missing_ca = raw("c.example", "");
        missing_ca.ca = PathBuf::from("/none.pem");
        missing_ca.docker_config = PathBuf::from("/none.json");
        let mut portless = raw("d.example", "");
        portless.also_trust = vec!["store.example:443".to_owned(), "store.example".to_owned()];
        let mut keyless = raw("e.example", "");
        keyless.client_cert = PathBuf::from("/none.pem");
        let mut plain = raw("f.example", "HTTP://f.example");
        plain.client_cert = PathBuf::from("/none.pem");
        let registries = [
            raw("", ""),
            raw("a/b", ""),
            raw("a.example", "ftp://a"),
            raw("b.example", "https://u:p@b"),
            missing_ca,
            portless,
            keyless,
            plain,
            raw("D.example", ""),
        ];
        let told = check(&registries, &["*".to_owned()], no_file).unwrap_err();
        let keys: Vec<&str> = told.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "proxy.registry[0].name",
                "proxy.registry[a/b].name",
                "proxy.registry[a.example].endpoint",
                "proxy.registry[b.example].endpoint",
                "proxy.registry[c.example].ca",
                "proxy.registry[c.example].docker_config",
                "proxy.registry[d.example].also_trust",
                "proxy.registry[e.example].client_key",
                "proxy.registry[f.example].client_key",
                "proxy.registry[f.example].client_cert",
                "proxy.registry[D.example].name",
                "proxy.allow[*]",
            ]
        );
    }

    #[test]
    fn what_is_configured_or_well_known_is_allowed() {
        let config = check(
            &[raw("localhost:5000", "")],
            &["*.corp.example".to_owned()],
            no_file,
        )
        .unwrap();
        let allowed = |name: &str| config.allowed(&name.parse().unwrap());
        for name in [
            "localhost:5000",
            "docker.io",
            "ghcr.io",
            "eu.gcr.io",
            "a.b.corp.example",
        ] {
            assert!(allowed(name), "{name}");
        }
        for name in [
            "localhost:5001",
            "localhost",
            "evil.example",
            "corp.example",
            "ghcr.io:8443",
            "xghcr.io",
        ] {
            assert!(!allowed(name), "{name}");
        }
    }
}
