//! Clients as threads: each reads a body as it comes, hashes it, and shows how far it is.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread::ScopedJoinHandle,
};

use anyhow::{Context as _, Result, bail, ensure};
use registry_compat_tests::http::{Ending, Request};
use sha2::{Digest as _, Sha256};

/// What the mirror answers at `path`, hashed as it comes; `taken` counts the bytes.
///
/// # Errors
/// The answer is none, or its body ends before its end.
pub(crate) fn digest_while(proxy: SocketAddr, path: &str, taken: &AtomicU64) -> Result<String> {
    let mut response = Request::get(path).send(proxy)?;
    ensure!(response.status == 200, "{path}: {}", response.status);
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match response.read_some(&mut buffer) {
            Ok(count) => {
                hasher.update(&buffer[..count]);
                taken.fetch_add(count as u64, Ordering::AcqRel);
            }
            Err(Ending::Complete) => break,
            Err(ending) => {
                let taken = taken.load(Ordering::Acquire);
                bail!("the body ended {ending:?} after {taken} bytes");
            }
        }
    }
    Ok(format!("sha256:{}", hex::encode(hasher.finalize())))
}

/// As [`digest_while`], for whoever does not look on.
///
/// # Errors
/// As [`digest_while`].
pub(crate) fn digest_through(proxy: SocketAddr, path: &str) -> Result<String> {
    digest_while(proxy, path, &AtomicU64::new(0))
}

/// What a client came back with; one that panicked has failed.
///
/// # Errors
/// The client's own, or it panicked.
pub(crate) fn joined<T>(client: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    client.join().ok().context("a client panicked")?
}
