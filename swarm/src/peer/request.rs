//! Pure: how a run of pieces is named in a URL, read and written.

use std::ops::Range;

use protocol::{AttemptId, Layout, PieceIndex, TaskId};

/// Bytes of pieces in one request, unless one piece alone is longer.
pub(super) const RUN_BYTES_MAX: u64 = 1024 * 1024;

/// What the asking host is to the one that it asks.
///
/// It is only a claim. All that a host can gain by a false one is a slot that is kept for children,
/// no more of them than any other child, and hosts of one cluster trust each other that far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asker {
    /// A child in the scheduler's graph: this parent may be all that it has.
    Child,
    /// A peer of the same task that exchanges pieces.
    Sibling,
}

/// Which pieces of which attempt are asked for. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PieceRequest {
    pub(super) task: TaskId,
    pub(super) attempt: AttemptId,
    pub(super) pieces: Range<u32>,
    pub(super) asker: Asker,
}

// === impl Asker ===

impl Asker {
    pub(super) const ALL: [Self; 2] = [Self::Child, Self::Sibling];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Child => "child",
            Self::Sibling => "sibling",
        }
    }

    /// Whoever says nothing is a child.
    fn parse(query: Option<&str>) -> Option<Self> {
        let Some(query) = query else {
            return Some(Self::Child);
        };
        let name = query.strip_prefix("as=")?;
        Self::ALL.into_iter().find(|asker| asker.as_str() == name)
    }
}

// === impl PieceRequest ===

impl PieceRequest {
    /// Reads `/tasks/{task}/{attempt}/pieces/{first}-{last}`, with `?as=sibling` where the asker is
    /// no child; `None` for any other text.
    pub(super) fn parse(path_and_query: &str) -> Option<Self> {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        let asker = Asker::parse(query)?;
        let mut parts = path.strip_prefix("/tasks/")?.split('/');
        let task = parts.next()?.parse().ok().map(TaskId)?;
        let attempt = parts.next()?;
        let is_hex = attempt.len() == 16 && attempt.bytes().all(|byte| byte.is_ascii_hexdigit());
        let attempt = is_hex.then(|| attempt.parse().ok()).flatten()?;
        if parts.next()? != "pieces" {
            return None;
        }
        let (first, last) = parts.next()?.split_once('-')?;
        let (first, last) = (index(first)?, index(last)?);
        let end = last.checked_add(1)?;
        (first <= last && parts.next().is_none()).then_some(Self {
            task,
            attempt,
            pieces: first..end,
            asker,
        })
    }

    pub(super) fn path_and_query(&self) -> String {
        let Range { start, end } = self.pieces;
        let query = match self.asker {
            Asker::Child => "",
            Asker::Sibling => "?as=sibling",
        };
        format!(
            "/tasks/{}/{}/pieces/{start}-{}{query}",
            self.task,
            self.attempt,
            end.saturating_sub(1)
        )
    }

    /// The bytes of the body that the run covers, if one request may carry it.
    pub(super) fn bytes(&self, layout: &Layout) -> Option<Range<u64>> {
        let start = layout.bytes_of(PieceIndex(self.pieces.start)).start;
        let end = layout
            .bytes_of(PieceIndex(self.pieces.end.checked_sub(1)?))
            .end;
        let fits = self.pieces.len() == 1 || end.saturating_sub(start) <= RUN_BYTES_MAX;
        (start < end && fits).then_some(start..end)
    }
}

/// Decimal digits and nothing else: no sign, no space.
fn index(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use protocol::Digest;

    use super::*;

    fn path(attempt: &str, rest: &str) -> String {
        format!("/tasks/{}/{attempt}/{rest}", Digest::sha256_of(b""))
    }

    #[test]
    fn a_path_that_is_no_run_of_pieces_is_refused() {
        let attempt = AttemptId(7).to_string();
        for rest in ["pieces/0-3", "pieces/0-3?as=child", "pieces/0-3?as=sibling"] {
            let read = PieceRequest::parse(&path(&attempt, rest)).map(|asked| asked.asker);
            let expect = match rest.ends_with("sibling") {
                true => Asker::Sibling,
                false => Asker::Child,
            };
            assert_eq!(read, Some(expect), "{rest}");
        }
        for rest in [
            "",
            "pieces",
            "pieces/",
            "pieces/1",
            "pieces/1-",
            "pieces/-1",
            "pieces/2-1",
            "pieces/+1-2",
            "pieces/0-4294967295",
            "pieces/1-2/",
            "pieces/1-2-3",
            "piece/1-2",
            "pieces/ 1-2",
            "pieces/1-2?",
            "pieces/1-2?as=",
            "pieces/1-2?as=cousin",
            "pieces/1-2?as=sibling&as=child",
            "pieces/1-2?is=sibling",
        ] {
            assert_eq!(PieceRequest::parse(&path(&attempt, rest)), None, "{rest}");
        }
        for attempt in ["", "7", "+000000000000007", "zzzzzzzzzzzzzzzz"] {
            assert_eq!(
                PieceRequest::parse(&path(attempt, "pieces/0-3")),
                None,
                "{attempt}"
            );
        }
        for other in [
            "",
            "/",
            "/tasks/",
            "/tasks/latest/0000000000000007/pieces/0-0",
        ] {
            assert_eq!(PieceRequest::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_run_is_bounded_by_bytes_but_for_a_single_long_piece() {
        #[track_caller]
        fn check(size: u64, pieces: Range<u32>, expect: Option<Range<u64>>) {
            let task = TaskId(Digest::sha256_of(b""));
            let request = PieceRequest {
                task,
                attempt: AttemptId(1),
                pieces,
                asker: Asker::Child,
            };
            assert_eq!(request.bytes(&Layout::for_size(Some(size))), expect);
        }
        const MIB: u64 = 1 << 20;
        check(10 * MIB, 0..4, Some(0..MIB));
        check(10 * MIB, 0..5, None);
        check(300_000, 1..2, Some(262_144..300_000));
        check(300_000, 2..3, None);
        check(300_000, 0..3, Some(0..300_000));
        check(17 << 30, 1..2, Some(4 * MIB..8 * MIB));
        check(0, 0..1, None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(attempt in any::<u64>(), first in 0u32..1 << 20, more in 1u32..9, asker in 0usize..2) {
            let (task, asker) = (TaskId(Digest::sha256_of(b"x")), Asker::ALL[asker]);
            let request = PieceRequest { task, attempt: AttemptId(attempt), pieces: first..first + more, asker };
            prop_assert_eq!(PieceRequest::parse(&request.path_and_query()), Some(request));
        }

        #[test]
        fn no_path_makes_the_parser_fall(path in ".*") {
            let _ = PieceRequest::parse(&path);
            let _ = PieceRequest::parse(&format!("/tasks/{path}"));
        }
    }
}
