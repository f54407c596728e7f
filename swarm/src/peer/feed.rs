//! Pure: what a child is told next about one task, by what it was told before.
//!
//! Invariant: a piece is told of as held only after the batch that proves it, and only once. There
//! is no queue: a child that reads slowly is told more at once. Whether it is this child's turn to
//! hear of a piece is [`super::spread`]'s to say.

use std::time::Instant;

use protocol::{AttemptId, Content, Layout, PieceIndex, PieceSet, TaskId, availability::Tell};

use super::spread::Turn;
use crate::task::{Progress, Stage};

/// What one child was told of one task.
#[derive(Debug)]
pub(super) struct Feed {
    task: TaskId,
    attempt: Option<AttemptId>,
    /// Batches of `attempt` that were told.
    batches: usize,
    /// The pieces in them.
    proven: PieceSet,
    held: PieceSet,
    size_told: bool,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    Tell(Tell),
    /// The child knows everything that it is to know before this.
    Wait(Option<Instant>),
    /// There is nothing to be had here. The feed is over.
    Gone,
}

// === impl Feed ===

impl Feed {
    pub(super) fn new(task: TaskId) -> Self {
        Self {
            task,
            attempt: None,
            batches: 0,
            proven: PieceSet::default(),
            held: PieceSet::default(),
            size_told: false,
        }
    }

    /// The next message. Call until it returns [`Next::Wait`], and again when `progress` changed.
    /// `turn` tells when the child is to hear of a piece that is held.
    pub(super) fn next(
        &mut self,
        progress: &Progress,
        turn: impl FnMut(&Layout, PieceIndex) -> Turn,
    ) -> Next {
        if let Stage::Failed(_) = progress.stage {
            return Next::Gone;
        }
        let Some(content) = &progress.content else {
            return Next::Wait(None);
        };
        if self.attempt != Some(content.attempt) {
            return Next::Tell(self.begin(content));
        }
        if let Some(batch) = self.next_batch(progress) {
            return Next::Tell(batch);
        }
        if let Some(size) = content.layout.size()
            && !self.size_told
        {
            self.size_told = true;
            return Next::Tell(Tell::Ended {
                task: self.task,
                attempt: content.attempt,
                size,
            });
        }
        self.newly_held(content, progress, turn)
    }

    fn begin(&mut self, content: &Content) -> Tell {
        *self = Self {
            attempt: Some(content.attempt),
            size_told: content.layout.size().is_some(),
            ..Self::new(self.task)
        };
        Tell::Begins {
            task: self.task,
            attempt: content.attempt,
            layout: content.layout,
            media_type: content.media_type.clone(),
        }
    }

    fn next_batch(&mut self, progress: &Progress) -> Option<Tell> {
        while let Some(signed) = progress.batches.get(self.batches) {
            self.batches += 1;
            let batch = &signed.batch;
            if Some(batch.attempt) == self.attempt {
                for (piece, _) in &batch.digests {
                    self.proven.insert(*piece);
                }
                return Some(Tell::Batch(signed.as_ref().clone()));
            }
        }
        None
    }

