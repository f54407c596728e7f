//! Pure: what becomes of a connection that is meant for another host: by the host that the client
//! asked for, and then by the one that its ClientHello names.
//!
//! Intercepted is what the operator named and may be asked at all; everything else is passed on as
//! it is, or refused. Which addresses may be connected to is not decided here.

use std::{fmt, net::SocketAddr};

use http::uri::Authority;
use protocol::RegistryName;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use swarm::source::{self, ClientPlace, Pattern};

use super::hello::{Hello, Opening};

/// Whose connections to other hosts are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelFor {
    /// Nobody's.
    None,
    /// Those of clients on this host.
    Local,
    /// Everybody's who reaches the proxy.
    Any,
}

/// Which hosts are intercepted, and who may go elsewhere.
#[derive(Debug, Clone)]
pub struct Rules {
    pub(crate) intercept: Intercepted,
    pub(crate) tunnel: TunnelFor,
    pub(crate) tunnel_ports: Vec<u16>,
}

/// The registries whose HTTPS is answered here.
#[derive(Debug, Clone, Default)]
pub struct Intercepted {
    names: Vec<RegistryName>,
    patterns: Vec<Pattern>,
}

/// A host as a client asks for it: a name in lower case, or an address without brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What is done with a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    Intercept(RegistryName),
    Tunnel,
    Refuse(RefusedWay),
}

/// Why a CONNECT is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedWay {
    #[error("the port is not one of proxy.tunnel_ports")]
    Port,
    #[error("proxy.tunnel passes nothing on for clients of other hosts")]
    Elsewhere,
    #[error("proxy.tunnel passes nothing on but what proxy.intercept names")]
    Nothing,
}

/// As what a client is answered that has said whom it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) registry: RegistryName,
    pub(crate) place: Place,
    /// What the certificate must name.
    pub(crate) name: ServerName<'static>,
}

const HTTPS_PORT: u16 = 443;

/// The names by which clients reach Docker Hub's registry.
const DOCKER_HUB_HOSTS: [&str; 2] = ["registry-1.docker.io", "index.docker.io"];

/// The names and addresses that a server of `registry` may prove to be.
pub fn server_names(registry: &RegistryName) -> Vec<ServerName<'static>> {
    let own = [registry.host()];
    let hosts: &[&str] = match registry.as_str() {
        "docker.io" => &DOCKER_HUB_HOSTS,
        _ => &own,
    };
    hosts.iter().filter_map(|host| server_name(host)).collect()
}

fn server_name(host: &str) -> Option<ServerName<'static>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned()).ok()
}

// === impl Rules ===

impl Rules {
    /// What is done with a CONNECT to `place`.
    pub(crate) fn way(&self, place: &Place, client: ClientPlace, source: &source::Config) -> Way {
        if let Some(served) = self.served(place, source) {
            return Way::Intercept(served.registry);
        }
        match (self.tunnel, client) {
            (TunnelFor::None, _) => Way::Refuse(RefusedWay::Nothing),
            (TunnelFor::Local, ClientPlace::Elsewhere) => Way::Refuse(RefusedWay::Elsewhere),
            (TunnelFor::Local | TunnelFor::Any, _) => {
                if self.tunnel_ports.contains(&place.port) {
                    Way::Tunnel
                } else {
                    Way::Refuse(RefusedWay::Port)
                }
            }
        }
    }

    /// As what a client is answered that asked for `place` and began with `opening`; `None` where
    /// it is passed on untouched. A redirected client has asked for an address, and for nothing
    /// else unless its ClientHello names it.
    pub(crate) fn opened(
        &self,
        place: &Place,
        opening: &Opening,
        source: &source::Config,
    ) -> Option<Served> {
        let Opening::Tls(Hello { sni, has_ech, .. }) = opening else {
            return None;
        };
        if *has_ech {
            return None;
        }
        match sni {
            Some(name) => {
                let named = Place {
                    host: name.clone(),
                    port: place.port,
                };
                self.served(&named, source)
            }
            None => self.served(place, source),
        }
    }

    fn served(&self, place: &Place, source: &source::Config) -> Option<Served> {
        let registry = place.registry()?;
        let name = server_name(&place.host)?;
        let holds = self.intercept.matches(&registry)
            && source.allowed(&registry)
            && server_names(&registry).contains(&name);
        holds.then(|| Served {
            registry,
            place: place.clone(),
            name,
        })
    }
}

