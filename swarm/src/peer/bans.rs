//! Hosts that gave this host something that does not match its signature: not asked again for a while.
//!
//! This host needs nobody's word for what it saw itself. What the cluster makes of it is the
//! scheduler's to say.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use protocol::HostId;

/// How long a liar is not asked.
const BAN: Duration = Duration::from_secs(600);

/// Bans at once; past it, the one that ends first makes room.
const BANS_MAX: usize = 1024;

/// The bans of this host. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bans {
    until: Arc<Mutex<HashMap<HostId, Instant>>>,
}

// === impl Bans ===

impl Bans {
    pub(crate) fn ban(&self, now: Instant, host: &HostId) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, end| now < *end);
        if BANS_MAX <= until.len()
            && let Some(first) = until
                .iter()
                .min_by_key(|(_, end)| **end)
                .map(|(id, _)| id.clone())
        {
            until.remove(&first);
        }
        until.insert(host.clone(), now + BAN);
    }

    pub(crate) fn is_banned(&self, now: Instant, host: &HostId) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(host).is_some_and(|end| now < *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any origin will do")]
    fn a_ban_ends_and_there_is_always_room_for_the_next() {
        let (bans, now) = (Bans::default(), Instant::now());
        for number in 0..=BANS_MAX {
            let host = format!("h{number}").parse().unwrap();
            bans.ban(now + Duration::from_millis(number as u64), &host);
        }
        let (first, last) = (
            "h0".parse().unwrap(),
            format!("h{BANS_MAX}").parse().unwrap(),
        );
        assert!(!bans.is_banned(now, &first));
        assert!(bans.is_banned(now, &last));
        assert!(!bans.is_banned(now + BAN * 2, &last));
    }
}
