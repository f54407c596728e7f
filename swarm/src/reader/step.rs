//! Pure: what a reader does next, given how far the task has come.

use std::ops::Range;

use protocol::PieceIndex;

use crate::task::{Progress, Stage, TaskFailure};

/// Bytes of one read.
const READ_BYTES: u64 = 256 << 10;

/// What to do now.
#[derive(Debug)]
pub(super) enum Step {
    /// These bytes are there; `is_partial` where their piece is still arriving on this host.
    Read {
        bytes: Range<u64>,
        is_partial: bool,
    },
    /// Not yet.
    Wait,
    /// All that was asked for was read.
    End,
    Failed(TaskFailure),
}

/// Whether nothing will change any more.
pub(super) fn is_final(progress: &Progress) -> bool {
    match progress.stage {
        Stage::Running => false,
        Stage::Complete | Stage::Failed(_) => true,
    }
}

/// The step of a reader at `offset` that wants the bytes up to `end`.
pub(super) fn next(progress: &Progress, offset: u64, end: u64, is_whole: bool) -> Step {
    if let Stage::Failed(TaskFailure::Corrupt) = progress.stage {
        return Step::Failed(TaskFailure::Corrupt);
    }
    let is_complete = matches!(progress.stage, Stage::Complete);
    let may_have_any = is_complete || !progress.is_unvouched;
    let available = available(progress, offset).filter(|_| may_have_any);
    let size = progress
        .content
        .as_ref()
        .and_then(|content| content.layout.size());
    let end = size.map_or(end, |size| end.min(size));
    if offset >= end && (is_complete || !is_whole) {
        return Step::End;
    }
    // The last byte of a whole body goes out only when its digest holds. While the size is not
    // known any byte may be the last.
    let is_withheld = |bytes: &Range<u64>| match size {
        Some(size) => is_whole && !is_complete && bytes.end >= size,
        None => false,
    };
    match available {
        Some((mut bytes, is_partial)) => {
            bytes.end = bytes.end.min(end).min(bytes.start + READ_BYTES);
            if size.is_none() {
                bytes.end = bytes.end.min(seen_end(progress).saturating_sub(1));
            }
            match bytes.is_empty() || is_withheld(&bytes) {
                true => wait_or_fail(progress),
                false => Step::Read { bytes, is_partial },
            }
        }
        None => wait_or_fail(progress),
    }
}

fn wait_or_fail(progress: &Progress) -> Step {
    match &progress.stage {
        Stage::Running => Step::Wait,
        Stage::Failed(failure) => Step::Failed(failure.clone()),
        // Complete and yet not there: the store has dropped what it once had.
        Stage::Complete => Step::Failed(TaskFailure::Cancelled),
    }
}

/// The bytes that can be read from `offset` on, within one piece.
fn available(progress: &Progress, offset: u64) -> Option<(Range<u64>, bool)> {
    let layout = progress.content.as_ref()?.layout;
    let piece = layout.piece_at(offset);
    if progress.held.contains(piece) {
        return Some((offset..layout.bytes_of(piece).end, false));
    }
    progress
        .partial
        .contains(&offset)
        .then_some((offset..progress.partial.end, true))
}

/// One past the last byte that has been seen of a body with no told size.
fn seen_end(progress: &Progress) -> u64 {
    let Some(content) = &progress.content else {
        return 0;
    };
    let last: Option<PieceIndex> = progress.held.iter().last();
    let held_end = last.map_or(0, |piece| content.layout.bytes_of(piece).end);
    held_end.max(progress.partial.end)
}

#[cfg(test)]
mod tests {
    use protocol::{AttemptId, Content, Layout, PieceSet, Visibility};

    use super::*;

    const PIECE: u64 = 256 << 10;

    fn progress(
        size: Option<u64>,
        held: Range<u32>,
        partial: Range<u64>,
        stage: Stage,
    ) -> Progress {
        let content = Content {
            attempt: AttemptId(1),
            layout: Layout::for_size(size),
            media_type: None,
            visibility: Visibility::Public,
        };
        let held = PieceSet::of_range(held);
        Progress {
            content: Some(content),
            held,
            partial,
            stage,
            ..Progress::default()
        }
    }