// === impl Intercepted ===

impl Intercepted {
    /// Reads `texts`, each a registry or a pattern of registries; the registries must be ones that
    /// `source` allows.
    pub(crate) fn check(texts: &[String], source: &source::Config) -> Result<Self, Vec<String>> {
        let mut intercepted = Self::default();
        let mut problems = Vec::new();
        for text in texts {
            if text.contains('*') {
                match text.parse() {
                    Ok(pattern) => intercepted.patterns.push(pattern),
                    Err(error) => problems.push(format!("{text:?}: {error}")),
                }
                continue;
            }
            match text.parse::<RegistryName>() {
                Ok(name) if source.allowed(&name) => intercepted.names.push(name),
                Ok(name) => problems.push(format!(
                    "{name} is not a registry that may be asked: give it a [[proxy.registry]] or \
                     allow it"
                )),
                Err(error) => problems.push(format!("{text:?}: {error}")),
            }
        }
        if problems.is_empty() {
            Ok(intercepted)
        } else {
            Err(problems)
        }
    }

    /// Those that are named outright.
    pub fn names(&self) -> &[RegistryName] {
        &self.names
    }

    pub fn matches(&self, registry: &RegistryName) -> bool {
        self.names.contains(registry) || self.patterns.iter().any(|one| one.matches(registry))
    }
}

// === impl Place ===

impl Place {
    /// The authority of a CONNECT has a port (RFC 9110 section 9.3.6).
    pub(crate) fn of(authority: &Authority) -> Option<Self> {
        let host = authority.host();
        let has_user = authority.as_str().contains('@');
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().filter(|port| *port != 0)?;
        (!has_user && !host.is_empty()).then(|| Self {
            host: host.trim_end_matches('.').to_ascii_lowercase(),
            port,
        })
    }

    /// The registry that image names would spell like this.
    fn registry(&self) -> Option<RegistryName> {
        self.authority().parse().ok()
    }

