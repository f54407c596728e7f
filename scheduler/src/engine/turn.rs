//! Pure: what one event does to one task, and what its peers are told.
//!
//! Invariant at the end of a turn: every peer that is not complete has a parent, has the grant, or
//! waits; and where somebody waits, either the source is on its way or a parent's slot is.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use protocol::{
    AttemptId, Origin,
    scheduler::{Failure, Outcome},
};

use super::{
    Command, Limits,
    filter::{Filter, Lack},
    hosts::{HostKey, Hosts},
    peer::{PeerState, Supply},
    phase::Phase,
    source::Loss,
    task::Task,
};

/// One event's turn at one task.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) limits: &'a Limits,
    pub(super) hosts: &'a mut Hosts,
    pub(super) task: &'a mut Task,
    pub(super) commands: &'a mut VecDeque<Command>,
    /// Grants given so far, over all tasks.
    pub(super) grants: &'a mut u64,
    /// When the next host for which no time is set may be sent to the upstream, over all tasks.
    pub(super) alone_at: &'a mut Option<Instant>,
    /// Children that lost a parent in this turn.
    pub(super) affected: Vec<HostKey>,
    /// Children whose parents have changed in this turn; each is told once, at its end.
    pub(super) outdated: BTreeSet<HostKey>,
    /// Those who have lost siblings in this turn.
    pub(super) lonely: Vec<HostKey>,
    /// Hosts that the cluster bans from this turn on.
    pub(super) banned: Vec<HostKey>,
    /// Whether something changed for those who wait.
    pub(super) stirred: bool,
}

/// What [`protocol::Up::Progress`] tells of one task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    pub(super) attempt: AttemptId,
    pub(super) total: Option<u32>,
    pub(super) new: u32,
}

// === impl Turn ===

