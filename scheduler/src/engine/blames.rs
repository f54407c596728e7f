//! Pure: which hosts the cluster bans for lying, on whose word, and for how long.
//!
//! A lie is bytes or a batch that do not match a signature, or a signature under bytes that turned
//! out wrong. One host's word is not enough to shut another out: it takes several, or a seed's own.
//! A ban is the host's, not its session's: it does not help to come back.

use std::{collections::BTreeMap, time::Instant};

use protocol::HostId;

use super::{
    Limits,
    reports::{Reporter, Reports},
};

#[derive(Debug, Default)]
pub(super) struct Blames {
    by_host: BTreeMap<HostId, Blame>,
}

#[derive(Debug)]
struct Blame {
    /// Enough of them are a ban.
    reports: Reports,
    /// When the reports are forgotten, or the ban ends.
    until: Instant,
}

// === impl Blames ===

impl Blames {
    /// `reporter` says that `liar` lied; tells whether `liar` is banned from now on.
    pub(super) fn blame(
        &mut self,
        now: Instant,
        limits: &Limits,
        reporter: Reporter<'_>,
        liar: &HostId,
    ) -> bool {
        self.by_host.retain(|_, blame| now < blame.until);
        if !self.by_host.contains_key(liar) && limits.blamed_max <= self.by_host.len() {
            return false;
        }
        let blame = self.by_host.entry(liar.clone()).or_insert_with(|| Blame {
            reports: Reports::default(),
            until: now,
        });
        if !blame.reports.is_enough() {
            blame.until = now + limits.ban;
        }
        blame.reports.add(limits, reporter)
    }

    pub(super) fn is_banned(&self, id: &HostId, now: Instant) -> bool {
        self.by_host
            .get(id)
            .is_some_and(|blame| blame.reports.is_enough() && now < blame.until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::{reports::enough_after, tests::epoch};

    /// Plays reports, `reporter` or `reporter!` for a seed, and tells after which the ban came.
    #[track_caller]
    fn check(reports: &str, expect: Option<usize>) {
        let (mut blames, limits) = (Blames::default(), Limits::default());
        let liar = "liar".parse().unwrap();
        let banned = enough_after(reports, |reporter| {
            blames.blame(epoch(), &limits, reporter, &liar)
        });
        assert_eq!(banned, expect, "{reports}");
        assert_eq!(blames.is_banned(&liar, epoch()), expect.is_some());
        let later = epoch() + limits.ban + Duration::from_secs(60);
        assert!(!blames.is_banned(&liar, later), "a ban ends");
    }

    #[test]
    fn three_hosts_or_one_seed_ban_a_liar() {
        check("a", None);
        check("a a a a", None);
        check("a b", None);
        check("a b a c", Some(3));
        check("a s!", Some(1));
    }

    #[test]
    fn reports_are_forgotten_after_a_while() {
        let (mut blames, limits) = (Blames::default(), Limits::default());
        let (now, liar) = (epoch(), "liar".parse().unwrap());
        let mut report = |at, id: &str| {
            let id = id.parse().unwrap();
            let reporter = Reporter {
                id: &id,
                is_believed: false,
            };
            blames.blame(at, &limits, reporter, &liar)
        };
        assert!(!report(now, "a"));
        assert!(!report(now, "b"));
        assert!(!report(now + limits.ban * 2, "c"));
    }
}
