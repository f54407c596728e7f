//! Pure: the one encoding of a batch, which is signed, kept in the log and sent.
//!
//! Numbers are big-endian; whatever has no fixed length is preceded by its length, so no two
//! batches share an encoding. Reading is bounded before anything is allocated.

use super::{
    BATCH_ORIGINS_MAX, BATCH_PIECES_MAX, BatchError, BatchError::Malformed, PieceBatch,
    PieceDigest, SignedBatch,
};
use crate::{
    content::{AttemptId, NAME_LEN_MAX, RegistryName, TaskId, Visibility},
    digest::Digest,
    layout::{LAYOUT_VERSION, Layout, PieceIndex},
    piece_set::PIECES_MAX,
};

/// Put before a batch when it is signed, so that its signature means nothing anywhere else.
const DOMAIN: &[u8] = b"darter/piece-batch\0";

/// The first byte of every encoding.
const VERSION: u8 = 1;

const CERTIFICATE_LEN_MAX: usize = 8 * 1024;
const SIGNATURE_LEN_MAX: usize = 1024;

const SHA256: u8 = 1;
const SHA512: u8 = 2;
const PUBLIC: u8 = 1;
const PRIVATE: u8 = 2;
const SIZE_UNKNOWN: u8 = 0;
const SIZE_KNOWN: u8 = 1;

/// The bytes that a signature of `batch` covers.
pub(super) fn signed_message(batch: &PieceBatch) -> Vec<u8> {
    let mut message = DOMAIN.to_vec();
    write_batch(&mut message, batch);
    message
}

pub(super) fn write_signed(signed: &SignedBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_batch(&mut bytes, &signed.batch);
    write_bytes(&mut bytes, &signed.certificate);
    write_bytes(&mut bytes, &signed.signature);
    bytes
}

pub(super) fn read_signed(bytes: &[u8]) -> Result<SignedBatch, BatchError> {
    let mut reader = Reader { rest: bytes };
    let batch = read_batch(&mut reader)?;
    let certificate = reader.bytes(CERTIFICATE_LEN_MAX)?.to_vec();
    let signature = reader.bytes(SIGNATURE_LEN_MAX)?.to_vec();
    if !reader.rest.is_empty() {
        return Err(Malformed("it goes on after its end"));
    }
    Ok(SignedBatch {
        batch,
        certificate,
        signature,
    })
}

/// Whether `batch` keeps to the bounds and names only pieces that its layout has, in order.
pub(super) fn check(batch: &PieceBatch) -> Result<(), BatchError> {
    if batch.digests.len() > BATCH_PIECES_MAX {
        return Err(Malformed("it has too many pieces"));
    }
    if !batch
        .digests
        .is_sorted_by(|(before, _), (after, _)| before < after)
    {
        return Err(Malformed("its pieces are not in ascending order"));
    }
    let end = batch
        .layout
        .piece_count()
        .map_or(PIECES_MAX, |count| count.min(PIECES_MAX));
    if batch
        .digests
        .last()
        .is_some_and(|(piece, _)| piece.0 >= end)
    {
        return Err(Malformed("it has a piece past the end of the task"));
    }
    match &batch.visibility {
        Visibility::Private { origins } if origins.len() > BATCH_ORIGINS_MAX => {
            Err(Malformed("it has too many origins"))
        }
        Visibility::Private { .. } | Visibility::Public => Ok(()),
    }
}

fn write_batch(bytes: &mut Vec<u8>, batch: &PieceBatch) {
    bytes.push(VERSION);
    bytes.push(match batch.task.0 {
        Digest::Sha256(_) => SHA256,
        Digest::Sha512(_) => SHA512,
    });
    bytes.extend_from_slice(batch.task.0.as_bytes());
    bytes.extend_from_slice(&batch.attempt.0.to_be_bytes());
    bytes.push(LAYOUT_VERSION);
    bytes.extend_from_slice(&(batch.layout.piece_len() as u32).to_be_bytes());
    bytes.push(if batch.layout.size().is_some() {
        SIZE_KNOWN
    } else {
        SIZE_UNKNOWN
    });
    bytes.extend_from_slice(&batch.layout.size().unwrap_or(0).to_be_bytes());
    match &batch.visibility {
        Visibility::Public => bytes.push(PUBLIC),
        Visibility::Private { origins } => {
            bytes.push(PRIVATE);
            bytes.extend_from_slice(&(origins.len() as u32).to_be_bytes());
            for origin in origins {
                write_bytes(bytes, origin.as_str().as_bytes());
            }
        }
    }
    bytes.extend_from_slice(&(batch.digests.len() as u32).to_be_bytes());
    for (piece, digest) in &batch.digests {
        bytes.extend_from_slice(&piece.0.to_be_bytes());
        bytes.extend_from_slice(digest);
    }
}

