//! Whether a download goes on: who wants it, on this host and elsewhere.

use std::time::{Duration, Instant};

use super::{
    TaskFailure,
    driver::{Driver, NOBODY, clock},
};
use crate::conductor::{Event, Interest};

/// How long a download goes on after its last reader left: it may come back and resume.
const LINGER: Duration = Duration::from_secs(5);

/// The engine's own view of a download.
const WATCHED_BY_ENGINE: usize = 1;

impl Driver {
    /// Nobody reads: goes on if others wait for what this host fetches for all, or if it is nearly
    /// done, else lingers a little and gives up.
    pub(super) fn check_wanted(&mut self) {
        let is_waited_for = self.is_granted && self.is_followed();
        if self.is_for_others && !is_waited_for {
            self.is_for_others = false;
            self.plan(Event::ReaderLeft(NOBODY));
        }
        if !self.conductor.is_unwanted() {
            self.unwanted_since = None;
            return;
        }
        let now = clock();
        let since = *self.unwanted_since.get_or_insert(now);
        if is_waited_for {
            self.is_for_others = true;
            self.plan(Event::ReaderJoined(NOBODY, Interest::ToEnd { offset: 0 }));
        } else if self.conductor.is_nearly_whole() {
            self.plan(Event::ReaderJoined(NOBODY, Interest::ToEnd { offset: 0 }));
        } else if since + LINGER <= now {
            self.fail(TaskFailure::Cancelled);
        }
    }

    /// When nobody has wanted it for long enough.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        self.unwanted_since.map(|since| since + LINGER)
    }

    /// Whether other hosts follow it, where nobody reads it here.
    fn is_followed(&self) -> bool {
        WATCHED_BY_ENGINE < self.progress.receiver_count()
    }
}
