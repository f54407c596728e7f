//! Who takes part: host ids, roles, addresses.

use std::{fmt, net::SocketAddr, str::FromStr};

/// The name of a host in its cluster: a DNS label, since it is one in its certificate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(String);

/// What a host may do for its cluster. A role comes from the certificate, never from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Proxy,
    Seed,
    Scheduler,
    Manager,
}

/// The roles of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

/// A host and where its peer server is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    pub id: HostId,
    pub address: SocketAddr,
}

/// Why a text names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("a host id is a DNS label: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")]
    Id,
    #[error("a host is written id@address:port, as in node-1@10.0.0.5:65002")]
    Host,
}

// === impl HostId ===

impl HostId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostId {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let shaped = (1..=63).contains(&text.len()) && text.bytes().all(letters);
        if !shaped || text.starts_with('-') || text.ends_with('-') {
            return Err(HostError::Id);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Role ===

impl Role {
    pub const ALL: [Self; 4] = [Self::Proxy, Self::Seed, Self::Scheduler, Self::Manager];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Seed => "seed",
            Self::Scheduler => "scheduler",
            Self::Manager => "manager",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Proxy => 1,
            Self::Seed => 2,
            Self::Scheduler => 4,
            Self::Manager => 8,
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| {
            format!("`{text}` is no role; the roles are manager, scheduler, seed, proxy")
        })
    }
}

// === impl Roles ===

impl Roles {
    pub fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL
            .into_iter()
            .filter(move |role| self.contains(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

// === impl Host ===

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let (id, address) = text.split_once('@').ok_or(HostError::Host)?;
        let address = address.parse().map_err(|_| HostError::Host)?;
        Ok(Self {
            id: id.parse()?,
            address,
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<&str, HostError>) {
        let parsed = text.parse::<Host>().map(|host| host.to_string());
        assert_eq!(parsed, expect.map(str::to_owned), "{text}");
    }

    #[test]
    fn a_host_is_an_id_at_an_address() {
        check("node-1@10.0.0.5:65002", Ok("node-1@10.0.0.5:65002"));
        check("a@[::1]:1", Ok("a@[::1]:1"));
        check("node-1", Err(HostError::Host));
        check("node-1@localhost:65002", Err(HostError::Host));
        check("Node@10.0.0.5:1", Err(HostError::Id));
        check("-a@10.0.0.5:1", Err(HostError::Id));
        check("a.b@10.0.0.5:1", Err(HostError::Id));
        check("@10.0.0.5:1", Err(HostError::Id));
    }

    #[test]
    fn roles_are_a_set() {
        let roles: Roles = [Role::Seed, Role::Proxy, Role::Seed].into_iter().collect();
        assert_eq!(roles.iter().collect::<Vec<_>>(), [Role::Proxy, Role::Seed]);
        assert!(!roles.contains(Role::Scheduler));
    }
}
