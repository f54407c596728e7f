//! One client of a herd: it fetches every blob of an image as a container runtime does, a few at
//! once, each on a connection of its own, and holds each against its digest.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use protocol::Digest;
use registry_compat_tests::{
    http::{Ending, Request},
    process::Stopwatch,
};

use crate::processor;

/// Blobs of an image that a runtime fetches at once: docker's and containerd's default.
const AT_ONCE: usize = 3;

const READ_BYTES: usize = 256 << 10;

/// How long an image took, from the first connect on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pulled {
    /// The first byte of any blob.
    pub(crate) first_byte: Duration,
    pub(crate) total: Duration,
    /// Processor seconds of the client.
    pub(crate) cpu_seconds: f64,
}

// === impl Pulled ===

impl Pulled {
    /// Everything in one line.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} {} {}",
            self.first_byte.as_nanos(),
            self.total.as_nanos(),
            self.cpu_seconds
        )
    }

    /// Reads what [`Pulled::told`] has written.
    pub(crate) fn read(told: &str) -> Option<Self> {
        let mut words = told.split_whitespace();
        Some(Self {
            first_byte: Duration::from_nanos(words.next()?.parse().ok()?),
            total: Duration::from_nanos(words.next()?.parse().ok()?),
            cpu_seconds: words.next()?.parse().ok()?,
        })
    }
}

/// Fetches all blobs at these paths.
pub(crate) fn all(address: SocketAddr, paths: &[String]) -> Result<Pulled> {
    let watch = Stopwatch::start();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Option<Duration>> {
        let mut first_byte: Option<Duration> = None;
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = one(address, path, &watch)?;
            first_byte = Some(first_byte.map_or(begun, |earlier| earlier.min(begun)));
        }
        Ok(first_byte)
    };
    let first_bytes = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter();
        ended
            .map(|thread| thread.join().ok().context("a client panicked")?)
            .collect::<Result<Vec<_>>>()
    })?;
    let total = watch.elapsed();
    let first_byte = first_bytes.into_iter().flatten().min();
    Ok(Pulled {
        first_byte: first_byte.context("no blob was asked for")?,
        total,
        cpu_seconds: processor::own_seconds()?,
    })
}

/// Fetches one blob; gives when its first byte came.
fn one(address: SocketAddr, path: &str, watch: &Stopwatch) -> Result<Duration> {
    let expect = digest_in(path)?;
    let mut response = Request::get(path).send(address)?;
    ensure!(response.status == 200, "{path}: {}", response.status);
    let mut buffer = vec![0; READ_BYTES];
    let (mut hasher, mut first_byte) = (expect.hasher(), None);
    let ending = loop {
        match response.read_some(&mut buffer) {
            Ok(count) => {
                first_byte.get_or_insert_with(|| watch.elapsed());
                hasher.update(&buffer[..count]);
            }
            Err(ending) => break ending,
        }
    };
    ensure!(ending == Ending::Complete, "{path} ended {ending:?}");
    let digest = hasher.finish();
    ensure!(digest == expect, "{path} has brought {digest}");
    first_byte.context("an empty blob")
}

/// The digest at the end of a blob's path.
fn digest_in(path: &str) -> Result<Digest> {
    let path = path.split('?').next().unwrap_or_default();
    let digest = path.rsplit('/').next().unwrap_or_default();
    Ok(digest.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_tells_is_read_back() {
        let pulled = Pulled {
            first_byte: Duration::from_micros(1500),
            total: Duration::from_millis(2250),
            cpu_seconds: 0.25,
        };
        assert_eq!(Pulled::read(&pulled.told()), Some(pulled));
        assert_eq!(Pulled::read("1 2"), None);
    }

    #[test]
    fn a_blob_is_held_against_the_digest_in_its_path() {
        let digest = Digest::sha256_of(b"");
        let path = format!("/v2/team/x/blobs/{digest}");
        assert_eq!(digest_in(&path).unwrap(), digest);
        assert_eq!(
            digest_in(&format!("{path}?ns=registry.test")).unwrap(),
            digest
        );
        assert!(digest_in("/v2/").is_err());
    }
}
