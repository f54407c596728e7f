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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use protocol::{
        AttemptId, ContentKind, Digest, Origin, PieceSet, TaskId, Up,
        operator::{PreheatOrder, Scope},
        scheduler::Hello,
    };

    use super::*;
    use crate::engine::{Event, Limits};

    #[test]
    fn a_follower_that_reads_late_misses_what_is_outdated_and_never_the_end() {
        #[expect(clippy::disallowed_methods, reason = "any origin will do")]
        let mut now = Instant::now();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let mut engine = Engine::new(Limits::default(), Vec::new());
        let mut followers = Followers::default();
        let hello = Hello {
            host: "s@127.0.0.1:1".parse().unwrap(),
            is_seed: true,
            upload_slots: 8,
            idc: None,
            location: None,
        };
        let (seed, task) = (hello.host.id.clone(), TaskId(Digest::sha256_of(b"it")));
        let origin = Origin {
            registry: "r.example".parse().unwrap(),
            repository: "a".parse().unwrap(),
            kind: ContentKind::Blob,
        };
        engine.handle(now, Event::Joined(hello));
        let tasks = vec![(task, origin.clone())];
        let scope = Scope::Seeds;
        let number = engine.preheat(now, PreheatOrder { tasks, scope }).unwrap();
        let mut followed = followers.add(number);
        let mut said = |up, followers: &mut Followers| {
            engine.handle(now, Event::Said(seed.clone(), up));
            now += Duration::from_millis(200);
            engine.handle_timeout(now);
            followers.tell(&mut engine, &metrics);
        };
        said(
            Up::Register {
                task,
                origin,
                wants: Vec::new(),
            },
            &mut followers,
        );
        for piece in 0..9 {
            let progress = Up::Progress {
                task,
                attempt: AttemptId(1),
                total: Some(9),
                new: PieceSet::of_range(piece..piece + 1),
            };
            said(progress, &mut followers);
        }
        said(Up::Held { tasks: vec![task] }, &mut followers);
        let mut told = Vec::new();
        while let Ok(progress) = followed.try_recv() {
            told.push(progress.tasks[0].pieces);
        }
        assert_eq!(told, [0, 1, 2, 3]);
        said(
            Up::Load {
                uploads: 0,
                upload_rate: 0,
            },
            &mut followers,
        );
        assert!(followed.try_recv().is_ok_and(|last| last.is_over()));
        assert!(followed.is_closed() && followers.by_number.is_empty());
    }
}
