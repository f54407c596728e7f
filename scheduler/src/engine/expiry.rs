//! Pure: hosts that have a session and say nothing are taken for lost.
//!
//! A host tells its load every few seconds. One that does not is given to nobody, and after a while
//! its session is over: whoever had pieces from it is answered anew. If it lives, it opens another
//! session and announces what it holds.

use std::{collections::VecDeque, time::Instant};

use protocol::HostId;

use super::{Engine, Limits, hosts::Hosts};

/// A look that comes later than this part of the time that a host may be silent tells of a scheduler
/// that stood still: what hosts said meanwhile has not been heard yet.
const LATE_PART: u32 = 10;

/// The silent are looked for at most this often within the time that a host may be silent.
const LOOKS: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// When to look; nothing where there is no host.
    look_at: Option<Instant>,
    expired: VecDeque<HostId>,
}

// === impl Engine ===

impl Engine {
    /// The next host whose session is over for its silence. Call until it returns `None`.
    pub fn poll_expired(&mut self) -> Option<HostId> {
        self.expiry.expired.pop_front()
    }

    pub(super) fn expiry_due(&self) -> Option<Instant> {
        self.expiry.look_at
    }

    /// A host has joined.
    pub(super) fn watch_silence(&mut self, now: Instant) {
        let first_look = now + self.limits.host_expiry;
        self.expiry.look_at.get_or_insert(first_look);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let Some(due) = self.expiry.look_at.filter(|at| *at <= now) else {
            return;
        };
        let expiry = self.limits.host_expiry;
        if due + expiry / LATE_PART < now {
            self.expiry.look_at = Some(now + expiry / LOOKS);
            return;
        }
        for id in self.hosts.silent(now, expiry) {
            self.leave(now, &id);
            self.expiry.expired.push_back(id);
        }
        self.expiry.look_at = next_look(now, &self.limits, &self.hosts);
    }
}

fn next_look(now: Instant, limits: &Limits, hosts: &Hosts) -> Option<Instant> {
    let expires = hosts.longest_silent()? + limits.host_expiry;
    Some(expires.max(now + limits.host_expiry / LOOKS))
}
