//! Pure: for which names and addresses a local authority can speak, and where it is kept.
//!
//! Invariant: an authority is limited in DNS names *and* in addresses. One that is limited in names
//! alone could still speak for every address, and the other way round.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use protocol::RegistryName;
use proxy::{Owner, intercept::server_names};
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use rustls_pki_types::ServerName;

/// All names and addresses that one authority can speak for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Permitted {
    pub(super) names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
}

/// The directory of the authority for the loopback names: no registry can be called so.
const LOOPBACK_DIRECTORY: &str = "@loopback";

/// The loopback names, as a person types them.
const LOOPBACK_NAMES: [&str; 4] = ["loopback", "localhost", "127.0.0.1", "::1"];

/// Whom a person means that types `text`.
pub(super) fn owner(text: &str) -> anyhow::Result<Owner> {
    if LOOPBACK_NAMES.contains(&text) || text == LOOPBACK_DIRECTORY {
        return Ok(Owner::Loopback);
    }
    let name = text.parse::<RegistryName>();
    Ok(Owner::Registry(name.with_context(|| format!("{text:?}"))?))
}

/// What its directory is called.
pub(super) fn directory(owner: &Owner) -> &str {
    match owner {
        Owner::Registry(name) => name.as_str(),
        Owner::Loopback => LOOPBACK_DIRECTORY,
    }
}

// === impl Permitted ===

impl Permitted {
    pub(super) fn of(owner: &Owner) -> Self {
        let mut permitted = Self::default();
        match owner {
            Owner::Loopback => {
                permitted.names.push("localhost".to_owned());
                permitted.addresses.push(Ipv4Addr::LOCALHOST.into());
                permitted.addresses.push(Ipv6Addr::LOCALHOST.into());
            }
            Owner::Registry(registry) => {
                for name in server_names(registry) {
                    match name {
                        ServerName::IpAddress(address) => permitted.addresses.push(address.into()),
                        other => permitted.names.push(other.to_str().into_owned()),
                    }
                }
            }
        }
        permitted
    }

    pub(super) fn holds(&self, name: &ServerName<'_>) -> bool {
        match name {
            ServerName::IpAddress(address) => self.addresses.contains(&IpAddr::from(*address)),
            other => self.names.iter().any(|name| *name == other.to_str()),
        }
    }

    /// The same, as the certificate says it (RFC 5280 section 4.2.1.10).
    pub(super) fn constraints(&self) -> NameConstraints {
        let name = |name: &String| GeneralSubtree::DnsName(name.clone());
        // A permitted name has all that are below it too; those are taken away again.
        let below = |name: &String| GeneralSubtree::DnsName(format!(".{name}"));
        let subnet = |address: &IpAddr| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, bits))
        };
        let mut constraints = NameConstraints {
            permitted_subtrees: self.names.iter().map(name).collect(),
            excluded_subtrees: self.names.iter().map(below).collect(),
        };
        let addresses = self.addresses.iter().map(subnet);
        constraints.permitted_subtrees.extend(addresses);
        if self.addresses.is_empty() {
            constraints.excluded_subtrees.extend([
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ]);
        }
        if self.names.is_empty() {
            // The empty name stands above all names.
            let all = GeneralSubtree::DnsName(String::new());
            constraints.excluded_subtrees.push(all);
        }
        constraints
    }

    /// For a person.
    pub(super) fn told(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let all: Vec<_> = self.names.iter().cloned().chain(addresses).collect();
        all.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, names: &[&str], addresses: &[&str]) {
        let permitted = Permitted::of(&owner(text).unwrap());
        let seen: Vec<_> = permitted.addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(
            (permitted.names, seen),
            (
                names.iter().map(|name| (*name).to_owned()).collect(),
                addresses.iter().map(|one| (*one).to_owned()).collect(),
            )
        );
    }

    #[test]
    fn an_authority_speaks_for_the_names_of_its_registry_alone() {
        check("ghcr.io", &["ghcr.io"], &[]);
        check("Registry.Corp:5000", &["registry.corp"], &[]);
        let hub = ["registry-1.docker.io", "index.docker.io"];
        check("docker.io", &hub, &[]);
        check("10.0.0.7:5000", &[], &["10.0.0.7"]);
        check("[fd00::7]:5000", &[], &["fd00::7"]);
        for loopback in LOOPBACK_NAMES {
            check(loopback, &["localhost"], &["127.0.0.1", "::1"]);
        }
        assert!(owner("a/b").is_err());
        assert!(owner("../x").is_err());
    }

    #[test]
    fn what_is_not_permitted_is_excluded_in_names_and_in_addresses() {
        let text = |owner_text: &str| {
            let constraints = Permitted::of(&owner(owner_text).unwrap()).constraints();
            let told = |tree: &GeneralSubtree| match tree {
                GeneralSubtree::DnsName(name) => format!("dns:{name}"),
                GeneralSubtree::IpAddress(CidrSubnet::V4(address, mask)) => {
                    format!("ip:{}/{}", Ipv4Addr::from(*address), Ipv4Addr::from(*mask))
                }
                GeneralSubtree::IpAddress(CidrSubnet::V6(address, mask)) => {
                    format!("ip:{}/{}", Ipv6Addr::from(*address), Ipv6Addr::from(*mask))
                }
                other => panic!("{other:?}"),
            };
            let list = |trees: &[GeneralSubtree]| trees.iter().map(told).collect::<Vec<_>>();
            let permitted = list(&constraints.permitted_subtrees).join(" ");
            (permitted, list(&constraints.excluded_subtrees).join(" "))
        };
        let pair = |permitted: &str, excluded: &str| (permitted.to_owned(), excluded.to_owned());
        assert_eq!(
            text("ghcr.io"),
            pair("dns:ghcr.io", "dns:.ghcr.io ip:0.0.0.0/0.0.0.0 ip:::/::")
        );
        assert_eq!(
            text("10.0.0.7:5000"),
            pair("ip:10.0.0.7/255.255.255.255", "dns:")
        );
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(
            text("localhost"),
            pair(
                &format!("dns:localhost ip:127.0.0.1/255.255.255.255 ip:::1/{all}"),
                "dns:.localhost"
            )
        );
    }
}
