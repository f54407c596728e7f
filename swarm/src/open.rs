//! What a caller asks of the swarm and what it is given: the one door from the proxy and the seed.

use std::{ops::Range, sync::Arc};

use protocol::{Origin, TaskId, Visibility};

use crate::{
    conductor::Interest,
    reader::Reader,
    source::{Credential, SourceError},
};

/// A wish for a content, or a part of it.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    pub task: TaskId,
    /// The registry and repository that the request names.
    pub origin: Origin,
    pub wanted: Wanted,
    /// Used at the upstream only after it refused to answer anonymously.
    pub credential: Option<Credential>,
    pub proof: ReadProof,
}

/// Which bytes are wanted, as a Range header tells it (RFC 9110, section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Whole,
    /// `bytes=start-`
    From {
        start: u64,
    },
    /// `bytes=start-last`, both included.
    Span {
        start: u64,
        last: u64,
    },
    /// `bytes=-length`
    Suffix {
        length: u64,
    },
}

/// Whether the upstream has said that this caller may read this content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadProof {
    /// Nothing was asked: public content only.
    Unchecked,
    /// The registry of the request let this very credential see it a moment ago.
    Checked,
}

/// An open content.
#[derive(Debug)]
pub struct Opened {
    /// Bytes of the whole content; `None` where the upstream tells no size.
    pub size: Option<u64>,
    pub media_type: Option<String>,
    /// The bytes that `reader` yields; ends at `u64::MAX` where the size is not known.
    pub range: Range<u64>,
    pub how: How,
    pub reader: Reader,
}

/// How the content was come by, as seen when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// All of it was in the store.
    Hit,
    /// It was being fetched already.
    Joined,
    /// This call began a download from other hosts.
    Swarm,
    /// This call began a download from the upstream.
    Source,
}

/// What is known of a content without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub size: Option<u64>,
    pub media_type: Option<String>,
    pub visibility: Visibility,
    /// All pieces are here and the digest of the whole holds.
    pub complete: bool,
}

/// Why a content cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    #[error("the range lies outside of the {size} bytes")]
    NotSatisfiable { size: u64 },
    #[error("the content is private: its registry must let the caller read it first")]
    NotProven,
    #[error(transparent)]
    Source(Arc<SourceError>),
    #[error("the content does not match its digest")]
    Corrupt,
    #[error("an earlier answer for this content was wrong; resuming it is refused")]
    ResumeRefused,
    #[error("too many contents are open at once")]
    Overloaded,
    #[error("the node is shutting down")]
    ShuttingDown,
}

// === impl Wanted ===

impl Wanted {
    /// The bytes of a body of `size`; `None` where there are none to give (RFC 9110, 15.5.17).
    pub fn resolve(self, size: u64) -> Option<Range<u64>> {
        match self {
            Self::Whole => Some(0..size),
            Self::From { start } => (start < size).then_some(start..size),
            Self::Span { start, last } => {
                (start <= last && start < size).then(|| start..last.saturating_add(1).min(size))
            }
            Self::Suffix { length } => {
                (length > 0 && size > 0).then(|| size.saturating_sub(length)..size)
            }
        }
    }

    /// What the driver of a download is told of whoever reads this, before the size is known.
    pub(crate) fn interest(self) -> Interest {
        self.interest_in(&self.resolve(u64::MAX).unwrap_or(0..0))
    }

    /// As [`Wanted::interest`], where it was found to be `range`.
    pub(crate) fn interest_in(self, range: &Range<u64>) -> Interest {
        let offset = range.start;
        match self {
            Self::Suffix { length } if range.end == u64::MAX => Interest::Tail { length },
            Self::Whole | Self::From { start: 0 } => Interest::ToEnd { offset },
            Self::From { .. } => Interest::Follow { offset },
            Self::Span { .. } | Self::Suffix { .. } => Interest::Span {
                offset,
                end: range.end,
            },
        }
    }

    /// Whether that is all of a body of `size`, in whatever words: its digest must hold then.
    pub(crate) fn is_all_of(self, size: u64) -> bool {
        self.resolve(size) == Some(0..size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_the_end_of_the_body() {
        let span = |start, last| Wanted::Span { start, last };
        for (wanted, size, expect) in [
            (Wanted::Whole, 0, Some(0..0)),
            (Wanted::From { start: 3 }, 5, Some(3..5)),
            (Wanted::From { start: 5 }, 5, None),
            (span(0, 0), 5, Some(0..1)),
            (span(2, 99), 5, Some(2..5)),
            (span(2, u64::MAX), 5, Some(2..5)),
            (span(3, 2), 5, None),
            (span(5, 9), 5, None),
            (Wanted::Suffix { length: 2 }, 5, Some(3..5)),
            (Wanted::Suffix { length: 9 }, 5, Some(0..5)),
            (Wanted::Suffix { length: 0 }, 5, None),
            (Wanted::Suffix { length: 1 }, 0, None),
        ] {
            assert_eq!(wanted.resolve(size), expect, "{wanted:?} of {size}");
            let is_all = expect == Some(0..size);
            assert_eq!(wanted.is_all_of(size), is_all, "{wanted:?} of {size}");
        }
    }
}
