//! Pure: which HTTP proxy stands before the upstreams: the one of the configuration, else the one of
//! the environment, and never this mirror itself.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use swarm::source::{ProxyTexts, UpstreamProxy};
use url::{Host, Url};

use crate::config::{ConfigError, RawConfig};

/// The proxy, and what is to be said of one that is not used.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) proxy: Option<UpstreamProxy>,
    pub(crate) warning: Option<String>,
}

const ITSELF: &str = "is this mirror itself";

/// What `raw` says, and `environment` where it says nothing.
pub(crate) fn choose(
    raw: &RawConfig,
    environment: &ProxyTexts,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Chosen, Vec<ConfigError>> {
    let at = |key: &str, problem: String| ConfigError {
        key: format!("proxy.{key}"),
        problem,
    };
    if raw.upstream_proxy.is_empty() {
        let alone = [
            ("upstream_no_proxy", raw.upstream_no_proxy.is_empty()),
            (
                "upstream_proxy_credentials",
                raw.upstream_proxy_credentials.as_os_str().is_empty(),
            ),
        ];
        let told = alone.iter().filter(|(_, is_empty)| !is_empty);
        let told: Vec<_> = told
            .map(|(key, _)| at(key, "is of no use without upstream_proxy".to_owned()))
            .collect();
        return match told.is_empty() {
            true => Ok(from_environment(raw, environment)),
            false => Err(told),
        };
    }
    let path = &raw.upstream_proxy_credentials;
    let credentials =
        credentials(path, read).map_err(|told| vec![at("upstream_proxy_credentials", told)])?;
    let texts = ProxyTexts {
        https: raw.upstream_proxy.clone(),
        http: raw.upstream_proxy.clone(),
        no: raw.upstream_no_proxy.join(","),
        credentials,
    };
    let told = |told: &str| vec![at("upstream_proxy", told.to_owned())];
    // A password in this file would be shown by `check-config`.
    if raw.upstream_proxy.contains('@') {
        return Err(told(
            "must have no user; name a file in upstream_proxy_credentials",
        ));
    }
    let proxy = UpstreamProxy::new(&texts).map_err(told)?;
    match proxy.as_ref().is_some_and(|proxy| is_itself(raw, proxy)) {
        true => Err(told(ITSELF)),
        false => Ok(Chosen {
            proxy,
            warning: None,
        }),
    }
}

/// An environment is often inherited unseen: one that is of no use stops nobody.
fn from_environment(raw: &RawConfig, environment: &ProxyTexts) -> Chosen {
    let told = match UpstreamProxy::new(environment) {
        Ok(Some(proxy)) if is_itself(raw, &proxy) => ITSELF,
        Ok(proxy) => {
            return Chosen {
                proxy,
                warning: None,
            };
        }
        Err(told) => told,
    };
    Chosen {
        proxy: None,
        warning: Some(format!(
            "the proxy in HTTPS_PROXY or HTTP_PROXY is not used: it {told}"
        )),
    }
}

/// `user:password`, in the first line of a file.
fn credentials(path: &Path, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<String, String> {
    if path.as_os_str().is_empty() {
        return Ok(String::new());
    }
    let told = |told: &str| format!("{} {told}", path.display());
    let bytes = read(path).map_err(|error| told(&format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| told("is no text"))?;
    let line = text.lines().next().unwrap_or_default().trim();
    match line.contains(':') {
        true => Ok(line.to_owned()),
        false => Err(told("does not hold user:password")),
    }
}

/// Whether one of the proxies is where this mirror listens.
fn is_itself(raw: &RawConfig, proxy: &UpstreamProxy) -> bool {
    let own = [raw.listen]
        .into_iter()
        .chain(raw.also_listen.iter().copied());
    let own: Vec<SocketAddr> = own.collect();
    proxy
        .urls()
        .any(|url| own.iter().any(|own| leads_to(url, *own)))
}

fn leads_to(url: &Url, own: SocketAddr) -> bool {
    let is_here = own.ip().is_loopback() || own.ip().is_unspecified();
    let address: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.to_canonical()),
        Some(Host::Domain(name)) if name == "localhost" && is_here => Some(own.ip()),
        Some(Host::Domain(_)) | None => None,
    };
    let is_same = address.is_some_and(|address| {
        address == own.ip() || own.ip().is_unspecified() || (address.is_loopback() && is_here)
    });
    is_same && url.port_or_known_default() == Some(own.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(proxy: &str) -> RawConfig {
        RawConfig {
            upstream_proxy: proxy.to_owned(),
            also_listen: vec!["172.17.0.1:65001".parse().unwrap()],
            ..RawConfig::default()
        }
    }

    fn environment(https: &str) -> ProxyTexts {
        ProxyTexts {
            https: https.to_owned(),
            ..ProxyTexts::default()
        }
    }

    /// Renders what is chosen: the proxies, a warning, or the keys that are wrong.
    #[track_caller]
    fn check(raw: &RawConfig, https: &str, expect: &str) {
        let read = |path: &Path| match path.to_str() {
            Some("good") => Ok(b"u:secret\n".to_vec()),
            Some("bad") => Ok(b"secret".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let seen = match choose(raw, &environment(https), read) {
            Ok(chosen) => {
                let urls = chosen.proxy.iter().flat_map(UpstreamProxy::urls);
                let urls: Vec<&str> = urls.map(Url::as_str).collect();
                let warning = chosen.warning.map_or("", |_| "warned");
                format!("{}{warning}", urls.join(" "))
            }
            Err(told) => {
                let told: Vec<String> = told.iter().map(ToString::to_string).collect();
                assert!(!told.concat().contains("secret"), "{told:?}");
                told.iter()
                    .filter_map(|told| told.split(": ").next())
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        };
        assert_eq!(seen, expect, "{} {https}", raw.upstream_proxy);
    }

    #[test]
    fn the_key_goes_before_the_environment() {
        check(&raw(""), "", "");
        check(&raw(""), "http://e:1", "http://e:1/");
        let both = "http://k:2/ http://k:2/";
        check(&raw("http://k:2"), "http://e:1", both);
    }

    #[test]
    fn this_mirror_is_no_proxy_of_its_own() {
        for own in [
            "http://127.0.0.1:65001",
            "http://localhost:65001",
            "http://[::1]:65001",
            "http://172.17.0.1:65001",
        ] {
            check(&raw(own), "", "proxy.upstream_proxy");
            check(&raw(""), own, "warned");
        }
        let other = "http://127.0.0.1:3128/";
        check(&raw(""), other, other);
    }

    #[test]
    fn what_cannot_be_used_is_told_and_in_the_environment_warned_of() {
        check(&raw("socks5://x:1"), "", "proxy.upstream_proxy");
        check(&raw("http://u:secret@x:1"), "", "proxy.upstream_proxy");
        check(&raw(""), "socks5://u:secret@x:1", "warned");
        let with = |credentials: &str| RawConfig {
            upstream_proxy_credentials: credentials.into(),
            ..raw("http://k:2")
        };
        check(&with("good"), "", "http://k:2/ http://k:2/");
        check(&with("bad"), "", "proxy.upstream_proxy_credentials");
        check(&with("none"), "", "proxy.upstream_proxy_credentials");
        let alone = RawConfig {
            upstream_no_proxy: vec!["x".to_owned()],
            upstream_proxy: String::new(),
            ..with("good")
        };
        let expect = "proxy.upstream_no_proxy proxy.upstream_proxy_credentials";
        check(&alone, "", expect);
    }
}
