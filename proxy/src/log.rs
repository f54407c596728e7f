//! One structured line per request, and the metrics that go with it.
//!
//! No credential, no query and no address with a signature ever gets in here: a [`Record`] holds
//! parsed names alone.

use std::{
    ops::{Add, AddAssign},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    client::ClientKind,
    error::Fault,
    metrics::{ByteOrigin, Metrics, RequestKind},
};

/// Bytes that a client was sent, by where they came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BytesBy {
    pub hit: u64,
    pub joined: u64,
    pub swarm: u64,
    pub source: u64,
}

/// What is known of one request; the line is written when it ends.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) client: ClientKind,
    pub(crate) kind: RequestKind,
    pub(crate) method: http::Method,
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// The digest or tag.
    pub(crate) reference: String,
    /// The `Range` as it was understood.
    pub(crate) range: Option<String>,
    pub(crate) status: u16,
    /// Why it is refused, as the table on top of `error.rs` names it.
    pub(crate) fault: Option<Fault>,
    began: Instant,
    first_byte: Option<Duration>,
    sent: u64,
    broken: Option<String>,
    metrics: Arc<Metrics>,
    is_finished: bool,
}

// === impl BytesBy ===

impl BytesBy {
    pub fn total(&self) -> u64 {
        self.hit + self.joined + self.swarm + self.source
    }

    fn by_origin(&self) -> [(ByteOrigin, u64); 4] {
        [
            (ByteOrigin::Hit, self.hit),
            (ByteOrigin::Joined, self.joined),
            (ByteOrigin::Swarm, self.swarm),
            (ByteOrigin::Source, self.source),
        ]
    }
}

impl Add for BytesBy {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hit: self.hit + other.hit,
            joined: self.joined + other.joined,
            swarm: self.swarm + other.swarm,
            source: self.source + other.source,
        }
    }
}

impl AddAssign for BytesBy {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

// === impl Record ===

impl Record {
    pub(crate) fn begin(client: ClientKind, method: http::Method, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            kind: RequestKind::Other,
            method,
            registry: String::new(),
            repository: String::new(),
            reference: String::new(),
            range: None,
            status: 0,
            fault: None,
            began: now(),
            first_byte: None,
            sent: 0,
            broken: None,
            metrics,
            is_finished: false,
        }
    }

    /// `len` bytes of the body are handed to the connection.
    pub(crate) fn sent(&mut self, len: u64) {
        self.first_byte.get_or_insert_with(|| now() - self.began);
        self.sent += len;
    }

    /// The body ends before its end.
    pub(crate) fn cut(&mut self, fault: Fault, why: &str) {
        self.fault = Some(fault);
        self.broken = Some(why.to_owned());
        self.metrics.cut.inc();
    }

    /// What comes of the request leaves lines of its own.
    pub(crate) fn leave(&mut self) {
        self.is_finished = true;
    }

    /// The request is over: everything was sent, the body was cut, or the client left.
    pub(crate) fn finish(&mut self, served: BytesBy) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        let total = now() - self.began;
        let first_byte = self.first_byte.unwrap_or(total);
        self.metrics
            .request(self.client, self.kind, self.status, first_byte, total);
        for (origin, bytes) in served.by_origin() {
            self.metrics.bytes(origin, bytes);
        }
        tracing::info!(
            client = self.client.label(),
            kind = self.kind.label(),
            method = self.method.as_str(),
            registry = self.registry,
            repository = self.repository,
            reference = self.reference,
            range = self.range,
            status = self.status,
            fault = self.fault.map(Fault::label),
            bytes = self.sent,
            bytes_hit = served.hit,
            bytes_joined = served.joined,
            bytes_swarm = served.swarm,
            bytes_source = served.source,
            first_byte_ms = first_byte.as_millis() as u64,
            total_ms = total.as_millis() as u64,
            broken = self.broken,
            "request"
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the log is the driver that times requests"
)]
fn now() -> Instant {
    Instant::now()
}