    #[track_caller]
    fn check(progress: &Progress, (offset, end, is_whole): (u64, u64, bool), expect: &str) {
        let seen = match next(progress, offset, end, is_whole) {
            Step::Read {
                bytes,
                is_partial: false,
            } => format!("read {}..{}", bytes.start, bytes.end),
            Step::Read {
                bytes,
                is_partial: true,
            } => format!("partial {}..{}", bytes.start, bytes.end),
            Step::Wait => "wait".to_owned(),
            Step::End => "end".to_owned(),
            Step::Failed(failure) => format!("{failure:?}"),
        };
        assert_eq!(seen, expect);
    }

    #[test]
    fn bytes_flow_while_the_piece_arrives() {
        let arriving = progress(Some(4 * PIECE), 0..1, PIECE..PIECE + 10, Stage::Running);
        check(&arriving, (5, 4 * PIECE, true), &format!("read 5..{PIECE}"));
        check(
            &arriving,
            (PIECE, 4 * PIECE, true),
            &format!("partial {PIECE}..{}", PIECE + 10),
        );
        check(&arriving, (PIECE + 10, 4 * PIECE, true), "wait");
    }

    #[test]
    fn the_end_of_a_whole_body_waits_for_its_digest() {
        let running = progress(Some(PIECE + 1), 0..2, 0..0, Stage::Running);
        let complete = progress(Some(PIECE + 1), 0..2, 0..0, Stage::Complete);
        let wrong = progress(
            Some(PIECE + 1),
            0..2,
            0..0,
            Stage::Failed(TaskFailure::Corrupt),
        );
        check(&running, (PIECE, PIECE + 1, true), "wait");
        check(
            &running,
            (PIECE, PIECE + 1, false),
            &format!("read {PIECE}..{}", PIECE + 1),
        );
        check(
            &complete,
            (PIECE, PIECE + 1, true),
            &format!("read {PIECE}..{}", PIECE + 1),
        );
        check(&complete, (PIECE + 1, PIECE + 1, true), "end");
        check(&wrong, (0, PIECE + 1, true), "Corrupt");
    }

    #[test]
    fn what_nobody_vouches_for_waits_for_the_digest_of_the_whole() {
        let mut unvouched = progress(Some(4 * PIECE), 0..4, 0..0, Stage::Running);
        unvouched.is_unvouched = true;
        check(&unvouched, (0, PIECE, false), "wait");
        unvouched.stage = Stage::Complete;
        check(&unvouched, (0, PIECE, false), &format!("read 0..{PIECE}"));
    }

    #[test]
    fn an_empty_body_ends_when_its_digest_holds() {
        check(
            &progress(Some(0), 0..0, 0..0, Stage::Running),
            (0, 0, true),
            "wait",
        );
        check(
            &progress(Some(0), 0..0, 0..0, Stage::Complete),
            (0, 0, true),
            "end",
        );
    }

    #[test]
    fn while_the_size_is_unknown_any_byte_may_be_the_last() {
        let mib = 1 << 20;
        let one = progress(None, 0..1, 0..0, Stage::Running);
        check(
            &one,
            (mib - 10, u64::MAX, true),
            &format!("read {}..{}", mib - 10, mib - 1),
        );
        check(&one, (mib - 1, u64::MAX, true), "wait");
        let more = progress(None, 0..1, mib..mib + 2, Stage::Running);
        check(
            &more,
            (mib - 1, u64::MAX, true),
            &format!("read {}..{mib}", mib - 1),
        );
        check(
            &more,
            (mib, u64::MAX, true),
            &format!("partial {mib}..{}", mib + 1),
        );
    }

    #[test]
    fn what_was_had_is_read_although_the_source_failed() {
        let failed = progress(
            Some(4 * PIECE),
            0..1,
            0..0,
            Stage::Failed(TaskFailure::Cancelled),
        );
        check(&failed, (0, 4 * PIECE, true), &format!("read 0..{PIECE}"));
        check(&failed, (PIECE, 4 * PIECE, true), "Cancelled");
    }
}
