//! A small registry of our own that fails on purpose, and tells exactly what it was asked.
//!
//! It speaks HTTP over real sockets, on a thread of its own and a port that the kernel chose, and
//! ends when it is dropped. What is not broken by a [`Fault`] is answered as a registry should: it
//! also carries what docker-registry 2.8 cannot, such as sha512 digests, empty blobs and referrers.

mod contents;
mod fault;
mod flow;
mod wire;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

use self::{
    contents::{Contents, Head, Reply},
    fault::Rule,
};
pub use self::{
    contents::{Guard, REALM_SECRET},
    fault::{End, Fault, Framing, On, Times},
    flow::{Sluice, Trickle},
};
use crate::process::Stopwatch;

/// A running registry.
#[derive(Debug)]
pub struct FaultRegistry {
    address: SocketAddr,
    state: Arc<State>,
    /// Dropped, it ends the accept loop and every connection.
    _runtime: Runtime,
}

/// One request, and what became of it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub range: Option<String>,
    pub accept: Option<String>,
    pub is_authorized: bool,
    pub agent: String,
    /// The names of its headers, in lower case, as they came.
    pub headers: Vec<String>,
    /// Bytes of the body that were sent.
    pub sent: usize,
    /// Since the start of the registry.
    pub began: Duration,
    /// When the answer, or the connection that a fault ends, was over.
    pub ended: Option<Duration>,
}

/// What the connections share.
#[derive(Debug)]
struct State {
    authority: String,
    contents: Mutex<Contents>,
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<Asked>>,
    clock: Stopwatch,
}

// === impl FaultRegistry ===

impl FaultRegistry {
    /// Starts an empty, healthy registry on the loopback.
    ///
    /// # Errors
    /// The loopback has no free port, or no thread can be started.
    pub fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fault-registry")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            authority: address.to_string(),
            contents: Mutex::default(),
            rules: Mutex::default(),
            log: Mutex::default(),
            clock: Stopwatch::start(),
        });
        runtime.spawn(wire::serve(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            _runtime: runtime,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds a blob under any digest, right or wrong.
    pub fn put_blob(&self, digest: &str, bytes: impl Into<Bytes>) {
        locked(&self.state.contents).put_blob(digest, bytes.into());
    }

    /// Holds a manifest under a tag and its sha256 digest, or under the digest that is given.
    pub fn put_manifest(&self, reference: &str, media_type: &str, bytes: impl Into<Bytes>) {
        locked(&self.state.contents).put_manifest(reference, media_type, bytes.into());
    }

    /// Lets in whom `guard` lets in, from now on.
    pub fn guard(&self, guard: Guard) {
        locked(&self.state.contents).guard = guard;
    }

    /// Answers requests of paths that end with `path_end` badly from now on. Of several faults
    /// that would hit a request, the first one does.
    pub fn fail(&self, on: On, path_end: &str, times: Times, fault: Fault) {
        locked(&self.state.rules).push(Rule {
            on,
            path_end: path_end.to_owned(),
            times,
            fault,
            taken: 0,
        });
    }

    /// Answers requests of paths that end with `path_end` well from now on.
    pub fn heal(&self, path_end: &str) {
        locked(&self.state.rules).retain(|rule| rule.path_end != path_end);
    }

    /// Every request so far whose path ends with `path_end`, in the order they came.
    #[must_use]
    pub fn asked(&self, path_end: &str) -> Vec<Asked> {
        let log = locked(&self.state.log);
        let asked = log.iter().filter(|asked| asked.path.ends_with(path_end));
        asked.cloned().collect()
    }

    /// Those of [`FaultRegistry::asked`] that wanted the body: whether somebody may read it is asked by
    /// HEAD.
    #[must_use]
    pub fn fetched(&self, path_end: &str) -> Vec<Asked> {
        let mut asked = self.asked(path_end);
        asked.retain(|asked| asked.method == "GET");
        asked
    }
}

// === impl State ===

impl State {
    /// Notes that a request has come; gives its number in the log, and the fault that hits it.
    fn begin(&self, head: &Head) -> (usize, Option<Fault>) {
        let text = |name| head.header(name).map(str::to_owned);
        let mut log = locked(&self.log);
        log.push(Asked {
            method: head.method.clone(),
            path: head.path.clone(),
            query: head.query.clone(),
            range: text("range"),
            accept: text("accept"),
            is_authorized: head.header("authorization").is_some(),
            agent: text("user-agent").unwrap_or_default(),
            headers: head
                .headers
                .iter()
                .map(|(name, _)| name.to_lowercase())
                .collect(),
            sent: 0,
            began: self.clock.elapsed(),
            ended: None,
        });
        let mut rules = locked(&self.rules);
        let fault = rules
            .iter_mut()
            .find_map(|rule| rule.take(&head.method, &head.path));
        (log.len() - 1, fault)
    }

    fn answer(&self, head: &Head, fault: Option<&Fault>) -> Reply {
        let mut head = head.clone();
        if fault == Some(&Fault::IgnoresRange) {
            head.headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
        }
        let redirect = |location: &str| Reply::empty(307).with("Location", location);
        let reply = locked(&self.contents).answer(&head, &self.authority);
        match fault {
            Some(Fault::Status(status)) => Reply::error(*status, "UNKNOWN"),
            Some(Fault::Limited { retry_after }) => {
                Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", &retry_after.to_string())
            }
            Some(Fault::NoChallenge) => Reply::error(401, "UNAUTHORIZED"),
            // What nobody may read is not redirected either.
            Some(Fault::RedirectLoop) if reply.status != 401 => redirect(&head.path),
            Some(Fault::RedirectTo(url)) if reply.status != 401 => redirect(url),
            Some(Fault::DigestHeader(told)) => {
                let reply = reply.without("Docker-Content-Digest");
                match told {
                    Some(digest) => reply.with("Docker-Content-Digest", digest),
                    None => reply,
                }
            }
            Some(Fault::Header(name, value)) => reply.without(name).with(name, value),
            Some(_) | None => reply,
        }
    }

    fn sent(&self, turn: usize, bytes: usize) {
        if let Some(asked) = locked(&self.log).get_mut(turn) {
            asked.sent += bytes;
        }
    }

    fn end(&self, turn: usize) {
        let now = self.clock.elapsed();
        if let Some(asked) = locked(&self.log).get_mut(turn) {
            asked.ended = Some(now);
        }
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
