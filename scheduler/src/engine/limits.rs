//! Every bound and every time of the engine, in one place, with what happens when it is reached.
//!
//! It decides nothing; [`super::Engine`] is the only reader.

use std::time::Duration;

use protocol::scheduler::PROGRESS_INTERVAL;

/// Bounds and times of one engine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Hosts with a session; one more is not taken, and its session is closed.
    pub hosts_max: usize,
    /// Tasks known; a registration for one more is answered with `OnYourOwn`, an announcement
    /// for one more is passed over.
    pub tasks_max: usize,
    /// Peers of one task, holders included; one more is answered as with `tasks_max`.
    pub peers_per_task_max: usize,
    /// Tasks that one host takes part in, held or fetched; one more is answered as above.
    pub tasks_per_host_max: usize,
    /// Parents of one peer; no more are given.
    pub parents_max: usize,
    /// Siblings of one peer; beyond it a newcomer takes the place of a pair. 0 is none.
    pub siblings_max: usize,
    /// Peers that are looked at for a further parent when another one holds the whole.
    pub offered_max: usize,
    /// Holders named to a new fetcher, so that it asks the source only for the rest.
    pub holders_max: usize,
    /// Children that a peer is given in each task even when the slots of its host are taken by
    /// other tasks, so that the tree of every task grows; the host may still say that it is busy.
    pub reserved_children: usize,
    /// Hops between a peer and a source; a candidate at that depth is refused.
    pub depth_max: u16,
    /// Candidates looked at for one answer; the others have their turn in the next answer.
    pub candidates_examined_max: usize,
    /// Waiting peers that may find nobody before a round over the waiting ends; the others have
    /// their turn in the next round.
    pub starved_per_round_max: usize,
    /// Parents that one peer reported and is not given again; the oldest is forgotten first.
    pub exclusions_max: usize,
    /// Fetchers that failed a task and are passed over; the oldest is forgotten first.
    pub failed_fetchers_max: usize,
    /// Fetchers lost before everybody is told to ask the upstream for itself.
    pub attempts_max: u32,
    /// How long a seed of the view may be without a session before its tasks go to the next one.
    pub seed_absence: Duration,
    /// Hosts that must say of another that it lied before the cluster bans it; a seed's word
    /// is enough alone.
    pub reporters_min: usize,
    /// How long a ban lasts, and a report counts.
    pub ban: Duration,
    /// Hosts that are blamed at once; a report about one more is not taken.
    pub blamed_max: usize,
    /// Contents of one piece whose proof is kept, of about 1 KiB each; further ones are not.
    pub proofs_max: usize,
    /// Wrong attempts of one task that are remembered; the oldest is forgotten first.
    pub spoiled_max: usize,
    /// How long a wrong attempt is remembered, and a report of one counts.
    pub spoiled_memory: Duration,
    /// How long the first grant is held back where the view has no seed, so that a herd that
    /// arrives together finds one fetcher. May be zero.
    pub settle: Duration,
    /// A fetcher that proves nothing for this long has lost its grant.
    pub proof: Duration,
    /// A fetcher that lives and gets no piece for this long has lost its grant.
    pub stall: Duration,
    /// What `Wait` tells; renewed three times as often.
    pub patience: Duration,
    /// How often the waiting are looked at where nothing else happens.
    pub retry: Duration,
    /// A peer that found nobody for this long is helped in another way: by one more source, by another
    /// fetcher, or where others get it from the one there is, by its own means.
    pub starvation: Duration,
    /// A peer that has waited for this long, and that only those could feed who get their pieces from
    /// it, lets them go. Longer than `busy_exclusion`, since a parent that was only busy is soon of use again.
    pub circle: Duration,
    /// The least time between two hosts of the cluster that are sent to an upstream that failed, each
    /// by itself; the others wait.
    pub alone_interval: Duration,
    /// How long a failure is remembered and told to whoever registers.
    pub failure_memory: Duration,
    /// How long a fetcher that failed a task is passed over for it.
    pub failed_fetcher_memory: Duration,
    /// How long a child is not given a parent again that it found busy.
    pub busy_exclusion: Duration,
    /// How long a child is not given a parent again that it could not use.
    pub failed_exclusion: Duration,
    /// How long a child is not given a parent again that lied to it.
    pub liar_exclusion: Duration,
    /// A host that says nothing for this long is given to nobody, and sent to the source only where no
    /// other can be.
    pub host_silence: Duration,
    /// The session of a host that says nothing for this long is over.
    pub host_expiry: Duration,
    /// A task of which nothing was heard for this long loses its unfinished peers.
    pub task_idle: Duration,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            hosts_max: 100_000,
            tasks_max: 1_000_000,
            peers_per_task_max: 100_000,
            tasks_per_host_max: 100_000,
            parents_max: 4,
            siblings_max: 16,
            offered_max: 4,
            holders_max: 8,
            reserved_children: 2,
            depth_max: 16,
            candidates_examined_max: 64,
            starved_per_round_max: 4,
            exclusions_max: 16,
            failed_fetchers_max: 16,
            attempts_max: 3,
            seed_absence: Duration::from_secs(5),
            reporters_min: 3,
            ban: Duration::from_secs(600),
            blamed_max: 1024,
            proofs_max: 65_536,
            spoiled_max: 8,
            spoiled_memory: Duration::from_secs(600),
            settle: Duration::from_millis(50),
            proof: PROGRESS_INTERVAL * 3,
            stall: Duration::from_secs(60),
            patience: Duration::from_secs(12),
            retry: Duration::from_secs(1),
            starvation: Duration::from_secs(20),
            circle: Duration::from_secs(3),
            alone_interval: Duration::from_millis(100),
            failure_memory: Duration::from_secs(5),
            failed_fetcher_memory: Duration::from_secs(60),
            busy_exclusion: Duration::from_secs(2),
            failed_exclusion: Duration::from_secs(60),
            liar_exclusion: Duration::from_secs(600),
            host_silence: Duration::from_secs(10),
            host_expiry: Duration::from_secs(30),
            task_idle: Duration::from_secs(600),
        }
    }
}
