//! Reads held pieces. A piece that this process did not write is verified before its first byte is
//! given out, so that what a crash or the disk has done to it is found.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    ops::Range,
    os::unix::fs::FileExt,
};

use protocol::layout::PieceIndex;
use rustix::{buffer::spare_capacity, io::ReadWriteFlags};

use super::{error::StoreError, ledger::Trust, shelf::lock, task::StoredTask};

/// Bytes that are hashed at once; bounds the memory of a verification.
const HASH_CHUNK: usize = 128 * 1024;

/// How often a piece is looked at again that was dropped and landed while it was read.
const VERIFY_ROUNDS: usize = 3;

impl StoredTask {
    /// Appends the bytes of `range` to `buffer`. They must all be in held pieces.
    ///
    /// On [`StoreError::Corrupt`] the piece is held no more and must be had again.
    pub fn read(&self, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        for piece in self.unverified_in(&range)? {
            self.verify(piece)?;
        }
        let before = buffer.len();
        self.read_into(&range, buffer)?;
        let got = (buffer.len() - before) as u64;
        if got == range.end - range.start {
            return Ok(());
        }
        buffer.truncate(before);
        let piece = lock(&self.ledger).layout().piece_at(range.start + got);
        self.drop_damaged(piece, Trust::Verified);
        Err(StoreError::Corrupt { piece })
    }

    /// Appends bytes that were written by [`StoredTask::write_partial`], not knowing whether they
    /// will be part of a piece that holds. For readers on this host, which are told when they are not.
    pub fn read_partial(&self, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        if !lock(&self.ledger).may_cover(&range) {
            return Err(StoreError::Contradiction("bytes past the end of the body"));
        }
        let before = buffer.len();
        self.read_into(&range, buffer)?;
        if (buffer.len() - before) as u64 == range.end - range.start {
            return Ok(());
        }
        buffer.truncate(before);
        Err(StoreError::NotHeld {
            piece: lock(&self.ledger).layout().piece_at(range.start),
        })
    }

    /// Fills `buffer` from `offset` on if that takes no waiting: the pieces are verified and the
    /// kernel has the bytes in memory. `false` says nothing of them; [`StoredTask::read`] does.
    pub fn read_at_once(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let range = offset..offset + buffer.len() as u64;
        let is_verified = self
            .unverified_in(&range)
            .is_ok_and(|unverified| unverified.is_empty());
        is_verified && self.fill_at_once(offset, buffer)
    }

    /// As [`StoredTask::read_partial`], if that takes no waiting.
    pub fn read_partial_at_once(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let range = offset..offset + buffer.len() as u64;
        lock(&self.ledger).may_cover(&range) && self.fill_at_once(offset, buffer)
    }

    /// Verifies `piece` unless this process has done so before.
    pub(super) fn verify(&self, piece: PieceIndex) -> Result<(), StoreError> {
        for _ in 0..VERIFY_ROUNDS {
            let (range, expected) = {
                let ledger = lock(&self.ledger);
                if ledger.verified.contains(piece) {
                    return Ok(());
                }
                if !ledger.held.contains(piece) {
                    return Err(StoreError::NotHeld { piece });
                }
                (ledger.layout().bytes_of(piece), ledger.digest_of(piece))
            };
            let found = hash(&self.data, range).map_err(StoreError::disk("read a piece"))?;
            if found.is_some() && found == expected {
                let mut ledger = lock(&self.ledger);
                if ledger.held.contains(piece) && ledger.digest_of(piece) == expected {
                    ledger.verified.insert(piece);
                    return Ok(());
                }
            } else if self.drop_damaged(piece, Trust::Logged) {
                return Err(StoreError::Corrupt { piece });
            }
        }
        Err(StoreError::NotHeld { piece })
    }

    /// The first held piece that this process has not verified.
    pub(super) fn first_unverified(&self) -> Option<PieceIndex> {
        let ledger = lock(&self.ledger);
        ledger
            .held
            .iter()
            .find(|piece| !ledger.verified.contains(*piece))
    }

    fn unverified_in(&self, range: &Range<u64>) -> Result<Vec<PieceIndex>, StoreError> {
        let ledger = lock(&self.ledger);
        let layout = ledger.layout();
        if !ledger.may_cover(range) {
            return Err(StoreError::Contradiction("bytes past the end of the body"));
        }
        let pieces = layout.pieces_of(range).map(PieceIndex);
        if let Some(piece) = pieces.clone().find(|piece| !ledger.held.contains(*piece)) {
            return Err(StoreError::NotHeld { piece });
        }
        Ok(pieces
            .filter(|piece| !ledger.verified.contains(*piece))
            .collect())
    }

    /// Whether all of `buffer` could be filled from the page cache.
    fn fill_at_once(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut [IoSliceMut::new(&mut buffer[filled..])];
            let next = offset + filled as u64;
            match rustix::io::preadv2(&self.data, rest, next, ReadWriteFlags::NOWAIT) {
                Ok(0) => return false,
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                // Not in memory, or a file system that cannot tell.
                Err(_) => return false,
            }
        }
        true
    }

    /// Appends the bytes of `range`, fewer where the file ends before.
    fn read_into(&self, range: &Range<u64>, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let want = buffer.len() + (range.end - range.start) as usize;
        let start = buffer.len();
        buffer.reserve_exact(want - start);
        while buffer.len() < want {
            let offset = range.start + (buffer.len() - start) as u64;
            match rustix::io::pread(&self.data, spare_capacity(buffer), offset) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    buffer.truncate(start);
                    return Err(StoreError::disk("read a piece")(error));
                }
            }
        }
        // A buffer that came with room to spare was filled past the range.
        buffer.truncate(want);
        Ok(())
    }
}

/// The BLAKE3 digest of a part of a file; `None` where the file ends before.
fn hash(file: &File, range: Range<u64>) -> io::Result<Option<[u8; 32]>> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; HASH_CHUNK];
    let mut offset = range.start;
    while offset < range.end {
        let len = HASH_CHUNK.min((range.end - offset) as usize);
        match file.read_exact_at(&mut chunk[..len], offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        hasher.update(&chunk[..len]);
        offset += len as u64;
    }
    Ok(Some(*hasher.finalize().as_bytes()))
}
