//! Attempts whose whole did not match its digest, and who is to blame once another try has succeeded.
//!
//! While only one attempt is known nobody can say which of its pieces were wrong. When a later one
//! holds, whoever signed a piece that differs from it lied, or passed on what its source told it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use protocol::{
    AttemptId, PieceDigest, PieceIndex, TaskId, Up,
    scheduler::{Failure, Outcome, ParentFailure},
};

use super::{
    SharedBatch, TaskFailure,
    driver::{Driver, clock, wall_clock},
};

/// How long no resume of a wrong body is served: the missing tail would complete it.
const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// How long a wrong attempt is refused, and compared with one that holds.
const SPOILED_FOR: Duration = Duration::from_secs(600);

/// Tasks remembered at once; further ones are not.
const TASKS_MAX: usize = 1024;

/// Wrong attempts of one task remembered; the oldest is forgotten.
const ATTEMPTS_MAX: usize = 8;

/// What this host knows of attempts that failed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spoiled {
    by_task: Arc<Mutex<HashMap<TaskId, Memory>>>,
}

#[derive(Debug)]
struct Memory {
    noted_at: Instant,
    /// When an attempt of this host's own failed.
    failed_at: Option<Instant>,
    attempts: Vec<Wrong>,
}

#[derive(Debug, Clone)]
struct Wrong {
    attempt: AttemptId,
    batches: Vec<SharedBatch>,
}

// === impl Spoiled ===

impl Spoiled {
    /// Whether some attempt at `task` was wrong a short while ago.
    pub(crate) fn is_suspect(&self, now: Instant, task: TaskId) -> bool {
        let by_task = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = by_task.get(&task);
        let failed_at = memory.and_then(|memory| memory.failed_at);
        failed_at.is_some_and(|failed_at| now < failed_at + SUSPECT_FOR)
    }

    pub(crate) fn is_spoiled(&self, task: TaskId, attempt: AttemptId) -> bool {
        let by_task = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = by_task.get(&task);
        memory.is_some_and(|memory| memory.attempts.iter().any(|wrong| wrong.attempt == attempt))
    }

    /// An attempt of this host was wrong, or is said to be.
    fn failed(&self, now: Instant, task: TaskId, wrong: Wrong) {
        self.remember(now, task, wrong, Some(now));
    }

    /// An attempt of others is wrong: it is to be taken from nobody.
    fn heard(&self, now: Instant, task: TaskId, attempt: AttemptId) {
        let batches = Vec::new();
        self.remember(now, task, Wrong { attempt, batches }, None);
    }

    fn remember(&self, now: Instant, task: TaskId, wrong: Wrong, failed_at: Option<Instant>) {
        let mut by_task = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
        by_task.retain(|_, memory| now < memory.noted_at + SPOILED_FOR);
        if TASKS_MAX <= by_task.len() && !by_task.contains_key(&task) {
            return;
        }
        let memory = by_task.entry(task).or_insert_with(|| Memory {
            noted_at: now,
            failed_at: None,
            attempts: Vec::new(),
        });
        memory.noted_at = now;
        memory.failed_at = failed_at.or(memory.failed_at);
        let known = memory
            .attempts
            .iter_mut()
            .find(|known| known.attempt == wrong.attempt);
        match known {
            Some(known) if known.batches.is_empty() => *known = wrong,
            Some(_) => {}
            None => memory.attempts.push(wrong),
        }
        if ATTEMPTS_MAX < memory.attempts.len() {
            memory.attempts.remove(0);
        }
    }

    fn take(&self, task: TaskId) -> Vec<Wrong> {
        let mut by_task = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
        by_task
            .remove(&task)
            .map_or_else(Vec::new, |memory| memory.attempts)
    }
}

// === impl Wrong ===

impl Wrong {
    /// The batches that say something else of a piece than `right` does.
    fn false_batches(
        self,
        right: impl Fn(PieceIndex) -> Option<PieceDigest>,
    ) -> impl Iterator<Item = SharedBatch> {
        self.batches.into_iter().filter(move |signed| {
            let digests = &signed.batch.digests;
            digests
                .iter()
                .any(|(piece, digest)| right(*piece).is_some_and(|right| right != *digest))
        })
    }
}

// === impl Driver ===

impl Driver {
    /// Remembers an attempt that was wrong; after one that holds, blames those who signed what
    /// differs from it.
    pub(super) async fn judge_attempts(&mut self, outcome: Outcome) {
        let task = self.wish.task;
        match outcome {
            Outcome::Failed(Failure::Corrupt) => {
                let wrong = Wrong {
                    attempt: self.attempt.id(),
                    batches: self.attempt.batches().to_vec(),
                };
                self.report
                    .spoiled(wrong.attempt, self.attempt.piece_count())
                    .await;
                self.host.spoiled.failed(clock(), task, wrong);
            }
            Outcome::Complete => {
                for wrong in self.host.spoiled.take(task) {
                    self.blame_signers(wrong).await;
                }
            }
            Outcome::Left | Outcome::Failed(_) => {}
        }
    }

    /// The scheduler says that others found `attempt` wrong. Of one that is here whole, this host's
    /// own check tells.
    pub(super) fn drop_attempt(&mut self, attempt: AttemptId) {
        if attempt != self.attempt.id() {
            self.host.spoiled.heard(clock(), self.wish.task, attempt);
        } else if !self.conductor.is_whole() {
            self.fail(TaskFailure::Corrupt);
        }
    }

    async fn blame_signers(&mut self, wrong: Wrong) {
        let identity = self.host.identity.clone();
        let attempt = &self.attempt;
        let has_same_cuts = |signed: &SharedBatch| {
            let cuts = attempt.layout().map(|layout| layout.piece_len());
            cuts == Some(signed.batch.layout.piece_len())
        };
        let false_batches: Vec<_> = wrong
            .false_batches(|piece| attempt.digest_of(piece))
            .filter(has_same_cuts)
            .collect();
        for signed in false_batches {
            let Ok(signer) = signed.signer(&identity, wall_clock()) else {
                continue;
            };
            if signer.id == *identity.id() || self.host.bans.is_banned(clock(), &signer.id) {
                continue;
            }
            tracing::warn!(task = %self.wish.task, signer = %signer.id, "signed pieces that turned out wrong");
            self.host.bans.ban(clock(), &signer.id);
            let blamed = Up::ParentFailed {
                task: self.wish.task,
                parent: signer.id,
                reason: ParentFailure::Lied,
            };
            self.report.send(blamed).await;
        }
    }
}
