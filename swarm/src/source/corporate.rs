//! Pure: which requests go through the HTTP proxy that stands before the upstreams, and which by
//! themselves.
//!
//! Invariant: what is meant for this host (loopback addresses, and `localhost` with the names under
//! it) never goes to a proxy. A proxy's password stands in no error and no log.

use std::{fmt, net::IpAddr, sync::Arc};

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use url::{Host, Url};

use super::{credential::Credential, resolve::is_local_name};

/// Proxies as the configuration or the environment has them; empty where there is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyTexts {
    /// For `https` URLs, and for `http` ones.
    pub https: String,
    pub http: String,
    /// What is asked directly: names with all below them, addresses and networks, by commas.
    pub no: String,
    /// `user:password`; where it is empty, what stands in the URLs.
    pub credentials: String,
}

/// The proxy before the upstreams. Cheap to clone.
#[derive(Clone)]
pub struct UpstreamProxy {
    by_scheme: [Option<OneProxy>; 2],
    rules: Arc<Matcher>,
}

#[derive(Clone)]
struct OneProxy {
    url: Url,
    authorization: Option<HeaderValue>,
}

const NO_URL: &str = "must be http://host[:port] or https://host[:port]";

// === impl ProxyTexts ===

impl fmt::Debug for ProxyTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyTexts(hidden)")
    }
}

// === impl UpstreamProxy ===

impl UpstreamProxy {
    /// `None` where no proxy is named; what is wrong with one if it is no URL of one.
    pub fn new(texts: &ProxyTexts) -> Result<Option<Self>, &'static str> {
        let one = |text: &str| match text.trim() {
            "" => Ok(None),
            text => OneProxy::parse(text, &texts.credentials).map(Some),
        };
        let by_scheme = [one(&texts.https)?, one(&texts.http)?];
        if by_scheme.iter().all(Option::is_none) {
            return Ok(None);
        }
        let text = |one: &Option<OneProxy>| match one {
            Some(one) => one.url.to_string(),
            None => String::new(),
        };
        let rules = Matcher::builder()
            .https(text(&by_scheme[0]))
            .http(text(&by_scheme[1]))
            .no(texts.no.clone())
            .build();
        Ok(Some(Self {
            by_scheme,
            rules: Arc::new(rules),
        }))
    }

    /// Where the proxies are.
    pub fn urls(&self) -> impl Iterator<Item = &Url> {
        self.by_scheme.iter().flatten().map(|one| &one.url)
    }

    /// Whether a request for `url` goes there.
    pub(super) fn takes(&self, url: &Url) -> bool {
        let is_here = match url.host() {
            Some(Host::Domain(name)) => is_local_name(name),
            Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
            None => true,
        };
        let uri = url.as_str().parse::<Uri>();
        !is_here && uri.is_ok_and(|uri| self.rules.intercept(&uri).is_some())
    }

    /// The same for the client, which is given nothing else than what is taken.
    pub(super) fn for_client(&self) -> Result<Vec<reqwest::Proxy>, reqwest::Error> {
        let makers = [reqwest::Proxy::https, reqwest::Proxy::http];
        let named = self.by_scheme.iter().zip(makers);
        named
            .filter_map(|(one, make)| one.as_ref().map(|one| (one, make)))
            .map(|(one, make)| {
                let proxy = make(one.url.clone())?;
                Ok(match &one.authorization {
                    Some(authorization) => proxy.custom_http_auth(authorization.clone()),
                    None => proxy,
                })
            })
            .collect()
    }
}

impl fmt::Debug for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.urls().map(Url::as_str))
            .finish()
    }
}

// === impl OneProxy ===

impl OneProxy {
    fn parse(text: &str, credentials: &str) -> Result<Self, &'static str> {
        // Many write the variable without a scheme.
        let text = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let mut url = Url::parse(&text).map_err(|_| NO_URL)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !is_bare {
            return Err(NO_URL);
        }
        let decoded = |text: &str| {
            let bytes = percent_encoding::percent_decode_str(text);
            bytes.decode_utf8_lossy().into_owned()
        };
        let inside = format!(
            "{}:{}",
            decoded(url.username()),
            decoded(url.password().unwrap_or_default())
        );
        let who = match credentials {
            "" => inside,
            credentials => credentials.to_owned(),
        };
        let hidden = "has a user that cannot be taken off";
        url.set_username("").map_err(|()| hidden)?;
        url.set_password(None).map_err(|()| hidden)?;
        let authorization = Credential::basic(&who).map(|login| login.header().clone());
        Ok(Self { url, authorization })
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    use super::*;

    fn proxy(https: &str, http: &str, no: &str) -> Result<Option<UpstreamProxy>, &'static str> {
        UpstreamProxy::new(&ProxyTexts {
            https: https.to_owned(),
            http: http.to_owned(),
            no: no.to_owned(),
            credentials: String::new(),
        })
    }

    #[track_caller]
    fn takes(proxy: &UpstreamProxy, url: &str, expect: bool) {
        assert_eq!(proxy.takes(&Url::parse(url).unwrap()), expect, "{url}");
    }

    #[test]
    fn all_goes_there_but_what_is_excepted_and_what_is_here() {
        let no = "corp.example, 10.0.0.0/8";
        let proxy = proxy("http://p:3128", "http://p:3128", no)
            .unwrap()
            .unwrap();
        takes(&proxy, "https://ghcr.io/v2/", true);
        takes(&proxy, "http://r.example:5000/", true);
        takes(&proxy, "https://192.168.0.1/", true);
        takes(&proxy, "https://r.corp.example/", false);
        takes(&proxy, "https://10.1.2.3/", false);
        for here in [
            "http://localhost:5000/",
            "http://r.localhost/",
            "http://127.0.0.1:5000/",
            "http://127.8.8.8/",
            "http://[::1]:5000/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            takes(&proxy, here, false);
        }
    }

    #[test]
    fn each_scheme_has_its_own() {
        let proxy = proxy("p:3128", "", "").unwrap().unwrap();
        takes(&proxy, "https://ghcr.io/", true);
        takes(&proxy, "http://ghcr.io/", false);
        assert!(self::proxy("", " ", "x").unwrap().is_none());
    }

    #[test]
    fn what_is_no_proxy_is_told_and_what_it_hides_is_not() {
        for bad in [
            "socks5://p:1",
            "http://",
            "http://p/path",
            "http://u:secret@p/x",
        ] {
            assert_eq!(proxy(bad, "", "").err(), Some(NO_URL), "{bad}");
        }
        let with_user = proxy("http://u:s%20ecret@p:3128", "", "").unwrap().unwrap();
        let shown = format!("{with_user:?} {:?}", with_user.for_client());
        assert!(!shown.contains("ecret"), "{shown}");
        let one = with_user.by_scheme[0].as_ref().unwrap();
        let expect = format!("Basic {}", BASE64_STANDARD.encode("u:s ecret"));
        assert_eq!(
            one.authorization.as_ref().unwrap().to_str().unwrap(),
            expect
        );
    }
}
