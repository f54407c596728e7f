//! A registry as the large public ones are: tokens from a server of their own, private repositories,
//! and blobs at a storage host behind signed addresses; over TLS, before a real docker-registry.
//!
//! Its three doors are listeners of one thread, which ends with the value. What a test may change
//! while it runs is in [`Rules`]; every request is noted with who brought it, and no secret of it.

mod credential;
mod front;
mod papers;
mod realm;
mod rights;
mod serve;
mod settings;
mod storage;
mod tokens;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

pub use self::{
    credential::basic,
    rights::{ClaimedManifest, Forbidden, Repository, Rules},
    settings::{Blobs, Ping, Settings, TokenForm, Transport},
    tokens::Scheme,
};
use self::{serve::Behind, tokens::Tokens};
use crate::{process::unix_time, registry::Registry};

/// One of the three listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    Registry,
    Realm,
    Storage,
}

/// Who a request was by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Without a credential.
    Nobody,
    /// By a token that anybody gets.
    Anonymous,
    User(String),
    /// By a credential that is none, or no longer.
    Unknown,
}

/// One request, and what it got.
#[derive(Debug, Clone)]
pub struct Heard {
    pub door: Door,
    pub method: String,
    pub path: String,
    /// Without the values of secrets.
    pub query: String,
    pub range: Option<String>,
    pub agent: String,
    pub caller: Caller,
    /// 0 while there is no answer.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub sent: u64,
    /// Tells whether a known credential came, and nothing else.
    authorization: Option<blake3::Hash>,
}

/// A running registry.
#[derive(Debug)]
pub struct TokenRegistry {
    state: Arc<State>,
    behind: Registry,
    papers: PathBuf,
    /// Dropped, it ends the accept loops and every connection.
    _runtime: Runtime,
}

/// What the connections share.
#[derive(Debug)]
struct State {
    settings: Settings,
    addresses: BTreeMap<Door, SocketAddr>,
    rules: Mutex<Rules>,
    tokens: Mutex<Tokens>,
    log: Mutex<Vec<Heard>>,
    behind: Behind,
    /// Signs addresses of the storage host.
    signing_key: [u8; 32],
    /// What was signed with.
    signatures: Mutex<Vec<String>>,
}

/// Requests and signatures that are noted; further ones are answered all the same.
const HEARD_MAX: usize = 100_000;

// === impl Door ===

impl Door {
    pub const ALL: [Self; 3] = [Self::Registry, Self::Realm, Self::Storage];
}

// === impl TokenRegistry ===

impl TokenRegistry {
    /// Starts an empty registry with its content and its papers in `directory`.
    ///
    /// # Errors
    /// docker-registry does not come up, or no socket or runtime is to be had.
    pub fn start(directory: &Path, settings: Settings) -> Result<Self> {
        let bind = |place: SocketAddr| Ok(std::net::TcpListener::bind(place)?);
        Self::start_with(directory, settings, bind)
    }

    /// As [`TokenRegistry::start`], with listeners that `bind` makes at an address, so that they can
    /// be in a network namespace.
    ///
    /// # Errors
    /// As [`TokenRegistry::start`].
    pub fn start_with(
        directory: &Path,
        settings: Settings,
        bind: impl Fn(SocketAddr) -> Result<std::net::TcpListener>,
    ) -> Result<Self> {
        let behind = Registry::start(&directory.join("behind"))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("token-registry")
            .enable_all()
            .build()?;
        let papers = directory.join("papers");
        let tls = papers::write(&papers, &settings)?;
        let mut listeners = Vec::new();
        let mut addresses = BTreeMap::new();
        for door in Door::ALL {
            let bound = bind(settings.place(door))?;
            bound.set_nonblocking(true)?;
            let listener = {
                let _inside = runtime.enter();
                TcpListener::from_std(bound)?
            };
            addresses.insert(door, listener.local_addr()?);
            let tls = match settings.transport_of(door) {
                Transport::Plain => None,
                Transport::Tls => Some(tls.clone()),
            };
            listeners.push((door, listener, tls));
        }
        let state = Arc::new(State {
            behind: Behind::new(behind.address()),
            settings,
            addresses,
            rules: Mutex::default(),
            tokens: Mutex::default(),
            log: Mutex::default(),
            signing_key: rand::random(),
            signatures: Mutex::default(),
        });
        for (door, listener, tls) in listeners {
            runtime.spawn(serve::accept((door, listener), tls, Arc::clone(&state)));
        }
        Ok(Self {
            state,
            behind,
            papers,
            _runtime: runtime,
        })
    }

