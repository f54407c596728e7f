//! The barest copy over a link: one TCP connection that carries bytes that nobody makes, reads,
//! hashes or keeps. What it reaches is what a link gives.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::process::{self, Process, Stopwatch};

use crate::{errand, terminal::say};

const CHUNK_BYTES: usize = 256 << 10;

const START_LIMIT: Duration = Duration::from_secs(10);

/// What a sender says once it can be asked, before its address.
const READY: &str = "giving at ";

/// A sender that waits for its one client.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) address: SocketAddr,
    process: Process,
}

// === impl Sender ===

impl Sender {
    /// Starts a sender; what it says goes into `log`.
    pub(crate) fn start(command: Command, log: &Path) -> Result<Self> {
        let mut process = Process::start("sender", command, log)?;
        let mut address = None;
        process.wait_ready(START_LIMIT, || {
            let told = std::fs::read_to_string(log).unwrap_or_default();
            let line = told.lines().find_map(|line| line.strip_prefix(READY));
            address = line.and_then(|text| text.parse().ok());
            address.is_some()
        })?;
        Ok(Self {
            address: address.context("a sender that is ready has told where")?,
            process,
        })
    }

    /// Everything that it said, once it has ended.
    pub(crate) fn finish(mut self) -> Result<String> {
        let status = self.process.wait_end(START_LIMIT)?;
        let told = self.process.log()?;
        ensure!(status.success(), "the sender failed: {told}");
        Ok(told)
    }
}

/// Waits for one client at `listen`, having said at which port.
pub(crate) fn one_client(listen: SocketAddr) -> Result<TcpStream> {
    let listener = TcpListener::bind(listen)?;
    say(&format!("{READY}{}", listener.local_addr()?));
    let (stream, _) = listener.accept()?;
    Ok(stream)
}

/// Sends `size` bytes to the first that connects.
pub(crate) fn give(listen: SocketAddr, size: u64) -> Result<()> {
    let mut stream = one_client(listen)?;
    let chunk = vec![0; CHUNK_BYTES];
    let mut left = size;
    while left > 0 {
        let count = usize::try_from(left)?.min(chunk.len());
        stream.write_all(&chunk[..count])?;
        left -= count as u64;
    }
    Ok(())
}

/// Reads `size` bytes and prints how many nanoseconds they took, from the connect on.
pub(crate) fn take(address: SocketAddr, size: u64) -> Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let watch = Stopwatch::start();
    let mut stream = TcpStream::connect(address)?;
    let mut bytes = 0;
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
    }
    let took = watch.elapsed();
    ensure!(bytes == size, "{bytes} bytes came, not {size}");
    say(&took.as_nanos().to_string());
    Ok(())
}

/// Bytes a second that one copy of `size` bytes reaches from one place to another: `from` and `to`
/// make commands of a program's name, `listen` is an address of the first.
pub(crate) fn rate(
    log: &Path,
    size: u64,
    listen: SocketAddr,
    from: impl Fn(&str) -> Command,
    to: impl Fn(&str) -> Command,
) -> Result<f64> {
    let mut give = errand::own(from)?;
    give.args(["give", &listen.to_string(), &size.to_string()]);
    let sender = Sender::start(give, log)?;
    let mut take = errand::own(to)?;
    take.args(["take", &sender.address.to_string(), &size.to_string()]);
    let told = process::check(take, COPY_LIMIT)?;
    sender.finish()?;
    let nanoseconds: f64 = told.trim().parse().context(told)?;
    Ok(size as f64 / (nanoseconds / 1e9))
}

/// A copy that takes longer says that the link is not what it was meant to be.
const COPY_LIMIT: Duration = Duration::from_secs(600);
