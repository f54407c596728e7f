//! How a token registry is made, before it runs.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use super::{Door, Scheme};

/// How an instance is made; what changes later is in [`Rules`].
#[derive(Debug, Clone)]
pub struct Settings {
    pub service: String,
    pub scheme: Scheme,
    pub ping: Ping,
    pub token_form: TokenForm,
    pub blobs: Blobs,
    /// How the registry and its storage host are reached.
    pub transport: Transport,
    pub realm_transport: Transport,
    /// Where the doors are; one that is not named is at some port of 127.0.0.1.
    pub places: BTreeMap<Door, SocketAddr>,
    /// What its certificate names beside these addresses.
    pub names: Vec<String>,
}

/// What `/v2/` answers without a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ping {
    Challenge,
    Open,
}

/// What a token looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenForm {
    Opaque,
    /// An unsigned JWT (RFC 7519, section 6) with the usual claims.
    Jwt,
}

/// Where the bytes of blobs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blobs {
    /// From the storage host, where a 307 leads.
    Redirected,
    /// From the registry.
    Served,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Plain,
    Tls,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            service: "registry.test".to_owned(),
            scheme: Scheme::Bearer,
            ping: Ping::Challenge,
            token_form: TokenForm::Opaque,
            blobs: Blobs::Redirected,
            transport: Transport::Tls,
            realm_transport: Transport::Tls,
            places: BTreeMap::new(),
            names: Vec::new(),
        }
    }
}

impl Settings {
    pub(super) fn place(&self, door: Door) -> SocketAddr {
        let named = self.places.get(&door);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        named.copied().unwrap_or(any)
    }

    pub(super) fn transport_of(&self, door: Door) -> Transport {
        match door {
            Door::Registry | Door::Storage => self.transport,
            Door::Realm => self.realm_transport,
        }
    }
}

// === impl Transport ===

impl Transport {
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Tls => "https",
        }
    }
}
