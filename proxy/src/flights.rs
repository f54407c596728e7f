//! One question for all who ask it at the same moment.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

/// What a question comes to, for everybody who waits for it.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, T>>;

/// Questions under way. Those whom nobody waits for any more are gone.
pub(crate) struct Flights<K, T: Clone> {
    under_way: Mutex<HashMap<K, WeakShared<BoxFuture<'static, T>>>>,
}

// === impl Flights ===

impl<K: Clone + Eq + Hash, T: Clone> Flights<K, T> {
    /// Joins the question `key`, or begins it.
    pub(crate) fn join(&self, key: &K, begin: impl FnOnce() -> BoxFuture<'static, T>) -> Flight<T> {
        let mut under_way = self.lock();
        if let Some(flight) = under_way.get(key).and_then(WeakShared::upgrade) {
            return flight;
        }
        under_way.retain(|_, flight| flight.upgrade().is_some());
        let flight = begin().shared();
        if let Some(weak) = flight.downgrade() {
            under_way.insert(key.clone(), weak);
        }
        flight
    }

    /// Whoever asks one of these from now on begins anew.
    pub(crate) fn forget(&self, is_old: impl Fn(&K) -> bool) {
        self.lock().retain(|key, _| !is_old(key));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, WeakShared<BoxFuture<'static, T>>>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
        }
    }
}

impl<K, T: Clone> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}
