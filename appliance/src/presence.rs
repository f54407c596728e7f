//! Who is at a listener, and at what: keeps its [`Crowd`], asks a connection to go and is told when
//! one has gone. Decides nothing.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proxy::Activity;
use tokio::{sync::Notify, time::timeout};

use crate::crowd::{Crowd, Member};

/// The connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct Presences {
    crowd: Mutex<Crowd<Arc<Notify>>>,
    gone: Notify,
}

/// One connection; it has left when this is dropped.
pub(crate) struct Presence {
    all: Arc<Presences>,
    member: Member,
    asked: Arc<Notify>,
}

// === impl Presences ===

impl Presences {
    /// A connection has come, on which nothing is under way yet.
    pub(crate) fn enter(self: &Arc<Self>) -> Arc<Presence> {
        let asked = Arc::new(Notify::new());
        let member = self.crowd().enter(Arc::clone(&asked));
        Arc::new(Presence {
            all: Arc::clone(self),
            member,
            asked,
        })
    }

    /// Asks the connection to go that has been idle for longest; says whether there is one.
    pub(crate) fn ask(&self) -> bool {
        let mut crowd = self.crowd();
        let asked = crowd.ask();
        asked.inspect(|asked| asked.notify_one()).is_some()
    }

    /// Asks one to go and waits until one has gone, for `limit` at most; says whether there is one.
    pub(crate) async fn one_goes(&self, limit: Duration) -> bool {
        let mut gone = pin!(self.gone.notified());
        gone.as_mut().enable();
        let is_asked = self.ask();
        if is_asked {
            let _in_time = timeout(limit, gone).await;
        }
        is_asked
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd<Arc<Notify>>> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Presence ===

impl Presence {
    /// Until the connection is to go. Whatever serves it is dropped then, before it is polled again,
    /// so that nothing begins on it any more.
    pub(crate) async fn let_go(&self) {
        loop {
            self.asked.notified().await;
            if self.all.crowd().may_leave(self.member) {
                return;
            }
        }
    }
}

impl Activity for Presence {
    fn begin(&self) {
        self.all.crowd().begin(self.member);
    }

    fn end(&self) {
        self.all.crowd().end(self.member);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.all.crowd().leave(self.member);
        self.all.gone.notify_waiters();
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Presence").field(&self.member).finish()
    }
}
