//! Bytes and their digests: noise that is the same everywhere, and sha256 as OCI writes it.

use std::{
    fs::File,
    io::{Read as _, Write},
    path::Path,
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256, Sha512};

/// The sha256 digest of a file, written as OCI writes it.
///
/// # Errors
/// The file cannot be read.
pub fn digest_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            return Ok(format!("sha256:{}", hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..got]);
    }
}

/// The sha256 digest of some bytes, written as OCI writes it.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The sha512 digest of some bytes, written as OCI writes it.
#[must_use]
pub fn sha512_of(bytes: &[u8]) -> String {
    format!("sha512:{}", hex::encode(Sha512::digest(bytes)))
}

/// `size` incompressible bytes that depend on nothing but `seed`.
///
/// # Errors
/// As [`write_noise`]; memory takes any bytes.
pub fn noise(seed: &str, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size);
    write_noise(seed, size as u64, &mut bytes)?;
    Ok(bytes)
}

/// Writes `size` incompressible bytes that depend on nothing but `seed`.
///
/// # Errors
/// The sink refuses.
pub fn write_noise(seed: &str, size: u64, sink: &mut dyn Write) -> Result<()> {
    let mut noise = blake3::Hasher::new().update(seed.as_bytes()).finalize_xof();
    let mut buffer = vec![0; 1 << 16];
    let mut left = size;
    while left > 0 {
        noise.fill(&mut buffer);
        let take = usize::try_from(left.min(buffer.len() as u64))?;
        sink.write_all(&buffer[..take])?;
        left -= take as u64;
    }
    Ok(())
}
