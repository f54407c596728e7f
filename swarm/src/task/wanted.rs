//! Who wants a download, and what of it: readers on this host, by whom it goes on or ends, and what
//! its parents are told of them.

use std::time::{Duration, Instant};

use protocol::{HostId, Want, want::WANTS_MAX};

use super::{
    TaskFailure,
    driver::{Driver, NOBODY, clock},
};
use crate::conductor::{Event, Interest};

/// How long a download goes on after its last reader left: it may come back and resume.
const LINGER: Duration = Duration::from_secs(5);

/// What the parents were told last, and which of them.
#[derive(Debug, Default)]
pub(super) struct Told {
    wants: Vec<Want>,
    parents: Vec<HostId>,
}

// === impl Told ===

impl Told {
    /// Whether `wants` is said by what was told, and that is not much more.
    fn says(&self, wants: &[Want]) -> bool {
        let is_said = |want: &Want| self.wants.iter().any(|told| told.covers(want));
        self.wants.len() == wants.len() && wants.iter().all(is_said)
    }

    pub(super) fn forget(&mut self, parent: &HostId) {
        self.parents.retain(|told| told != parent);
    }
}

// === impl Driver ===

impl Driver {
    /// What is wanted here, as it is told when the download is registered: nothing where it is all.
    pub(super) fn wants(&self) -> Vec<Want> {
        let mut wants = self.wanted_now();
        if wants.is_empty() && self.unwanted_since.is_none() {
            let first = self.wish.wanted.interest().want();
            wants.push(if first.is_part() { first } else { Want::FIRST });
        }
        if wants.contains(&Want::WHOLE) {
            wants.clear();
        }
        wants
    }

    fn wanted_now(&self) -> Vec<Want> {
        let mut wants = self.conductor.wants();
        wants.sort_unstable();
        wants.dedup();
        let is_whole = wants.iter().any(|want| want.covers(&Want::WHOLE));
        if is_whole || WANTS_MAX < wants.len() {
            wants = vec![Want::WHOLE];
        }
        wants
    }

    /// Tells every parent what is wanted, where it does not know that yet.
    pub(super) fn tell_wants(&mut self) {
        let wants = self.wanted_now();
        if !self.told.says(&wants) {
            self.told = Told {
                wants,
                parents: Vec::new(),
            };
        }
        for parent in self.conductor.parents() {
            if self.told.parents.contains(parent) {
                continue;
            }
            if let Some(host) = self.candidates.get(parent) {
                let wants = self.told.wants.clone();
                self.host.hub.want(host, self.wish.task, wants);
            }
            self.told.parents.push(parent.clone());
        }
    }

    /// From here on the whole is to come, whoever reads.
    pub(super) fn want_whole(&mut self) {
        self.plan(Event::ReaderJoined(NOBODY, Interest::ToEnd { offset: 0 }));
    }

    /// When nobody has wanted it for long enough.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        self.unwanted_since.map(|since| since + LINGER)
    }

    /// Nobody reads, here or elsewhere: goes on if it is nearly done, else lingers a little and gives
    /// up.
    pub(super) fn check_wanted(&mut self) {
        if !self.conductor.is_unwanted() {
            self.unwanted_since = None;
            return;
        }
        let now = clock();
        let since = *self.unwanted_since.get_or_insert(now);
        if self.conductor.is_nearly_whole() {
            self.want_whole();
        } else if since + LINGER <= now {
            self.fail(TaskFailure::Cancelled);
        }
    }
}
