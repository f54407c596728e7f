//! Pure: attempts at a task whose whole did not match its digest, and on whose word they are dropped
//! everywhere.
//!
//! A fetcher knows of its own attempt, and a seed is believed in this as in a ban. Of other hosts it
//! takes as many as for a ban: one alone could have every attempt dropped.

use std::time::Instant;

use protocol::{AttemptId, Down};

use super::{
    Limits,
    hosts::HostKey,
    peer::{Peer, PeerState},
    reports::{Reporter, Reports},
    source::Loss,
    turn::Turn,
};

/// The attempts at one task that somebody found wrong.
#[derive(Debug, Default)]
pub(super) struct Spoiled {
    attempts: Vec<Wrong>,
}

#[derive(Debug)]
struct Wrong {
    attempt: AttemptId,
    /// Enough of them have it dropped.
    reports: Reports,
    until: Instant,
}

// === impl Spoiled ===

impl Spoiled {
    /// `reporter` found `attempt` wrong; tells whether it is dropped from now on.
    fn report(
        &mut self,
        now: Instant,
        limits: &Limits,
        attempt: AttemptId,
        reporter: Reporter<'_>,
    ) -> bool {
        self.attempts.retain(|wrong| now < wrong.until);
        let known = self
            .attempts
            .iter()
            .position(|wrong| wrong.attempt == attempt);
        let place = known.unwrap_or_else(|| {
            if limits.spoiled_max <= self.attempts.len() {
                self.attempts.remove(0);
            }
            self.attempts.push(Wrong {
                attempt,
                reports: Reports::default(),
                until: now,
            });
            self.attempts.len() - 1
        });
        let wrong = &mut self.attempts[place];
        wrong.until = now + limits.spoiled_memory;
        wrong.reports.add(limits, reporter)
    }

    pub(super) fn is_dropped(&self, now: Instant, attempt: AttemptId) -> bool {
        self.dropped(now).any(|dropped| dropped == attempt)
    }

    /// When the last of them is forgotten.
    pub(super) fn until(&self) -> Option<Instant> {
        self.attempts.iter().map(|wrong| wrong.until).max()
    }

    fn dropped(&self, now: Instant) -> impl Iterator<Item = AttemptId> {
        let is_dropped = move |wrong: &&Wrong| wrong.reports.is_enough() && now < wrong.until;
        self.attempts
            .iter()
            .filter(is_dropped)
            .map(|wrong| wrong.attempt)
    }
}

// === impl Turn ===

impl Turn<'_> {
    /// `reporter` has the whole of its attempt, and it does not match.
    pub(super) fn spoil(&mut self, reporter: HostKey) {
        let (Some(peer), Some(record)) = (self.task.peer(reporter), self.hosts.get(reporter))
        else {
            return;
        };
        // Of one that told nothing it is not known which attempt it had.
        let attempt = peer.attempt;
        if peer.pieces == 0 {
            return;
        }
        let said = Reporter {
            id: &record.host.id,
            is_believed: record.is_seed || self.task.fetcher() == Some(reporter),
        };
        let spoiled = &mut self.task.spoiled;
        if !spoiled.report(self.now, self.limits, attempt, said) {
            return;
        }
        let unfinished =
            |(key, peer): &(HostKey, &Peer)| *key != reporter && peer.state != PeerState::Complete;
        let told = self.task.peers().filter(unfinished);
        let told = told.map(|(key, peer)| (key, peer.attempt == attempt));
        for (host, has_it) in told.collect::<Vec<_>>() {
            self.tell_drop(host, attempt);
            if has_it {
                self.leave(host, Loss::Left);
            }
        }
    }

    /// Names to `host` what it is to take from nobody.
    pub(super) fn tell_dropped(&mut self, host: HostKey) {
        for attempt in self.task.spoiled.dropped(self.now).collect::<Vec<_>>() {
            self.tell_drop(host, attempt);
        }
    }

    pub(super) fn tell_drop(&mut self, host: HostKey, attempt: AttemptId) {
        self.tell(host, |task| Down::Drop { task, attempt });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{reports::enough_after, tests::epoch};

    /// Plays reports of one attempt, `reporter` or `reporter!` for one that is believed, and tells
    /// after which it was dropped.
    #[track_caller]
    fn check(reports: &str, expect: Option<usize>) {
        let (mut spoiled, limits, attempt) = (Spoiled::default(), Limits::default(), AttemptId(7));
        let dropped = enough_after(reports, |reporter| {
            spoiled.report(epoch(), &limits, attempt, reporter)
        });
        assert_eq!(dropped, expect, "{reports}");
        assert_eq!(spoiled.is_dropped(epoch(), attempt), expect.is_some());
        assert!(!spoiled.is_dropped(epoch(), AttemptId(8)));
        let later = epoch() + limits.spoiled_memory * 2;
        assert!(!spoiled.is_dropped(later, attempt), "it is forgotten");
    }

    #[test]
    fn three_hosts_or_one_that_is_believed_have_an_attempt_dropped() {
        check("a", None);
        check("a a a a", None);
        check("a b", None);
        check("a b a c", Some(3));
        check("a s!", Some(1));
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut spoiled, limits) = (Spoiled::default(), Limits::default());
        let id = "s".parse().unwrap();
        let seed = Reporter {
            id: &id,
            is_believed: true,
        };
        for number in 0..=limits.spoiled_max as u64 {
            assert!(spoiled.report(epoch(), &limits, AttemptId(number), seed));
        }
        assert!(!spoiled.is_dropped(epoch(), AttemptId(0)));
        assert!(spoiled.is_dropped(epoch(), AttemptId(1)));
    }
}