    /// As it stands in an `https` address.
    pub(crate) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            HTTPS_PORT => host,
            port => format!("{host}:{port}"),
        }
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_canonical().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm::source::RawRegistry;

    use super::*;

    fn source() -> source::Config {
        let registry = RawRegistry {
            name: "registry.corp:5000".to_owned(),
            ..RawRegistry::default()
        };
        let by_address = RawRegistry {
            name: "[fd00::7]:5000".to_owned(),
            ..RawRegistry::default()
        };
        let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        source::check(
            &[registry, by_address],
            &["*.corp.example".to_owned()],
            none,
        )
        .unwrap()
    }

    fn rules(tunnel: TunnelFor) -> Rules {
        let named = [
            "docker.io",
            "ghcr.io",
            "registry.corp:5000",
            "[fd00::7]:5000",
            "*.corp.example",
            "*.other.example",
        ];
        Rules {
            intercept: Intercepted::check(&named.map(str::to_owned), &source()).unwrap(),
            tunnel,
            tunnel_ports: vec![443, 8443],
        }
    }

    fn place(text: &str) -> Place {
        Place::of(&text.parse().unwrap()).unwrap()
    }

    #[track_caller]
    fn way(authority: &str, client: ClientPlace, expect: Result<&str, RefusedWay>) {
        way_by(TunnelFor::Local, authority, client, expect);
    }

    #[track_caller]
    fn way_by(
        tunnel: TunnelFor,
        authority: &str,
        client: ClientPlace,
        expect: Result<&str, RefusedWay>,
    ) {
        let seen = rules(tunnel).way(&place(authority), client, &source());
        let expect = match expect {
            Ok("") => Way::Tunnel,
            Ok(name) => Way::Intercept(name.parse().unwrap()),
            Err(refused) => Way::Refuse(refused),
        };
        assert_eq!(seen, expect, "{authority} {client:?} {tunnel:?}");
    }

    #[test]
    fn what_is_named_is_intercepted_whoever_asks() {
        use ClientPlace::{Elsewhere, Local};
        for tunnel in [TunnelFor::None, TunnelFor::Local, TunnelFor::Any] {
            way_by(tunnel, "ghcr.io:443", Elsewhere, Ok("ghcr.io"));
        }
        way("GHCR.io.:443", Local, Ok("ghcr.io"));
        way("registry-1.docker.io:443", Local, Ok("docker.io"));
        way("index.docker.io:443", Local, Ok("docker.io"));
        way("registry.corp:5000", Local, Ok("registry.corp:5000"));
        way("[FD00::7]:5000", Local, Ok("[fd00::7]:5000"));
        way("a.corp.example:443", Local, Ok("a.corp.example"));
    }

    #[test]
    fn everything_else_is_passed_on_or_refused() {
        use ClientPlace::{Elsewhere, Local};
        way("quay.io:443", Local, Ok(""));
        way("auth.docker.io:443", Local, Ok(""));
        way("docker.io:443", Local, Ok(""));
        way("ghcr.io:8443", Local, Ok(""));
        way("a.other.example:443", Local, Ok(""));
        way("example.com:443", Elsewhere, Err(RefusedWay::Elsewhere));
        way("example.com:22", Local, Err(RefusedWay::Port));
        way("ghcr.io:80", Local, Err(RefusedWay::Port));
        way_by(TunnelFor::Any, "example.com:443", Elsewhere, Ok(""));
        let nothing = Err(RefusedWay::Nothing);
        way_by(TunnelFor::None, "example.com:443", Local, nothing);
    }

    #[track_caller]
    fn opened(asked: &str, sni: Option<&str>, has_ech: bool, expect: Option<(&str, &str)>) {
        let opening = Opening::Tls(Hello {
            sni: sni.map(str::to_owned),
            has_ech,
            shape: 0,
        });
        let seen = rules(TunnelFor::Any).opened(&place(asked), &opening, &source());
        let seen = seen.map(|served| {
            let name = served.name.to_str().into_owned();
            (served.registry.to_string(), name)
        });
        let expect = expect.map(|(registry, name)| (registry.to_owned(), name.to_owned()));
        assert_eq!(seen, expect, "{asked} {sni:?}");
    }

    #[test]
    fn the_name_in_the_hello_decides_and_without_one_the_authority() {
        let hub = Some(("docker.io", "registry-1.docker.io"));
        let hub_name = Some("registry-1.docker.io");
        opened("registry-1.docker.io:443", hub_name, false, hub);
        opened("registry-1.docker.io:443", None, false, hub);
        opened(
            "[fd00::7]:5000",
            None,
            false,
            Some(("[fd00::7]:5000", "fd00::7")),
        );
        opened(
            "ghcr.io:443",
            Some("a.corp.example"),
            false,
            Some(("a.corp.example", "a.corp.example")),
        );
        opened("ghcr.io:443", Some("evil.example"), false, None);
        opened("ghcr.io:443", Some("ghcr.io"), true, None);
        opened("140.82.1.1:443", None, false, None);
        opened("140.82.1.1:443", Some("example.com"), false, None);
        opened(
            "140.82.1.1:443",
            Some("ghcr.io"),
            false,
            Some(("ghcr.io", "ghcr.io")),
        );
    }

    #[test]
    fn what_is_not_tls_is_passed_on() {
        for opening in [Opening::Other, Opening::Incomplete] {
            let seen = rules(TunnelFor::Any).opened(&place("ghcr.io:443"), &opening, &source());
            assert_eq!(seen, None);
        }
    }

    #[test]
    fn only_registries_that_may_be_asked_can_be_named() {
        let check = |text: &str| Intercepted::check(&[text.to_owned()], &source()).is_ok();
        assert!(check("quay.io"));
        assert!(check("registry.corp:5000"));
        for bad in ["evil.example", "registry.corp", "", "a b", "*", "*.example"] {
            assert!(!check(bad), "{bad}");
        }
    }

    #[test]
    fn an_authority_without_a_port_or_with_a_user_is_no_place() {
        for bad in ["ghcr.io", "u@ghcr.io:443", "ghcr.io:0"] {
            let authority: Authority = bad.parse().unwrap();
            assert_eq!(Place::of(&authority), None, "{bad}");
        }
        assert_eq!(place("[::1]:443").to_string(), "[::1]:443");
        assert_eq!(place("[::1]:443").authority(), "[::1]");
        assert_eq!(place("a:5000").authority(), "a:5000");
    }
}