    /// Where a door is.
    ///
    /// # Panics
    /// Never: every door was bound at the start.
    #[must_use]
    pub fn address(&self, door: Door) -> SocketAddr {
        self.state.address(door)
    }

    /// The registry as a URL begins.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.state.origin(Door::Registry)
    }

    /// The token server and the storage host, as `also_trust` names them.
    #[must_use]
    pub fn also_trust(&self) -> [String; 2] {
        [Door::Realm, Door::Storage].map(|door| self.address(door).to_string())
    }

    /// The `[[proxy.registry]]` by which a node knows it as `name`.
    #[must_use]
    pub fn entry(&self, name: &str) -> String {
        format!(
            "[[proxy.registry]]\nname = {name:?}\nendpoint = \"{}\"\nca = {:?}\nalso_trust = {:?}\n",
            self.endpoint(),
            self.papers.join("ca.crt"),
            self.also_trust(),
        )
    }

    /// A directory with the certificate of the authority as `ca.crt`, and nothing else.
    #[must_use]
    pub fn papers(&self) -> &Path {
        &self.papers
    }

    /// The registry that has the content, for pushes that ask nobody.
    #[must_use]
    pub fn behind(&self) -> &Registry {
        &self.behind
    }

    /// Changes who may do what, and what goes wrong, from now on.
    pub fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut locked(&self.state.rules));
    }

    /// Takes back a token or a refresh token.
    pub fn revoke(&self, token: &str) {
        locked(&self.state.tokens).revoke(token);
    }

    /// Takes back all tokens of a user, who stays one.
    pub fn revoke_all_of(&self, user: &str) {
        locked(&self.state.tokens).revoke_all_of(user);
    }

    /// Ends the life of every token that was given so far.
    pub fn expire_tokens(&self) {
        locked(&self.state.tokens).expire_all(unix_time());
    }

    /// A token as the token server would give it to that user now, for pulls of `repository`.
    ///
    /// # Errors
    /// It is no user, or the password is wrong.
    pub fn token(&self, user: &str, password: &str, repository: &str) -> Result<String> {
        let is_user = locked(&self.state.rules).is_user(user, password);
        anyhow::ensure!(is_user, "{user} is no user with this password");
        let scope = format!("repository:{repository}:pull");
        Ok(self.state.give_token(Some(user), &[scope]))
    }

    /// A refresh token as the token server would give it to that user now.
    ///
    /// # Errors
    /// It is no user, or too many were given.
    pub fn refresh_token(&self, user: &str) -> Result<String> {
        let is_user = locked(&self.state.rules).users.contains_key(user);
        anyhow::ensure!(is_user, "{user} is no user");
        self.state.give_refresh(user).context("too many")
    }

    /// The signatures of every address that it redirected to.
    #[must_use]
    pub fn signatures(&self) -> Vec<String> {
        locked(&self.state.signatures).clone()
    }

    /// Every request so far, in the order they came.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        locked(&self.state.log).clone()
    }

    /// The requests at `door` of that method whose path ends with `path_end`.
    #[must_use]
    pub fn heard_of(&self, door: Door, method: &str, path_end: &str) -> Vec<Heard> {
        let mut heard = self.heard();
        heard.retain(|heard| {
            heard.door == door && heard.method == method && heard.path.ends_with(path_end)
        });
        heard
    }

    /// The requests that came with this very `Authorization`.
    #[must_use]
    pub fn heard_with(&self, authorization: &str) -> Vec<Heard> {
        let mut heard = self.heard();
        let known = blake3::hash(authorization.as_bytes());
        heard.retain(|heard| heard.authorization == Some(known));
        heard
    }
}

// === impl State ===

impl State {
    fn address(&self, door: Door) -> SocketAddr {
        *self.addresses.get(&door).expect("every door was bound")
    }

    fn origin(&self, door: Door) -> String {
        let scheme = self.settings.transport_of(door).scheme();
        format!("{scheme}://{}", self.address(door))
    }
}

/// The value of a member of a JSON object that is a text.
///
/// # Errors
/// It is no JSON, or has no such text.
pub fn text_of(body: &[u8], member: &str) -> Result<String> {
    let read: serde_json::Value = serde_json::from_slice(body)?;
    let text = read[member].as_str().map(str::to_owned);
    text.with_context(|| format!("no {member}"))
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