    fn newly_held(
        &mut self,
        content: &Content,
        progress: &Progress,
        mut turn: impl FnMut(&Layout, PieceIndex) -> Turn,
    ) -> Next {
        if self.held.len() == progress.held.len() {
            return Next::Wait(None);
        }
        let told = &self.held;
        let is_new = |piece: &_| self.proven.contains(*piece) && !told.contains(*piece);
        let (mut new, mut later) = (PieceSet::default(), None);
        for piece in progress.held.iter().filter(is_new) {
            match turn(&content.layout, piece) {
                Turn::Now => drop(new.insert(piece)),
                Turn::At(at) => later = Some(later.map_or(at, |first: Instant| first.min(at))),
            }
        }
        if new.is_empty() {
            // What was fetched without the right to sign it stays unproven.
            return match progress.stage {
                Stage::Complete if later.is_none() => Next::Gone,
                Stage::Running | Stage::Complete | Stage::Failed(_) => Next::Wait(later),
            };
        }
        self.held.union(&new);
        Next::Tell(Tell::Holds {
            task: self.task,
            attempt: content.attempt,
            new,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::Range, sync::Arc};

    use protocol::{Digest, Layout, PieceBatch, PieceIndex, SignedBatch, Visibility};

    use super::*;
    use crate::task::TaskFailure;

    const FIRST: AttemptId = AttemptId(1);

    fn task() -> TaskId {
        TaskId(Digest::sha256_of(b"task"))
    }

    fn began(attempt: AttemptId, size: Option<u64>) -> Progress {
        let content = Content {
            attempt,
            layout: Layout::for_size(size),
            media_type: None,
            visibility: Visibility::Public,
        };
        Progress {
            content: Some(content),
            ..Progress::default()
        }
    }

    fn signed(attempt: AttemptId, pieces: Range<u32>) -> Arc<SignedBatch> {
        let layout = Layout::for_size(Some(1 << 20));
        let digests = pieces.map(|index| (PieceIndex(index), [0; 32])).collect();
        let visibility = Visibility::Public;
        let batch = PieceBatch {
            task: task(),
            attempt,
            layout,
            visibility,
            digests,
        };
        Arc::new(SignedBatch {
            batch,
            certificate: Vec::new(),
            signature: Vec::new(),
        })
    }

    /// Everything that the feed tells now, one word each.
    #[track_caller]
    fn check(feed: &mut Feed, progress: &Progress, expect: &str) {
        let mut told = Vec::new();
        loop {
            match feed.next(progress, |_, _| Turn::Now) {
                Next::Tell(tell) => told.push(render(&tell)),
                Next::Wait(_) => break,
                Next::Gone => {
                    told.push("gone".to_owned());
                    break;
                }
            }
        }
        assert_eq!(told.join(" "), expect);
    }

    fn render(tell: &Tell) -> String {
        let list = |pieces: Vec<u32>| {
            pieces
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        match tell {
            Tell::Begins { attempt, .. } => format!("begins-{}", attempt.0),
            Tell::Batch(signed) => {
                format!(
                    "batch-{}",
                    list(
                        signed
                            .batch
                            .digests
                            .iter()
                            .map(|(piece, _)| piece.0)
                            .collect()
                    )
                )
            }
            Tell::Holds { new, .. } => {
                format!("holds-{}", list(new.iter().map(|piece| piece.0).collect()))
            }
            Tell::Ended { size, .. } => format!("ended-{size}"),
            Tell::Gone { .. } => "gone".to_owned(),
        }
    }

    #[test]
    fn a_task_with_no_answer_yet_is_silent() {
        check(&mut Feed::new(task()), &Progress::default(), "");
    }

    #[test]
    fn a_piece_is_told_after_the_batch_that_proves_it() {
        let mut feed = Feed::new(task());
        let mut progress = began(FIRST, Some(1 << 20));
        progress.held = PieceSet::of_range(0..3);
        check(&mut feed, &progress, "begins-1");
        progress.batches.push(signed(FIRST, 0..2));
        check(&mut feed, &progress, "batch-0,1 holds-0,1");
        progress.batches.push(signed(FIRST, 2..4));
        check(&mut feed, &progress, "batch-2,3 holds-2");
        check(&mut feed, &progress, "");
        progress.held.insert(PieceIndex(3));
        progress.stage = Stage::Complete;
        check(&mut feed, &progress, "holds-3");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn a_piece_whose_turn_is_later_is_told_later() {
        let mut feed = Feed::new(task());
        let mut progress = began(FIRST, Some(1 << 20));
        progress.held = PieceSet::of_range(0..2);
        progress.batches.push(signed(FIRST, 0..2));
        let later = Instant::now();
        let mut seen = Vec::new();
        let next = loop {
            let turn = |_: &Layout, piece: PieceIndex| match piece.0 {
                0 => Turn::Now,
                _ => Turn::At(later),
            };
            match feed.next(&progress, turn) {
                Next::Tell(tell) => seen.push(render(&tell)),
                next => break next,
            }
        };
        assert_eq!(seen.join(" "), "begins-1 batch-0,1 holds-0");
        assert_eq!(next, Next::Wait(Some(later)));
        check(&mut feed, &progress, "holds-1");
    }

    #[test]
    fn a_child_that_was_away_is_told_all_at_once() {
        let mut progress = began(FIRST, Some(1 << 20));
        progress.batches = vec![signed(FIRST, 0..2), signed(FIRST, 2..4)];
        progress.held = PieceSet::of_range(0..4);
        check(
            &mut Feed::new(task()),
            &progress,
            "begins-1 batch-0,1 batch-2,3 holds-0,1,2,3",
        );
    }

    #[test]
    fn what_is_complete_and_not_proven_is_not_waited_for() {
        let mut feed = Feed::new(task());
        let mut progress = began(FIRST, Some(1 << 20));
        progress.batches.push(signed(FIRST, 0..2));
        progress.held = PieceSet::of_range(0..4);
        check(&mut feed, &progress, "begins-1 batch-0,1 holds-0,1");
        progress.stage = Stage::Complete;
        check(&mut feed, &progress, "gone");
    }

    #[test]
    fn another_attempt_begins_anew() {
        let mut feed = Feed::new(task());
        let mut progress = began(FIRST, Some(1 << 20));
        progress.batches.push(signed(FIRST, 0..2));
        progress.held = PieceSet::of_range(0..2);
        check(&mut feed, &progress, "begins-1 batch-0,1 holds-0,1");
        let mut second = began(AttemptId(2), Some(1 << 20));
        second.batches = vec![signed(FIRST, 0..2), signed(AttemptId(2), 0..1)];
        second.held = PieceSet::of_range(0..1);
        check(&mut feed, &second, "begins-2 batch-0 holds-0");
    }

    #[test]
    fn a_size_that_is_known_late_is_told_once() {
        let mut feed = Feed::new(task());
        check(&mut feed, &began(FIRST, None), "begins-1");
        let mut ended = began(FIRST, None);
        let layout = Layout::for_size(None).ended_at(7);
        ended.content = ended.content.map(|content| Content { layout, ..content });
        check(&mut feed, &ended, "ended-7");
        check(&mut feed, &ended, "");
    }

    #[test]
    fn a_failed_task_is_gone() {
        let stage = Stage::Failed(TaskFailure::Corrupt);
        let failed = Progress {
            stage,
            ..began(FIRST, Some(5))
        };
        check(&mut Feed::new(task()), &failed, "gone");
    }
}
