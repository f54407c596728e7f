//! The end of a download: what is kept of it, and what the scheduler is told.

use std::sync::Arc;

use protocol::{
    Up,
    scheduler::{Failure, Outcome},
};

use super::{Stage, TaskFailure, driver::Driver, report};

impl Driver {
    pub(super) async fn close(&mut self, stage: &Stage) {
        self.jobs.shutdown().await;
        self.publish();
        while self.keeping.join_next().await.is_some() {}
        let outcome = match stage {
            Stage::Running | Stage::Complete => Outcome::Complete,
            Stage::Failed(TaskFailure::Cancelled | TaskFailure::Removed) => Outcome::Left,
            Stage::Failed(TaskFailure::Corrupt) => Outcome::Failed(Failure::Corrupt),
            Stage::Failed(TaskFailure::NoRoom) => Outcome::Failed(Failure::Local),
            Stage::Failed(TaskFailure::Source(error)) => Outcome::Failed(report::failure_of(error)),
        };
        self.judge_attempts(outcome).await;
        if outcome == Outcome::Complete
            && let Some(proof) = self.attempt.proof()
        {
            self.report.send(Up::Proves(Arc::new(proof))).await;
        }
        self.attempt.close(&self.host.store, outcome).await;
        self.report
            .finished(match outcome {
                // What was fetched without the right to sign it is held for this host alone.
                Outcome::Complete if !self.is_all_proven() => Outcome::Left,
                outcome => outcome,
            })
            .await;
    }

    /// Whether others can be given everything that is held.
    fn is_all_proven(&self) -> bool {
        let held = self.attempt.held();
        self.attempt.proven(held).len() == held.len()
    }
}
