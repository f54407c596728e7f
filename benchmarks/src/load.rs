//! The clients of a benchmark: they ask over the loopback, read everything and throw it away.
//!
//! The same client asks either side. What it costs itself is measured too, since on one machine it
//! takes processor time from the server that it measures.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    http::{Ending, Request},
    process::Stopwatch,
};

/// Read at once of a big body.
const READ_BYTES: usize = 1 << 20;

/// Heads and small bodies fit in here.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// An answer that takes longer is none.
const IO_LIMIT: Duration = Duration::from_secs(10);

/// Something that can be asked for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    /// Bytes of the body.
    pub(crate) size: u64,
}

/// How long a body took, from the connect on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetched {
    pub(crate) first_byte: Duration,
    pub(crate) total: Duration,
}

/// A connection that is asked the same thing again and again.
struct KeptAlive {
    stream: TcpStream,
    request: String,
    size: u64,
    buffer: Vec<u8>,
}

// === impl Target ===

impl Target {
    /// Fetches the body once, on a connection of its own.
    pub(crate) fn fetch(&self) -> Result<Fetched> {
        let mut buffer = vec![0; READ_BYTES];
        let watch = Stopwatch::start();
        let mut response = Request::get(&self.path).send(self.address)?;
        ensure!(response.status == 200, "status {}", response.status);
        let (mut first_byte, mut bytes) = (None, 0);
        let ending = loop {
            match response.read_some(&mut buffer) {
                Ok(count) => {
                    first_byte.get_or_insert_with(|| watch.elapsed());
                    bytes += count as u64;
                }
                Err(ending) => break ending,
            }
        };
        let total = watch.elapsed();
        ensure!(
            ending == Ending::Complete && bytes == self.size,
            "{} ended {ending:?} after {bytes} of {} bytes",
            self.path,
            self.size
        );
        Ok(Fetched {
            first_byte: first_byte.unwrap_or(total),
            total,
        })
    }

    /// Fetches the body `times` times by each of so many clients at once; gives the time of all.
    pub(crate) fn fetch_at_once(&self, clients: usize, times: usize) -> Result<Duration> {
        let watch = Stopwatch::start();
        at_once(clients, || {
            (0..times).try_for_each(|_| self.fetch().map(drop))
        })?;
        Ok(watch.elapsed())
    }

    /// Asks again and again over so many kept-alive connections; gives the time each answer took.
    pub(crate) fn ask_for(&self, connections: usize, limit: Duration) -> Result<Vec<Duration>> {
        let watch = Stopwatch::start();
        let latencies = at_once(connections, || {
            let mut connection = KeptAlive::open(self)?;
            let mut latencies = Vec::new();
            while watch.elapsed() < limit {
                let asked = Stopwatch::start();
                connection.ask()?;
                latencies.push(asked.elapsed());
            }
            Ok(latencies)
        })?;
        Ok(latencies.concat())
    }
}

// === impl Fetched ===

impl Fetched {
    /// Both times in nanoseconds, as one line.
    pub(crate) fn told(&self) -> String {
        format!("{} {}", self.first_byte.as_nanos(), self.total.as_nanos())
    }

    pub(crate) fn read(told: &str) -> Option<Self> {
        let (first_byte, total) = told.trim().split_once(' ')?;
        Some(Self {
            first_byte: Duration::from_nanos(first_byte.parse().ok()?),
            total: Duration::from_nanos(total.parse().ok()?),
        })
    }
}

// === impl KeptAlive ===

impl KeptAlive {
    fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IO_LIMIT))?;
        Ok(Self {
            stream,
            request: format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
                target.path, target.address
            ),
            size: target.size,
            buffer: vec![0; ANSWER_BYTES_MAX],
        })
    }

    /// Asks once and reads the answer, which has the known size behind its head.
    fn ask(&mut self) -> Result<()> {
        self.stream.write_all(self.request.as_bytes())?;
        let (mut filled, mut head) = (0, None);
        loop {
            let count = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(count > 0, "the answer ended after {filled} bytes");
            filled += count;
            head = head.or_else(|| head_len(&self.buffer[..filled]));
            let whole = head.map(|head| head as u64 + self.size);
            if whole.is_some_and(|whole| whole <= filled as u64) {
                break;
            }
        }
        let answer = &self.buffer[..filled];
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "not 200");
        Ok(())
    }
}

fn head_len(answer: &[u8]) -> Option<usize> {
    let end = b"\r\n\r\n";
    let found = answer.windows(end.len()).position(|window| window == end);
    found.map(|start| start + end.len())
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Does the same on so many threads at once.
fn at_once<T: Send>(threads: usize, work: impl Fn() -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().ok().context("a client panicked")?)
            .collect()
    })
}