impl Turn<'_> {
    pub(super) fn register(&mut self, child: HostKey, origin: Origin) {
        self.task.origin.get_or_insert(origin);
        match self.task.state(child) {
            Some(PeerState::AtSource) => return self.tell_grant(child),
            // Who asks for what it is known to hold has lost it.
            Some(PeerState::Complete) => {
                self.remove_peer(child);
                self.insert_waiting(child);
            }
            None => {
                if !self.has_room_for(child) {
                    return self.tell_alone(child, Failure::Local);
                }
                self.insert_waiting(child);
                self.tell_dropped(child);
            }
            Some(PeerState::Waiting { .. }) => self.task.set_renew_at(child, self.now),
            Some(PeerState::Fed) => return self.refill(child),
        }
        self.answer(child);
    }

    pub(super) fn progress(&mut self, host: HostKey, report: Report) {
        let is_fetcher = self.task.fetcher() == Some(host);
        if is_fetcher || self.task.total.is_none() {
            self.task.total = report.total.or(self.task.total);
        }
        let is_dropped = self.task.spoiled.is_dropped(self.now, report.attempt);
        let Some(peer) = self.task.peer_mut(host) else {
            return;
        };
        if is_dropped && peer.state != PeerState::Complete {
            // It had it from before, and had not heard.
            self.tell_drop(host, report.attempt);
            return self.leave(host, Loss::Left);
        }
        if peer.attempt != report.attempt {
            peer.attempt = report.attempt;
            peer.pieces = 0;
        }
        peer.pieces = peer.pieces.saturating_add(report.new);
        if is_fetcher {
            self.prove(report.new);
        }
    }

    pub(super) fn finished(&mut self, host: HostKey, outcome: Outcome) {
        match outcome {
            Outcome::Complete if self.task.peer(host).is_some() => self.complete(host),
            Outcome::Complete => {}
            Outcome::Left => self.leave(host, Loss::Left),
            Outcome::Failed(failure) => {
                if failure == Failure::Corrupt {
                    self.spoil(host);
                }
                self.leave(host, Loss::Failed(failure));
            }
        }
    }

    /// `host` holds the whole.
    pub(super) fn complete(&mut self, host: HostKey) {
        match self.task.state(host) {
            Some(PeerState::Complete) => return,
            Some(PeerState::Waiting { .. } | PeerState::Fed | PeerState::AtSource) => {}
            None => return self.insert_complete(host),
        }
        for parent in self.parents(host) {
            self.unlink(parent, host);
            if let Some(parent) = self.hosts.get_mut(parent) {
                parent.served();
            }
        }
        if self.task.source_host() == Some(host) {
            self.source_done(host);
        }
        self.task.set_supplying(host, Supply::Complete);
        self.task.set_rooted(host);
        self.stirred = true;
        self.offer();
    }

    /// There is one more good parent: a few of those with fewer than they may have are looked at, and
    /// others the next time.
    fn offer(&mut self) {
        for child in self.task.next_fed(self.limits.offered_max) {
            if self.parents(child).len() < self.limits.parents_max
                && let Ok(parents) = self.search(child)
            {
                self.link_all(child, &parents);
                self.outdated.insert(child);
            }
        }
    }

    /// `host` takes no part any more.
    pub(super) fn leave(&mut self, host: HostKey, loss: Loss) {
        let was_source = self.task.source_host() == Some(host);
        self.remove_peer(host);
        if was_source {
            self.source_lost(host, loss);
        }
    }

    pub(super) fn dropped(&mut self, host: HostKey) {
        if self.task.state(host) == Some(PeerState::Complete) {
            self.remove_peer(host);
        }
    }

    /// The unfinished peers of a task of which nothing is heard are forgotten.
    pub(super) fn forget_unfinished(&mut self) {
        let unfinished = |(key, state)| (state != PeerState::Complete).then_some(key);
        let peers = self.task.peers().map(|(key, peer)| (key, peer.state));
        for host in peers.filter_map(unfinished).collect::<Vec<_>>() {
            self.remove_peer(host);
        }
        if let Some(host) = self.task.source_host() {
            self.forget_warming(host);
        }
        self.task.phase = Phase::Quiet;
    }

    /// Answers everybody whom this turn has moved. Ends each turn.
    pub(super) fn settle(&mut self) {
        loop {
            let affected = std::mem::take(&mut self.affected);
            self.answer_affected(&affected);
            if self.stirred && self.task.has_waiting() {
                self.stirred = false;
                self.serve_waiting();
            } else if self.affected.is_empty() {
                break;
            }
        }
        self.comfort_lonely();
        for child in std::mem::take(&mut self.outdated) {
            if self.task.state(child) == Some(PeerState::Fed) {
                self.tell_parents(child);
            }
        }
        if !self.task.has_waiting() {
            self.task.retry_at = None;
        } else if self.task.retry_at.is_none_or(|at| at <= self.now) {
            self.task.retry_at = Some(self.now + self.limits.retry);
        }
        if let Some(at) = self.next_alone() {
            self.task.retry_at = self.task.retry_at.map(|retry| retry.min(at));
        }
    }

    /// Repeats `Wait` to those whose patience runs down.
    pub(super) fn renew_waits(&mut self) {
        for host in self.task.waiting().collect::<Vec<_>>() {
            self.tell_wait(host);
        }
    }

    pub(super) fn parents(&self, child: HostKey) -> Vec<HostKey> {
        self.task
            .peer(child)
            .map_or_else(Vec::new, |peer| peer.parents.clone())
    }

    /// Cuts `host` off from its children, who will be answered at the end of the turn.
    pub(super) fn shed_children(&mut self, host: HostKey) {
        let children = self
            .task
            .peer(host)
            .map_or_else(Vec::new, |peer| peer.children.clone());
        for child in children {
            self.unlink(host, child);
            self.affected.push(child);
        }
    }

    fn has_room_for(&self, host: HostKey) -> bool {
        let tasks = self.hosts.get(host).map_or(0, |record| record.tasks.len());
        self.task.peer_count() < self.limits.peers_per_task_max
            && tasks < self.limits.tasks_per_host_max
    }

    fn insert_waiting(&mut self, host: HostKey) {
        self.task.insert_waiting(self.now, host);
        self.note_task(host);
    }

    fn insert_complete(&mut self, host: HostKey) {
        if self.has_room_for(host) {
            self.task.insert_complete(host);
            self.note_task(host);
            if self.task.source_host() == Some(host) {
                self.source_done(host);
            }
            self.stirred = true;
            self.offer();
        }
    }

    fn note_task(&mut self, host: HostKey) {
        if let Some(record) = self.hosts.get_mut(host) {
            record.tasks.insert(self.task.id);
        }
    }

    pub(super) fn remove_peer(&mut self, host: HostKey) {
        for parent in self.parents(host) {
            self.unlink(parent, host);
        }
        self.shed_children(host);
        self.unpair_all(host);
        self.task.remove(host);
        // Somebody may have waited for a slot of this very host.
        self.stirred = true;
        if let Some(record) = self.hosts.get_mut(host) {
            record.tasks.remove(&self.task.id);
        }
    }

    pub(super) fn unlink(&mut self, parent: HostKey, child: HostKey) -> bool {
        let was_there = self.task.unlink(parent, child);
        if was_there {
            self.stirred = true;
            if let Some(record) = self.hosts.get_mut(parent) {
                record.release_slot();
            }
        }
        was_there
    }

    /// Those who have nobody left stop being suppliers before anybody is answered, so that none of
    /// them is given to another.
    fn answer_affected(&mut self, affected: &[HostKey]) {
        for child in affected {
            let Some(peer) = self.task.peer(*child) else {
                continue;
            };
            if peer.state == PeerState::Fed && peer.parents.is_empty() {
                self.task.set_waiting(self.now, *child);
            }
        }
        for child in affected {
            match self.task.state(*child) {
                Some(PeerState::Fed) => self.refill(*child),
                Some(PeerState::Waiting { .. }) => self.answer(*child),
                Some(PeerState::AtSource | PeerState::Complete) | None => {}
            }
        }
    }

    fn answer(&mut self, child: HostKey) {
        if self.task.source_host() == Some(child) {
            // Somebody had no use for those who say that they hold it.
            return self.grant(child);
        }
        match self.search(child) {
            Ok(parents) => self.feed(child, &parents),
            Err(lack) => self.starve(child, lack),
        }
    }

    /// Gives a child that has parents more of them, and tells it all.
    fn refill(&mut self, child: HostKey) {
        if let Ok(parents) = self.search(child) {
            self.link_all(child, &parents);
        }
        self.pair_up(child);
        self.outdated.insert(child);
    }

    fn feed(&mut self, child: HostKey, parents: &[HostKey]) {
        self.link_all(child, parents);
        self.task.set_supplying(child, Supply::Fed);
        self.pair_up(child);
        self.outdated.insert(child);
        self.stirred = true;
    }

    fn link_all(&mut self, child: HostKey, parents: &[HostKey]) {
        for parent in parents {
            self.task.link(*parent, child);
            if let Some(record) = self.hosts.get_mut(*parent) {
                record.take_slot();
            }
        }
    }

    /// Whom to add to the parents of `child`.
    fn search(&mut self, child: HostKey) -> Result<Vec<HostKey>, Lack> {
        let examined = self
            .task
            .next_suppliers(self.limits.candidates_examined_max);
        let known = self.parents(child);
        let filter = Filter::new(self.now, self.limits, self.hosts, self.task, child);
        filter.choose(&examined, &known)
    }

    fn serve_waiting(&mut self) {
        let end = self.task.queue_end();
        let mut next = 0;
        let mut starved = 0;
        while let Some((place, child)) = self.task.waiting_from(next, end) {
            next = place + 1;
            match self.search(child) {
                Ok(parents) => self.feed(child, &parents),
                Err(lack) => {
                    self.starve(child, lack);
                    starved += 1;
                }
            }
            if self.limits.starved_per_round_max <= starved {
                break;
            }
        }
    }
}
