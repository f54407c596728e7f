//! Resolves names to the addresses that may be connected to, and to no others.
//!
//! The connector takes what is given here as it is, so a name that is answered differently the
//! next time (rebinding) gains nothing: what was judged is what is dialled.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::{AddressClass, Trust, judge};

/// Turns host names into addresses.
pub trait Names: Send + Sync + 'static {
    fn addresses(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The names that the operating system knows.
#[derive(Debug, Clone, Copy)]
pub struct SystemNames;

/// A name that leads only where a connection may not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is {class}")]
pub(super) struct ForbiddenName {
    pub(super) host: String,
    pub(super) class: AddressClass,
}

/// How far a registry's redirects and token server are trusted: as far as its endpoint is away.
#[derive(Debug, Default)]
pub(super) struct Reach {
    private: AtomicBool,
}

/// Resolves for the connector.
pub(super) struct JudgedNames {
    pub(super) names: Arc<dyn Names>,
    pub(super) rule: Rule,
}

/// Which addresses a name may lead to.
#[derive(Clone)]
pub(super) enum Rule {
    /// The names that the operator wrote down. A private address is fine; a loopback one only
    /// for a name that says so.
    Written {
        endpoint_host: String,
        reach: Arc<Reach>,
    },
    /// Every other name.
    Found { reach: Arc<Reach> },
    /// The proxy before the upstreams, and nothing else: what lies behind it has no address here.
    Proxy,
}

// === impl SystemNames ===

impl Names for SystemNames {
    fn addresses(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

// === impl Reach ===

impl Reach {
    pub(super) fn trust(&self) -> Trust {
        if self.private.load(Ordering::Relaxed) {
            Trust::Private
        } else {
            Trust::Global
        }
    }

    /// Notes that the registry's endpoint is at `address`.
    pub(super) fn endpoint_is_at(&self, address: IpAddr) {
        self.private.store(
            AddressClass::of(address) == AddressClass::Private,
            Ordering::Relaxed,
        );
    }
}

// === impl JudgedNames ===

impl Resolve for JudgedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_ascii_lowercase();
        let found = self.names.addresses(host.clone());
        let rule = self.rule.clone();
        Box::pin(async move {
            let addresses = rule.judge(&host, &found.await?)?;
            let addresses: Addrs = Box::new(
                addresses
                    .into_iter()
                    .map(|address| SocketAddr::new(address, 0)),
            );
            Ok(addresses)
        })
    }
}

// === impl Rule ===

impl Rule {
    /// The addresses of `found` that may be connected to. When there is none, for what they are.
    fn judge(&self, host: &str, found: &[IpAddr]) -> Result<Vec<IpAddr>, ForbiddenName> {
        let trust = match self {
            Self::Written { .. } | Self::Proxy if is_local_name(host) => Trust::Loopback,
            Self::Written { .. } | Self::Proxy => Trust::Private,
            Self::Found { reach } => reach.trust(),
        };
        let mut judged = Vec::new();
        let mut refused = None;
        for address in found {
            match judge(*address, trust) {
                Ok(()) => judged.push(*address),
                Err(class) => refused = Some(class),
            }
        }
        if let (true, Some(class)) = (judged.is_empty(), refused) {
            return Err(ForbiddenName {
                host: host.to_owned(),
                class,
            });
        }
        if let (
            Self::Written {
                endpoint_host,
                reach,
            },
            Some(first),
        ) = (self, judged.first())
            && endpoint_host == host
        {
            reach.endpoint_is_at(*first);
        }
        Ok(judged)
    }
}

impl fmt::Debug for JudgedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JudgedNames")
    }
}

/// `localhost` and the names under it mean the loopback (RFC 6761, section 6.3).
pub(super) fn is_local_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: &Rule, host: &str, found: &[&str], expect: Result<&[&str], AddressClass>) {
        let found: Vec<IpAddr> = found
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let seen = rule
            .judge(host, &found)
            .map_err(|forbidden| forbidden.class);
        let expect = expect.map(|list| {
            list.iter()
                .map(|address| address.parse().unwrap())
                .collect()
        });
        assert_eq!(seen, expect, "{host}");
    }

    fn written(reach: &Arc<Reach>) -> Rule {
        Rule::Written {
            endpoint_host: "r.corp".to_owned(),
            reach: Arc::clone(reach),
        }
    }

    #[test]
    fn a_found_name_leads_to_global_addresses_alone() {
        let rule = Rule::Found {
            reach: Arc::default(),
        };
        check(
            &rule,
            "a.example",
            &["10.0.0.1", "1.1.1.1", "::1"],
            Ok(&["1.1.1.1"]),
        );
        check(
            &rule,
            "a.example",
            &["10.0.0.1"],
            Err(AddressClass::Private),
        );
        check(
            &rule,
            "localhost",
            &["127.0.0.1"],
            Err(AddressClass::Loopback),
        );
        check(&rule, "nowhere.example", &[], Ok(&[]));
    }

    #[test]
    fn a_written_name_may_be_private_and_must_say_that_it_is_local() {
        let rule = written(&Arc::default());
        check(&rule, "r.corp", &["10.0.0.1"], Ok(&["10.0.0.1"]));
        check(&rule, "r.corp", &["127.0.0.1"], Err(AddressClass::Loopback));
        check(
            &rule,
            "localhost",
            &["127.0.0.1", "::1"],
            Ok(&["127.0.0.1", "::1"]),
        );
        check(&rule, "r.localhost", &["::1"], Ok(&["::1"]));
        check(
            &rule,
            "r.corp",
            &["169.254.169.254"],
            Err(AddressClass::Metadata),
        );
    }

    #[test]
    fn a_private_endpoint_trusts_private_neighbours() {
        let reach = Arc::default();
        let found = Rule::Found {
            reach: Arc::clone(&reach),
        };
        check(
            &found,
            "store.corp",
            &["10.0.0.2"],
            Err(AddressClass::Private),
        );
        check(&written(&reach), "r.corp", &["10.0.0.1"], Ok(&["10.0.0.1"]));
        check(&found, "store.corp", &["10.0.0.2"], Ok(&["10.0.0.2"]));
        check(&written(&reach), "r.corp", &["1.1.1.1"], Ok(&["1.1.1.1"]));
        check(
            &found,
            "store.corp",
            &["10.0.0.2"],
            Err(AddressClass::Private),
        );
    }
}
