//! What the store needs beside its readers: one scan after the start, a scrub while nothing else
//! is to be done, the count of sessions, and word to the schedulers of what is held no more. And
//! word to them of how busy this host is, by which they also know that it lives.

use std::time::Duration;

use protocol::Up;
use tokio::time::MissedTickBehavior;

use super::{Swarm, clock};
use crate::{peer::PeerServer, store::ScrubStep};

/// How often the schedulers hear of removals, and the scrub looks whether the node is idle.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often the schedulers hear how busy this host is; far below the silence after which one of
/// them takes a host for dead.
const LOAD_INTERVAL: Duration = Duration::from_secs(3);

/// Pieces verified in one idle interval: 16 MiB to 256 MiB.
const SCRUB_PIECES: usize = 64;

impl Swarm {
    /// Runs until it is dropped.
    pub(super) async fn keep_up(&self) {
        let store = self.store().clone();
        // A scan that is dropped ends at `Store::stop`.
        let _ = tokio::task::spawn_blocking(move || store.scan()).await;
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            self.tell_removals().await;
            self.inner.metrics.sessions.set(self.sessions().0 as i64);
            let is_idle = self.flights().is_empty();
            if is_idle {
                self.scrub().await;
            }
        }
    }

    /// Runs until it is dropped. Apart from the rest, since a scan may take long.
    pub(super) async fn tell_load(&self, server: PeerServer) {
        let mut ticks = tokio::time::interval(LOAD_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sent_before, mut before) = (server.bytes_sent(), clock());
        loop {
            ticks.tick().await;
            let (sent, now) = (server.bytes_sent(), clock());
            let elapsed = now
                .saturating_duration_since(before)
                .as_secs_f64()
                .max(0.001);
            let upload_rate = (sent.saturating_sub(sent_before) as f64 / elapsed) as u64;
            (sent_before, before) = (sent, now);
            let sessions = &self.inner.surroundings.sessions;
            sessions.tell_load(server.uploads(), upload_rate);
        }
    }

    async fn tell_removals(&self) {
        for task in self.store().take_removals() {
            // A scheduler that is away is told what is held when its session opens again.
            let dropped = Up::Dropped { tasks: vec![task] };
            self.inner.surroundings.sessions.send(task, dropped).await;
        }
    }

    async fn scrub(&self) {
        let store = self.store().clone();
        let scrubbed = tokio::task::spawn_blocking(move || {
            for _ in 0..SCRUB_PIECES {
                match store.scrub_step() {
                    ScrubStep::Checked { .. } => {}
                    ScrubStep::Dropped { task, piece } => {
                        tracing::warn!(%task, piece = piece.0, "the disk damaged a piece; it is fetched again when wanted");
                    }
                    ScrubStep::Done => return,
                }
            }
        });
        if let Err(error) = scrubbed.await {
            tracing::error!(%error, "the scrub failed");
        }
    }
}
