//! What the driver tells the scheduler of its download: batched, and never waited for long.

use std::time::{Duration, Instant};

use protocol::{
    AttemptId, HostId, Origin, PieceIndex, PieceSet, TaskId, Up, Want,
    scheduler::{Failure, Outcome, PROGRESS_INTERVAL},
};

use crate::{session::Sessions, source::SourceError};

/// Pieces are told this often while they come.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// The scheduler's picture of this download.
#[derive(Debug)]
pub(crate) struct Report {
    task: TaskId,
    sessions: Sessions,
    standing: Standing,
    /// Schedulers that ordered the task; they are told the same as the one that it belongs to.
    ordered_by: Vec<HostId>,
    new: PieceSet,
    told_at: Option<Instant>,
    due: Option<Instant>,
}

/// Who hears of this download.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// No scheduler has taken it.
    Unknown,
    Registered(HostId),
    /// It goes on without anybody: nothing of it is told.
    Silent,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(task: TaskId, sessions: Sessions) -> Self {
        Self {
            task,
            sessions,
            standing: Standing::Unknown,
            ordered_by: Vec::new(),
            new: PieceSet::default(),
            told_at: None,
            due: None,
        }
    }

    /// Registers the download; tells whether a scheduler heard it. Another one that had it before
    /// is told that it has it no more.
    pub(crate) async fn register(&mut self, origin: &Origin, wants: Vec<Want>) -> bool {
        let responsible = self.sessions.responsible(self.task).cloned();
        if let Standing::Registered(before) = &self.standing
            && Some(before) != responsible.as_ref()
            && !self.ordered_by.contains(before)
        {
            let left = Up::Finished {
                task: self.task,
                outcome: Outcome::Left,
            };
            self.sessions.send_to(before, left).await;
        }
        let register = Up::Register {
            task: self.task,
            origin: origin.clone(),
            wants,
        };
        let is_heard = self.sessions.send(self.task, register).await;
        self.standing = match responsible {
            Some(id) if is_heard => Standing::Registered(id),
            Some(_) | None => Standing::Unknown,
        };
        is_heard
    }

    /// Tells `scheduler`, which has ordered the task, what the one that it belongs to knows, and
    /// from now on everything that that one is told. Its answers are not heard.
    pub(crate) async fn also_tell(
        &mut self,
        scheduler: HostId,
        (origin, wants): (Origin, Vec<Want>),
        progress: Up,
    ) {
        let task = self.task;
        if self.is_silent() {
            // What is private each host asks for itself.
            let outcome = Outcome::Failed(Failure::Refused);
            let refused = Up::Finished { task, outcome };
            let _ = self.sessions.send_to(&scheduler, refused).await;
            return;
        }
        if self.sessions.responsible(task) != Some(&scheduler) {
            let register = Up::Register {
                task,
                origin,
                wants,
            };
            for message in [register, progress] {
                // As with `send`.
                let _ = self.sessions.send_to(&scheduler, message).await;
            }
        }
        if !self.ordered_by.contains(&scheduler) {
            self.ordered_by.push(scheduler);
        }
    }

    pub(crate) fn is_registered(&self) -> bool {
        matches!(self.standing, Standing::Registered(_))
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.standing == Standing::Silent
    }

    /// The download goes on without anybody: nothing of it is told.
    pub(crate) fn go_silent(&mut self) {
        self.standing = Standing::Silent;
    }

    pub(crate) fn has(&mut self, now: Instant, piece: PieceIndex) {
        // The first piece is told at once: somebody may be waiting for just that.
        let soon = self
            .told_at
            .map_or(now, |told_at| told_at + REPORT_INTERVAL);
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        self.new.insert(piece);
    }

    /// When [`Report::tell`] is due: with news soon, without them as proof of life.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Instant> {
        self.is_registered()
            .then(|| *self.due.get_or_insert(now + PROGRESS_INTERVAL))
    }

    pub(crate) async fn tell(&mut self, now: Instant, attempt: AttemptId, total: Option<u32>) {
        if !self.is_registered() || self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = Some(now + PROGRESS_INTERVAL);
        self.tell_all(attempt, total).await;
        self.told_at = Some(now);
    }

    /// Tells what was not told yet.
    async fn tell_all(&mut self, attempt: AttemptId, total: Option<u32>) {
        let new = std::mem::take(&mut self.new);
        let progress = Up::Progress {
            task: self.task,
            attempt,
            total,
            new,
        };
        self.send(progress).await;
    }

    /// The last word of a download that turned out wrong: which attempt that was.
    pub(crate) async fn spoiled(&mut self, attempt: AttemptId, total: Option<u32>) {
        if self.is_registered() && !self.new.is_empty() {
            self.tell_all(attempt, total).await;
        }
    }

    pub(crate) async fn finished(&mut self, outcome: Outcome) {
        if self.is_registered() {
            self.send(Up::Finished {
                task: self.task,
                outcome,
            })
            .await;
        }
    }

    pub(crate) async fn send(&self, message: Up) {
        let own = self.sessions.responsible(self.task);
        for other in self.ordered_by.iter().filter(|other| Some(*other) != own) {
            let _ = self.sessions.send_to(other, message.clone()).await;
        }
        // A scheduler that does not hear it learns it when the session opens again.
        let _ = self.sessions.send(self.task, message).await;
    }
}

/// What others are told of a source that gave nothing.
pub(crate) fn failure_of(error: &SourceError) -> Failure {
    match error {
        SourceError::Refused(_) => Failure::Refused,
        SourceError::Status(answer) if answer.status == http::StatusCode::NOT_FOUND => {
            Failure::NotFound
        }
        SourceError::NotAllowed(_) | SourceError::Forbidden { .. } => Failure::Local,
        SourceError::Status(_)
        | SourceError::RateLimited { .. }
        | SourceError::Unreachable { .. }
        | SourceError::Stalled { .. }
        | SourceError::Redirect(_)
        | SourceError::Interrupted
        | SourceError::TooLong { .. }
        | SourceError::Malformed(_) => Failure::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use protocol::Digest;

    use super::*;

    #[tokio::test]
    async fn pieces_are_told_soon_and_the_first_at_once() {
        let task = TaskId(Digest::sha256_of(b"task"));
        let mut report = Report::new(task, Sessions::new(Vec::new()));
        report.standing = Standing::Registered("scheduler".parse().unwrap());
        let start = crate::task::driver::clock();
        let mut tell = async |at: u64, piece: Option<u32>| {
            let now = start + Duration::from_millis(at);
            if let Some(piece) = piece {
                report.has(now, PieceIndex(piece));
            }
            let due = report.due(now).unwrap();
            report.tell(now, AttemptId(1), None).await;
            (due.saturating_duration_since(start)).as_millis()
        };
        assert_eq!(tell(0, None).await, 2000, "that it lives");
        assert_eq!(tell(10, Some(0)).await, 10, "the first");
        assert_eq!(tell(20, Some(1)).await, 260, "with what else comes");
        assert_eq!(tell(30, Some(2)).await, 260);
        assert_eq!(tell(260, None).await, 260);
        assert_eq!(tell(270, None).await, 2260, "that it lives");
        assert_eq!(tell(1000, Some(3)).await, 510, "after a while");
    }
}
