//! What a client is told that must say who it is, and the tokens that this proxy gives in answer.
//!
//! A client that names its registry in the path computes the scope of its token with that name in it, so
//! it is sent here for the token, and the question goes on to the registry's own token server. Who says
//! nothing of himself gets a token that says nobody: what is everybody's needs none. The challenges of
//! `ns` and of a forward proxy are the registry's own.

mod scope;
mod token;

use http::{HeaderMap, HeaderValue, header};
use moka::future::Cache;
use protocol::{RegistryName, Repository};
use serde::{Deserialize, Serialize};
use swarm::source::{Credential, Offer};

use crate::{
    answer::Ask,
    client::ClientKind,
    error::{Fault, Refusal},
    route::{Form, TOKEN_PATH},
};

/// What each family of clients is answered to its ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PingChallenges {
    pub docker: PingChallenge,
    pub containers_image: PingChallenge,
    pub go_containerregistry: PingChallenge,
    pub other: PingChallenge,
}

/// What `GET /v2/` is answered to a client that has shown nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PingChallenge {
    /// 401, and tokens are given here.
    Own,
    /// 401, and tokens are given by Docker Hub itself.
    Hub,
    /// 200.
    Off,
}

/// What tokens that were given here stand for.
#[derive(Debug)]
pub(crate) struct Vouchers {
    given: Cache<String, (RegistryName, Credential)>,
}

/// A token that says nobody.
const NOBODY: &str = "darter-nobody";

/// What tokens begin with that stand for a password, which never leaves this process but to its registry.
const VOUCHER: &str = "darter-voucher-";

/// Vouchers that hold at once; the least used go first.
const VOUCHERS_MAX: u64 = 1024;

/// How long a token that was made here holds.
const LIFE: std::time::Duration = std::time::Duration::from_secs(300);

const HUB: &str = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\"";

// === impl PingChallenges ===

impl PingChallenges {
    fn of(&self, client: ClientKind) -> PingChallenge {
        match client {
            ClientKind::Docker => self.docker,
            ClientKind::ContainersImage => self.containers_image,
            ClientKind::GoContainerregistry => self.go_containerregistry,
            ClientKind::Containerd
            | ClientKind::Buildkit
            | ClientKind::Oras
            | ClientKind::Regclient
            | ClientKind::Other => self.other,
        }
    }

    /// The challenge to who pings, if there is one.
    pub(crate) fn to(&self, ask: &Ask, client: ClientKind) -> Option<Refusal> {
        if ask.headers.contains_key(header::AUTHORIZATION) || ask.asker_named_its_registry() {
            return None;
        }
        let challenge = match self.of(client) {
            PingChallenge::Off => return None,
            PingChallenge::Hub => HeaderValue::from_static(HUB),
            PingChallenge::Own => own(ask, None)?,
        };
        let message = "say who you are, or ask for a token that says nobody";
        let refusal = Refusal::new(Fault::Unauthorized, message);
        Some(refusal.with(header::WWW_AUTHENTICATE, challenge))
    }
}

impl Default for PingChallenges {
    fn default() -> Self {
        Self {
            docker: PingChallenge::Off,
            containers_image: PingChallenge::Own,
            go_containerregistry: PingChallenge::Own,
            other: PingChallenge::Off,
        }
    }
}

// === impl Vouchers ===

impl Vouchers {
    pub(crate) fn new() -> Self {
        let given = Cache::builder().max_capacity(VOUCHERS_MAX);
        Self {
            given: given.time_to_live(LIFE).build(),
        }
    }

    /// Whose credential a request for `registry` shows.
    pub(crate) async fn credential(
        &self,
        headers: &HeaderMap,
        registry: Option<&RegistryName>,
    ) -> Option<Credential> {
        let shown = headers.get(header::AUTHORIZATION)?;
        let token = shown.to_str().ok().and_then(|text| text.split_once(' '));
        match token.map(|(_, token)| token.trim()) {
            Some(NOBODY) => None,
            Some(token) if token.starts_with(VOUCHER) => {
                let (of, credential) = self.given.get(token).await?;
                (Some(&of) == registry).then_some(credential)
            }
            Some(_) | None => Credential::from_header(shown),
        }
    }

    /// A token that stands for `credential` at `registry`, and for nobody elsewhere.
    async fn give(&self, registry: RegistryName, credential: Credential) -> String {
        let token = format!("{VOUCHER}{}", hex::encode(rand::random::<[u8; 32]>()));
        let given = (registry, credential);
        self.given.insert(token.clone(), given).await;
        token
    }
}

/// In place of the registry's own challenges in `headers`, one that sends the client here for its token;
/// for clients whose scopes the registry would not know.
pub(crate) fn challenge_anew(
    ask: &Ask,
    (form, registry): (Form, &RegistryName),
    repository: Option<&Repository>,
    headers: &mut HeaderMap,
) {
    let is_ours = match form {
        Form::Prefix | Form::Bare => ask.whence.is_local && !ask.asker.can_fall_back(),
        Form::Ns | Form::Forward => false,
    };
    let offer = Offer::of(headers);
    if !is_ours || (offer.bearer.is_none() && !offer.basic) {
        return;
    }
    let scope = scope::spelled(offer.bearer.as_ref(), form, registry, repository);
    if let Some(challenge) = own(ask, scope.as_deref()) {
        headers.remove(header::WWW_AUTHENTICATE);
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
}

/// The challenge whose tokens are given here, for who has reached this proxy by the name in `Host`.
fn own(ask: &Ask, scope: Option<&str>) -> Option<HeaderValue> {
    let host: http::uri::Authority = ask.header(&header::HOST)?.parse().ok()?;
    if !ask.whence.is_local || host.as_str().contains('@') {
        return None;
    }
    let scheme = ask.whence.scheme;
    let mut text = format!("Bearer realm=\"{scheme}://{host}{TOKEN_PATH}\",service=\"darter\"");
    if let Some(scope) = scope.filter(|scope| !scope.contains(['"', '\\'])) {
        text.push_str(&format!(",scope=\"{scope}\""));
    }
    // Some ask for another token only when they are told that theirs is too small.
    if ask.headers.contains_key(header::AUTHORIZATION) {
        text.push_str(",error=\"insufficient_scope\"");
    }
    HeaderValue::from_str(&text).ok()
}
