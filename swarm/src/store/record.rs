//! Pure: the records of a piece log, as values and as bytes.
//!
//! Invariant: what [`Record::encode`] writes, [`Record::decode`] reads back; any other bytes are
//! refused, never misread. Integers are little-endian.

use protocol::{
    batch::PieceDigest,
    content::{AttemptId, Content, ContentKind, TaskId, Visibility},
    digest::Digest,
    layout::{LAYOUT_VERSION, Layout, PieceIndex},
};

/// One entry of a piece log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// Always the first, and only the first.
    Begin(Begin),
    /// The bytes of the piece were written before this record was.
    Piece(PieceIndex, PieceDigest),
    /// A signed batch of digests, opaque here.
    Batch(Vec<u8>),
    /// A body that began with no size has ended.
    Ended(u64),
    /// The digest of the whole held.
    Complete,
    /// The bytes of the piece were found damaged.
    Dropped(PieceIndex),
    /// Who may see the content has changed.
    Seen(Visibility),
}

/// What an attempt is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) task: TaskId,
    pub(super) kind: ContentKind,
    pub(super) content: Content,
}

/// Takes fields off the front of a payload.
struct Fields<'a>(&'a [u8]);

// === impl Record ===

impl Record {
    /// The byte that tells the kinds of record apart.
    pub(super) fn tag(&self) -> u8 {
        match self {
            Self::Begin(_) => 1,
            Self::Piece(..) => 2,
            Self::Batch(_) => 3,
            Self::Ended(_) => 4,
            Self::Complete => 5,
            Self::Dropped(_) => 6,
            Self::Seen(_) => 7,
        }
    }

    /// The payload; `None` where a field is too long to be written.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        match self {
            Self::Begin(begin) => begin.encode(&mut payload)?,
            Self::Piece(piece, digest) => {
                payload.extend(piece.0.to_le_bytes());
                payload.extend(digest);
            }
            Self::Batch(batch) => payload.extend(batch),
            Self::Ended(size) => payload.extend(size.to_le_bytes()),
            Self::Complete => {}
            Self::Dropped(piece) => payload.extend(piece.0.to_le_bytes()),
            Self::Seen(visibility) => put_visibility(&mut payload, visibility)?,
        }
        Some(payload)
    }

    /// The record that a tag and a payload make, if they make one.
    pub(super) fn decode(tag: u8, payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let record = match tag {
            1 => Self::Begin(Begin::decode(&mut fields)?),
            2 => Self::Piece(PieceIndex(fields.u32()?), fields.array()?),
            3 => Self::Batch(fields.take(payload.len())?.to_vec()),
            4 => Self::Ended(fields.u64()?),
            5 => Self::Complete,
            6 => Self::Dropped(PieceIndex(fields.u32()?)),
            7 => Self::Seen(fields.visibility()?),
            _ => return None,
        };
        fields.0.is_empty().then_some(record)
    }
}

// === impl Begin ===

impl Begin {
    fn encode(&self, payload: &mut Vec<u8>) -> Option<()> {
        payload.push(match self.task.0 {
            Digest::Sha256(_) => 1,
            Digest::Sha512(_) => 2,
        });
        payload.extend(self.task.0.as_bytes());
        payload.push(match self.kind {
            ContentKind::Blob => 1,
            ContentKind::Manifest => 2,
        });
        payload.extend(self.content.attempt.0.to_le_bytes());
        payload.push(LAYOUT_VERSION);
        payload.extend(
            u32::try_from(self.content.layout.piece_len())
                .ok()?
                .to_le_bytes(),
        );
        payload.push(u8::from(self.content.layout.size().is_some()));
        payload.extend(self.content.layout.size().unwrap_or(0).to_le_bytes());
        payload.push(u8::from(self.content.media_type.is_some()));
        put_text(payload, self.content.media_type.as_deref().unwrap_or(""))?;
        put_visibility(payload, &self.content.visibility)
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let task = TaskId(match fields.u8()? {
            1 => Digest::Sha256(fields.array()?),
            2 => Digest::Sha512(fields.array()?),
            _ => return None,
        });
        let kind = match fields.u8()? {
            1 => ContentKind::Blob,
            2 => ContentKind::Manifest,
            _ => return None,
        };
        let attempt = AttemptId(fields.u64()?);
        let (version, piece_len) = (fields.u8()?, fields.u32()?);
        let size_known = fields.flag()?;
        let size = fields.u64()?;
        let layout = Layout::told(version, piece_len, size_known.then_some(size))?;
        let media_type_known = fields.flag()?;
        let media_type = fields.text()?;
        let media_type = media_type_known.then(|| media_type.to_owned());
        let visibility = fields.visibility()?;
        Some(Self {
            task,
            kind,
            content: Content {
                attempt,
                layout,
                media_type,
                visibility,
            },
        })
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.u16()?;
        std::str::from_utf8(self.take(usize::from(len))?).ok()
    }

    fn visibility(&mut self) -> Option<Visibility> {
        match self.u8()? {
            0 => Some(Visibility::Public),
            1 => {
                let count = self.u16()?;
                let origins = (0..count)
                    .map(|_| self.text()?.parse().ok())
                    .collect::<Option<_>>()?;
                Some(Visibility::Private { origins })
            }
            _ => None,
        }
    }
}

fn put_text(payload: &mut Vec<u8>, text: &str) -> Option<()> {
    payload.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    payload.extend(text.as_bytes());
    Some(())
}

fn put_visibility(payload: &mut Vec<u8>, visibility: &Visibility) -> Option<()> {
    match visibility {
        Visibility::Public => payload.push(0),
        Visibility::Private { origins } => {
            payload.push(1);
            payload.extend(u16::try_from(origins.len()).ok()?.to_le_bytes());
            for origin in origins {
                put_text(payload, origin.as_str())?;
            }
        }
    }
    Some(())
}
