//! Pure: which pieces somebody on this host wants, and how soon.
//!
//! An open-ended range follows its reader: only a window ahead of it is wanted, so the swarm does
//! not fetch what nobody reads. A whole body and a closed range are wanted to their end.

use std::{collections::BTreeMap, ops::Range};

use protocol::{Layout, Want, layout::SIZE_MAX};

/// Bytes ahead of an open-ended reader that are wanted.
pub(super) const WINDOW: u64 = 8 << 20;

/// One reader of the task, for as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u64);

/// What one reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Everything from here on, to the end.
    ToEnd { offset: u64 },
    /// From here up to `end`.
    Span { offset: u64, end: u64 },
    /// From here on, as far as the reader goes.
    Follow { offset: u64 },
    /// The last bytes of a body whose size is not known yet.
    Tail { length: u64 },
}

/// The interests of all readers: those on this host, and those of other hosts that follow it, which
/// count for a seed, and while this host asks the source for all.
#[derive(Debug, Default)]
pub(super) struct Interests {
    by_reader: BTreeMap<ReaderId, Interest>,
    by_follower: BTreeMap<ReaderId, Interest>,
    pub(super) is_for_all: bool,
}

// === impl Interest ===

impl Interest {
    /// What a host elsewhere wants.
    pub fn of(want: Want) -> Self {
        match want {
            Want::Span { start, end: None } => Self::ToEnd { offset: start },
            Want::Span {
                start,
                end: Some(end),
            } => Self::Span { offset: start, end },
            Want::Last { length } => Self::Tail { length },
        }
    }

    /// What is told of it to a host elsewhere. A reader that is followed goes on soon.
    pub fn want(self) -> Want {
        match self {
            Self::ToEnd { offset } => Want::Span {
                start: offset,
                end: None,
            },
            Self::Span { offset, end } => Want::Span {
                start: offset,
                end: Some(end),
            },
            Self::Follow { offset } => Want::Span {
                start: offset,
                end: Some(offset.saturating_add(2 * WINDOW)),
            },
            // More than any body has is all of it.
            Self::Tail { length } => Want::Last {
                length: length.min(SIZE_MAX),
            },
        }
    }

    fn moved(self, offset: u64) -> Self {
        match self {
            Self::ToEnd { .. } => Self::ToEnd { offset },
            Self::Span { end, .. } => Self::Span { offset, end },
            Self::Follow { .. } => Self::Follow { offset },
            Self::Tail { .. } => Self::ToEnd { offset },
        }
    }

    /// Whether this reader may want less than all that a request without a range brings.
    fn is_part(self) -> bool {
        match self {
            Self::ToEnd { offset } | Self::Follow { offset } => 0 < offset,
            Self::Span { .. } | Self::Tail { .. } => true,
        }
    }

    /// The bytes wanted now.
    fn bytes(self, layout: Layout) -> Range<u64> {
        match self {
            Self::Tail { length } => {
                let size = layout.size().unwrap_or(u64::MAX);
                size.saturating_sub(length)..size
            }
            Self::ToEnd { offset } => offset..u64::MAX,
            Self::Span { offset, end } => offset..end,
            Self::Follow { offset } => offset..offset.saturating_add(WINDOW),
        }
    }
}

// === impl Interests ===

impl Interests {
    pub(super) fn join(&mut self, reader: ReaderId, interest: Interest) {
        self.by_reader.insert(reader, interest);
    }

    pub(super) fn follow(&mut self, reader: ReaderId, interest: Interest) {
        self.by_follower.insert(reader, interest);
    }

    pub(super) fn moved(&mut self, reader: ReaderId, offset: u64) {
        if let Some(interest) = self.by_reader.get_mut(&reader) {
            *interest = interest.moved(offset);
        }
    }

    pub(super) fn leave(&mut self, reader: ReaderId) {
        self.by_reader.remove(&reader);
        self.by_follower.remove(&reader);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// What the readers on this host want; one at its end, or past every end, wants nothing.
    pub(super) fn wants(&self) -> Vec<Want> {
        let wants = self.by_reader.values().map(|one| one.want());
        wants.filter(Want::is_part).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Interest> {
        let others = self.by_follower.values().filter(|_| self.is_for_all);
        self.by_reader.values().chain(others)
    }

    /// Whether every reader wants a part, so that the size must be known first: it tells where the
    /// pieces lie that cover it.
    pub(super) fn are_parts(&self) -> bool {
        self.all().all(|interest| interest.is_part())
    }

    /// The wanted pieces of every reader, each from where it reads; `count` is one past the last
    /// piece there may be.
    pub(super) fn pieces(
        &self,
        layout: Layout,
        count: u32,
    ) -> impl Iterator<Item = Range<u32>> + '_ {
        self.all().filter_map(move |interest| {
            let mut bytes = interest.bytes(layout);
            bytes.end = bytes
                .end
                .min(layout.bytes_of(protocol::PieceIndex(count)).start);
            if let Some(size) = layout.size() {
                bytes.end = bytes.end.min(size);
            }
            let pieces = layout.pieces_of(&bytes);
            let end = pieces.end.min(count);
            (pieces.start < end).then_some(pieces.start..end)
        })
    }
}
