//! Whoever follows a preheat: is told where it stands as often as there is room.
//!
//! It decides nothing. A follower that reads slowly misses what is outdated and never the end; one
//! that is gone ends its preheat.

use std::collections::BTreeMap;

use protocol::operator::{PROGRESS_QUEUE, PreheatProgress};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{engine::Engine, metrics::Metrics};

/// The followers of all open preheats, by the engine's numbers.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    by_number: BTreeMap<u64, Follower>,
}

#[derive(Debug)]
struct Follower {
    sender: mpsc::Sender<PreheatProgress>,
    /// What there was no room for.
    unsent: Option<PreheatProgress>,
}

/// What a follower needs yet.
enum Rest {
    Something,
    /// It was told the end, or is gone.
    Nothing,
}

// === impl Followers ===

impl Followers {
    pub(crate) fn add(&mut self, number: u64) -> mpsc::Receiver<PreheatProgress> {
        let (sender, progress) = mpsc::channel(PROGRESS_QUEUE);
        let unsent = None;
        self.by_number.insert(number, Follower { sender, unsent });
        progress
    }

    /// Tells what is new, and ends the preheats that need no more.
    pub(crate) fn tell(&mut self, engine: &mut Engine, metrics: &Metrics) {
        while let Some((number, progress)) = engine.poll_preheat() {
            if let Some(follower) = self.by_number.get_mut(&number) {
                follower.unsent = Some(progress);
            }
        }
        self.by_number
            .retain(|number, follower| match follower.tell(metrics) {
                Rest::Something => true,
                Rest::Nothing => {
                    engine.end_preheat(*number);
                    false
                }
            });
        metrics.preheating(self.by_number.len());
    }
}

// === impl Follower ===

impl Follower {
    fn tell(&mut self, metrics: &Metrics) -> Rest {
        let Some(progress) = self.unsent.take() else {
            return match self.sender.is_closed() {
                true => Rest::Nothing,
                false => Rest::Something,
            };
        };
        let states = progress.is_over().then(|| progress.clone());
        match self.sender.try_send(progress) {
            Ok(()) => match states {
                Some(over) => {
                    metrics.preheated(&over);
                    Rest::Nothing
                }
                None => Rest::Something,
            },
            Err(TrySendError::Full(progress)) => {
                self.unsent = Some(progress);
                Rest::Something
            }
            Err(TrySendError::Closed(_)) => Rest::Nothing,
        }
    }
}