fn write_bytes(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&(field.len() as u32).to_be_bytes());
    bytes.extend_from_slice(field);
}

fn read_batch(reader: &mut Reader<'_>) -> Result<PieceBatch, BatchError> {
    if reader.byte()? != VERSION {
        return Err(Malformed("it is of another version"));
    }
    let task = TaskId(match reader.byte()? {
        SHA256 => Digest::Sha256(reader.array()?),
        SHA512 => Digest::Sha512(reader.array()?),
        _ => return Err(Malformed("its digest algorithm is unknown")),
    });
    let attempt = AttemptId(u64::from_be_bytes(reader.array()?));
    let layout = read_layout(reader)?;
    let visibility = read_visibility(reader)?;
    let digests = read_digests(reader)?;
    let batch = PieceBatch {
        task,
        attempt,
        layout,
        visibility,
        digests,
    };
    check(&batch)?;
    Ok(batch)
}

fn read_layout(reader: &mut Reader<'_>) -> Result<Layout, BatchError> {
    let version = reader.byte()?;
    let piece_len = u32::from_be_bytes(reader.array()?);
    let size = match (reader.byte()?, u64::from_be_bytes(reader.array()?)) {
        (SIZE_UNKNOWN, 0) => None,
        (SIZE_KNOWN, size) => Some(size),
        _ => return Err(Malformed("its size is neither known nor unknown")),
    };
    Layout::told(version, piece_len, size).ok_or(Malformed("its layout is not one of ours"))
}

fn read_visibility(reader: &mut Reader<'_>) -> Result<Visibility, BatchError> {
    match reader.byte()? {
        PUBLIC => Ok(Visibility::Public),
        PRIVATE => {
            let count = reader.count(BATCH_ORIGINS_MAX)?;
            let origins: Result<_, _> = (0..count).map(|_| read_origin(reader)).collect();
            Ok(Visibility::Private { origins: origins? })
        }
        _ => Err(Malformed("its visibility is unknown")),
    }
}

fn read_origin(reader: &mut Reader<'_>) -> Result<RegistryName, BatchError> {
    let text = std::str::from_utf8(reader.bytes(NAME_LEN_MAX)?)
        .map_err(|_| Malformed("an origin is no text"))?;
    let origin: RegistryName = text
        .parse()
        .map_err(|_| Malformed("an origin is no registry"))?;
    // Parsing forgives upper case and knows aliases; only the name itself is canonical.
    if origin.as_str() != text {
        return Err(Malformed("an origin is not in its canonical form"));
    }
    Ok(origin)
}

fn read_digests(reader: &mut Reader<'_>) -> Result<Vec<(PieceIndex, PieceDigest)>, BatchError> {
    let count = reader.count(BATCH_PIECES_MAX)?;
    (0..count)
        .map(|_| {
            Ok((
                PieceIndex(u32::from_be_bytes(reader.array()?)),
                reader.array()?,
            ))
        })
        .collect()
}

/// Takes fields off the front of what is left.
struct Reader<'a> {
    rest: &'a [u8],
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, BatchError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*array)
    }

    fn count(&mut self, max: usize) -> Result<usize, BatchError> {
        let count = u32::from_be_bytes(self.array()?) as usize;
        if count <= max {
            Ok(count)
        } else {
            Err(Malformed("a length in it is past its bound"))
        }
    }

    fn bytes(&mut self, max: usize) -> Result<&'a [u8], BatchError> {
        let len = self.count(max)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(bytes)
    }
}

const ENDS_EARLY: BatchError = Malformed("it ends early");
