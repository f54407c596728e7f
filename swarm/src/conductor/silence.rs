//! Pure: parents that have no word of the task while something of it is wanted.
//!
//! One that is about to have the task may be silent for as long as its source is. One that never
//! speaks, or that says nothing more of what is still missing, would be waited for without end.

use std::time::Instant;

use protocol::HostId;

use super::Conductor;

impl Conductor {
    /// Notes whether something is wanted that nobody is about to bring.
    pub(super) fn note_hunger(&mut self, now: Instant) {
        let is_fed = || self.picker(now).is_some_and(|picker| picker.is_endgame());
        let is_hungry = self.suppliers.has_parent() && !self.interests.is_empty() && !is_fed();
        self.hungry_since = is_hungry.then(|| self.hungry_since.unwrap_or(now));
    }

    /// The parents that have been silent for too long.
    pub(super) fn silent(&self, now: Instant) -> Vec<HostId> {
        let Some(hungry_since) = self.hungry_since else {
            return Vec::new();
        };
        let silence = self.limits.silence();
        let idle = self.suppliers.idle_parents();
        let silent = idle.filter(|(_, heard_at)| hungry_since.max(*heard_at) + silence <= now);
        silent.map(|(id, _)| id.clone()).collect()
    }

    /// When the first of them has been silent for too long.
    pub(super) fn next_silence(&self) -> Option<Instant> {
        let hungry_since = self.hungry_since?;
        let heard = self.suppliers.idle_parents().map(|(_, at)| at).min()?;
        Some(hungry_since.max(heard) + self.limits.silence())
    }
}
