//! What is under way on one client's connection, told to whoever accepted it. That one may let an
//! idle connection go without a word, by dropping what serves it.
//!
//! Invariant: an answer is under way until it has left, so nothing that was promised is lost with
//! an idle connection. A tunnel is under way for as long as there is one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// Whoever accepted a connection. Each thing that begins ends once.
pub trait Activity: Send + Sync + fmt::Debug + 'static {
    fn begin(&self);
    fn end(&self);
}

/// What is under way on one connection.
#[derive(Debug)]
pub(crate) struct Underway {
    activity: Arc<dyn Activity>,
    /// Answers that are over, of which the last bytes may still have to leave.
    given: AtomicU32,
}

/// A request, until no more is said to it.
#[derive(Debug)]
pub(crate) struct Answering(Arc<Underway>);

/// Something other than an answer that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold(Arc<dyn Activity>);

// === impl Underway ===

impl Underway {
    pub(crate) fn new(activity: Arc<dyn Activity>) -> Arc<Self> {
        let given = AtomicU32::new(0);
        Arc::new(Self { activity, given })
    }

    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>) -> Answering {
        self.activity.begin();
        Answering(Arc::clone(self))
    }

    /// All that was said so far has left.
    pub(crate) fn left(&self) {
        for _ in 0..self.given.swap(0, Ordering::AcqRel) {
            self.activity.end();
        }
    }

    pub(crate) fn hold(&self) -> Hold {
        self.activity.begin();
        Hold(Arc::clone(&self.activity))
    }
}

// === impl Answering, Hold ===

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.given.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.end();
    }
}
