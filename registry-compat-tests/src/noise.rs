//! Pure: a body of any size that is never all in memory: one block of noise over and over, each
//! copy told apart by its number, so that no piece can stand for another.

use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::content::write_noise;

/// Bytes of a block; no two blocks of a body are alike.
pub const BLOCK: u64 = 1 << 20;

/// A body that is made as it is read.
#[derive(Debug, Clone)]
pub struct Noise {
    block: Bytes,
    size: u64,
}

// === impl Noise ===

impl Noise {
    /// `size` bytes that depend on nothing but `seed`.
    ///
    /// # Errors
    /// None today: memory takes what is written.
    pub fn new(seed: &str, size: u64) -> anyhow::Result<Self> {
        let mut block = Vec::new();
        write_noise(seed, BLOCK, &mut block)?;
        Ok(Self {
            block: block.into(),
            size,
        })
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of `range` that lie in the block of its start; none where the range is empty.
    #[must_use]
    pub fn begin_of(&self, range: Range<u64>) -> Bytes {
        let end = range.end.min(self.size);
        if end <= range.start {
            return Bytes::new();
        }
        let number = range.start / BLOCK;
        let within = |offset: u64| (offset - number * BLOCK) as usize;
        let span = within(range.start)..within(end.min((number + 1) * BLOCK));
        let mut block = self.block.to_vec();
        block[..8].copy_from_slice(&number.to_le_bytes());
        Bytes::from(block).slice(span)
    }

    /// The sha256 digest of the whole, written as OCI writes it.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let mut offset = 0;
        while offset < self.size {
            let bytes = self.begin_of(offset..self.size);
            hasher.update(&bytes);
            offset += bytes.len() as u64;
        }
        format!("sha256:{}", hex::encode(hasher.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::digest_of;

    #[test]
    fn a_part_is_what_the_whole_has_there() -> anyhow::Result<()> {
        let noise = Noise::new("noise", 2 * BLOCK + 5)?;
        let whole = [0, BLOCK, 2 * BLOCK].map(|start| noise.begin_of(start..u64::MAX));
        let whole = whole.concat();
        assert_eq!(whole.len() as u64, noise.size());
        assert_eq!(noise.digest(), digest_of(&whole));
        for range in [0..9, 7..8, BLOCK - 1..BLOCK + 9, 2 * BLOCK..u64::MAX] {
            let part = noise.begin_of(range.clone());
            let start = range.start as usize;
            assert_eq!(part, whole[start..start + part.len()], "{range:?}");
        }
        assert!(noise.begin_of(2 * BLOCK + 5..u64::MAX).is_empty());
        Ok(())
    }
}
