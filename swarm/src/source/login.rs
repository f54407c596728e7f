//! The login of this node at one endpoint: read when it is first wanted, and again when its file
//! changes, when it was refused, and from time to time.
//!
//! Kept in memory only. When to read is decided by `turn`, a pure function at the end of the file.

use std::{
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::{
    clock,
    credential::{Credential, Fingerprint},
    docker_config::{Entry, look_up, told_by_helper},
};

/// Reads what the operator has put down for this node. Every answer is bounded in time and length.
pub trait Keyring: Send + Sync + 'static {
    /// The bytes of a file.
    fn file(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Vec<u8>>>;

    /// What a credential helper says of `server`; nothing where it knows of none.
    fn helper(&self, program: String, server: String) -> BoxFuture<'static, io::Result<Vec<u8>>>;
}

/// A keyring without any key.
#[derive(Debug, Clone, Copy)]
pub struct NoKeys;

/// The login at one endpoint.
pub(super) struct Login {
    path: PathBuf,
    hosts: Vec<String>,
    keyring: Arc<dyn Keyring>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    credential: Option<Credential>,
    /// The hash of the file that it is from; `None` where that could not be read.
    file: Option<blake3::Hash>,
    times: Option<Times>,
}

/// When the file was last looked at, and when a login was last taken from it.
#[derive(Debug, Clone, Copy)]
struct Times {
    looked_at: Instant,
    taken_at: Instant,
}

/// What is done for who wants the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Keep,
    /// Look whether the file has changed.
    Look,
    /// Take the login anew.
    Take,
    /// It was refused, and there is no other.
    Refuse,
}

/// A changed file is seen after so long.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);
/// A login is taken anew after so long; helpers give some that run out.
const KEPT_FOR: Duration = Duration::from_secs(5 * 60);
/// A login that was refused is not taken anew sooner.
const TAKEN_EVERY: Duration = Duration::from_secs(10);

// === impl NoKeys ===

impl Keyring for NoKeys {
    fn file(&self, _: PathBuf) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }

    fn helper(&self, _: String, _: String) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

// === impl Login ===

impl Login {
    pub(super) fn new(path: PathBuf, hosts: Vec<String>, keyring: Arc<dyn Keyring>) -> Self {
        Self {
            path,
            hosts,
            keyring,
            kept: Mutex::default(),
        }
    }

    /// The login, if there is one other than `rejected`. One reads for all who wait.
    pub(super) async fn credential(&self, rejected: Option<Fingerprint>) -> Option<Credential> {
        let mut kept = self.kept.lock().await;
        let own = kept.credential.as_ref().map(Credential::fingerprint);
        let is_rejected = rejected.is_some() && own == rejected;
        match turn(kept.times, is_rejected, clock::now()) {
            Turn::Keep => {}
            Turn::Refuse => return None,
            Turn::Look => self.read(&mut kept, false).await,
            Turn::Take => self.read(&mut kept, true).await,
        }
        let credential = kept.credential.clone();
        credential.filter(|credential| Some(credential.fingerprint()) != rejected)
    }

    /// Reads the file, and takes the login from it if it has changed or `is_due`.
    async fn read(&self, kept: &mut Kept, is_due: bool) {
        let now = clock::now();
        let taken_at = kept.times.map_or(now, |times| times.taken_at);
        // Noted first: whoever is dropped while a helper runs must not have it run again at once.
        kept.times = Some(Times {
            looked_at: now,
            taken_at: if is_due { now } else { taken_at },
        });
        let path = self.path.display();
        let file = match self.keyring.file(self.path.clone()).await {
            Ok(file) => file,
            Err(error) => {
                if kept.file.take().is_some() || is_due {
                    tracing::warn!(%path, %error, "this node's logins cannot be read");
                }
                kept.credential = None;
                return;
            }
        };
        let hash = blake3::hash(&file);
        let is_changed = kept.file.replace(hash) != Some(hash);
        if !is_changed && !is_due {
            return;
        }
        if let Some(times) = &mut kept.times {
            times.taken_at = now;
        }
        match self.take(&file).await {
            Ok(credential) => kept.credential = credential,
            // A helper that fails for once takes nothing away.
            Err(error) => {
                tracing::warn!(%path, %error, "this node's login cannot be had");
                if is_changed {
                    kept.credential = None;
                }
            }
        }
    }

    async fn take(&self, file: &[u8]) -> Result<Option<Credential>, String> {
        match look_up(file, &self.hosts)? {
            Entry::Nothing => Ok(None),
            Entry::Login(credential) => Ok(Some(credential)),
            Entry::Helper {
                program,
                server,
                otherwise,
            } => {
                let asked = self.keyring.helper(program.clone(), server).await;
                let answer = asked.map_err(|error| format!("{program}: {error}"))?;
                Ok(told_by_helper(&answer)?.or(otherwise))
            }
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.path.display())
    }
}

fn turn(times: Option<Times>, is_rejected: bool, now: Instant) -> Turn {
    let Some(times) = times else {
        return Turn::Take;
    };
    match () {
        () if times.taken_at + KEPT_FOR <= now => Turn::Take,
        () if is_rejected && times.taken_at + TAKEN_EVERY <= now => Turn::Take,
        () if times.looked_at + LOOKED_AT_EVERY <= now => Turn::Look,
        () if is_rejected => Turn::Refuse,
        () => Turn::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_taken_when_it_is_old_or_refused_and_its_file_is_looked_at_between() {
        let start = clock::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let check = |taken, looked, is_rejected, now, expect| {
            let times = Times {
                looked_at: at(looked),
                taken_at: at(taken),
            };
            assert_eq!(turn(Some(times), is_rejected, at(now)), expect, "{now}");
        };
        assert_eq!(turn(None, false, start), Turn::Take);
        check(0, 0, false, 4, Turn::Keep);
        check(0, 0, false, 5, Turn::Look);
        check(0, 298, false, 299, Turn::Keep);
        check(0, 298, false, 300, Turn::Take);
        check(0, 0, true, 4, Turn::Refuse);
        check(0, 0, true, 5, Turn::Look);
        check(0, 9, true, 10, Turn::Take);
    }
}
