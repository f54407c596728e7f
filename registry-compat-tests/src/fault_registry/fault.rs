//! What the registry can do wrong, as a closed list, and for which requests it does.
//!
//! Pure: a rule says of a request whether it is hit; nothing is sent from here.

use std::time::Duration;

use super::flow::{Sluice, Trickle};

/// One way to answer badly. What it does not speak of is answered as a healthy registry would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed before a byte of the answer.
    NoAnswer,
    /// The answer begins only after this time.
    SlowStart(Duration),
    /// So many bytes of the body come, told by `framing`, and then the connection ends.
    Breaks {
        framing: Framing,
        after: usize,
        end: End,
    },
    /// The body is whole and right, told by `framing`.
    Framed(Framing),
    /// The length that is told is so much more than what comes before the connection is closed.
    ToldLonger(usize),
    /// The length that is told is so much less than there is; no more than that comes.
    ToldShorter(usize),
    /// So many bytes more come than there are, and their length is told.
    Oversize(usize),
    /// The byte at this position of the body is another.
    WrongByte(usize),
    /// This answer, with an error of the distribution specification in its body.
    Status(u16),
    /// 429 with `Retry-After` in seconds.
    Limited { retry_after: u64 },
    /// 401 without `WWW-Authenticate`.
    NoChallenge,
    /// 307 to the same place, for ever.
    RedirectLoop,
    /// 307 to this URL.
    RedirectTo(String),
    /// The headers of the healthy answer, but this `Docker-Content-Digest`, or none.
    DigestHeader(Option<String>),
    /// The healthy answer, but for this header.
    Header(&'static str, &'static str),
    /// A `Range` is answered with the whole.
    IgnoresRange,
    /// The body comes as far as the sluice lets it.
    Sluiced(Sluice),
    /// The answer is late, and its body comes a little at a time.
    Trickles(Trickle),
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order, by FIN.
    Close,
    /// By RST.
    Reset,
    /// It does not: nothing more comes, until the client gives up.
    Stall,
}

/// Which requests of a path are hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// So many, and then no more.
    First(usize),
    Always,
}

/// Which methods are hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Get,
    Head,
    Any,
}

/// A fault and the requests that are hit by it.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) on: On,
    pub(super) path_end: String,
    pub(super) times: Times,
    pub(super) fault: Fault,
    pub(super) taken: usize,
}

// === impl Rule ===

impl Rule {
    /// The fault, if this request is hit; it is then counted.
    pub(super) fn take(&mut self, method: &str, path: &str) -> Option<Fault> {
        let is_left = match self.times {
            Times::First(count) => self.taken < count,
            Times::Always => true,
        };
        let is_method = match self.on {
            On::Get => method == "GET",
            On::Head => method == "HEAD",
            On::Any => true,
        };
        if !(is_left && is_method && path.ends_with(&self.path_end)) {
            return None;
        }
        self.taken += 1;
        Some(self.fault.clone())
    }
}
