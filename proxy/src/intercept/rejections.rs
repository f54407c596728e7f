//! Pure: which clients do not take our certificate for a host, so that they are not offered it.
//!
//! A client is an address, what it calls itself where it says so, and the host that it asked for:
//! on one machine that trusts the authority in docker and not in curl, all clients have one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Who asked for which host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Asking {
    pub(crate) client: IpAddr,
    /// The `User-Agent` of its CONNECT; the shape of its ClientHello where it was redirected here.
    pub(crate) agent: String,
    /// As in `registry.example:443`.
    pub(crate) host: String,
}

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// It says that it does not trust the certificate.
    Told,
    /// It left without a word, which a client that is interrupted does too.
    Silent,
}

/// Who rejected our certificates lately.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    seen: HashMap<Asking, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    since: Instant,
    is_sure: bool,
}

/// How long a client is not offered our certificate again; then it may have been taught to trust it.
const MEMORY: Duration = Duration::from_secs(10 * 60);

/// Clients that are remembered at once; the oldest goes first.
const REMEMBERED_MAX: usize = 1024;

/// The longest name of a client that is kept, in bytes.
pub(crate) const AGENT_LEN_MAX: usize = 128;

// === impl Rejections ===

impl Rejections {
    /// Whether this one is to be left alone with our certificate.
    pub(crate) fn holds(&self, asking: &Asking, now: Instant) -> bool {
        let seen = self.seen.get(asking);
        seen.is_some_and(|seen| seen.is_sure && now < seen.since + MEMORY)
    }

    /// Notes that this one rejected our certificate, and says whether that is sure: whoever only left
    /// must do so twice.
    pub(crate) fn note(&mut self, asking: Asking, rejection: Rejection, now: Instant) -> bool {
        self.seen.retain(|_, seen| now < seen.since + MEMORY);
        if self.seen.len() >= REMEMBERED_MAX && !self.seen.contains_key(&asking) {
            let oldest = self.seen.iter().min_by_key(|(_, seen)| seen.since);
            if let Some(oldest) = oldest.map(|(asking, _)| asking.clone()) {
                self.seen.remove(&oldest);
            }
        }
        let is_sure = rejection == Rejection::Told || self.seen.contains_key(&asking);
        let seen = Seen {
            since: now,
            is_sure,
        };
        self.seen.insert(asking, seen);
        is_sure
    }

    /// Notes that this one took it.
    pub(crate) fn forget(&mut self, asking: &Asking) {
        self.seen.remove(asking);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(agent: &str, host: &str) -> Asking {
        Asking {
            client: IpAddr::from([127, 0, 0, 1]),
            agent: agent.to_owned(),
            host: host.to_owned(),
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any origin will do")]
    fn who_says_no_is_remembered_for_that_host_and_for_a_time() {
        let (mut rejections, now) = (Rejections::default(), Instant::now());
        rejections.note(asking("curl", "a:443"), Rejection::Told, now);
        assert!(rejections.holds(&asking("curl", "a:443"), now));
        assert!(!rejections.holds(&asking("curl", "b:443"), now));
        assert!(!rejections.holds(&asking("docker", "a:443"), now));
        assert!(!rejections.holds(&asking("curl", "a:443"), now + MEMORY));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any origin will do")]
    fn who_leaves_without_a_word_must_do_so_twice() {
        let (mut rejections, now) = (Rejections::default(), Instant::now());
        assert!(!rejections.note(asking("", "a:443"), Rejection::Silent, now));
        assert!(!rejections.holds(&asking("", "a:443"), now));
        assert!(rejections.note(asking("", "a:443"), Rejection::Silent, now));
        assert!(rejections.holds(&asking("", "a:443"), now));
        rejections.forget(&asking("", "a:443"));
        assert!(!rejections.holds(&asking("", "a:443"), now));
        rejections.note(asking("", "a:443"), Rejection::Silent, now);
        rejections.note(asking("", "a:443"), Rejection::Silent, now + MEMORY);
        assert!(!rejections.holds(&asking("", "a:443"), now + MEMORY));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any origin will do")]
    fn the_oldest_goes_when_there_are_too_many() {
        let (mut rejections, now) = (Rejections::default(), Instant::now());
        for number in 0..=REMEMBERED_MAX {
            let at = now + Duration::from_millis(number as u64);
            rejections.note(asking("", &number.to_string()), Rejection::Told, at);
        }
        assert_eq!(rejections.seen.len(), REMEMBERED_MAX);
        assert!(!rejections.holds(&asking("", "0"), now));
        assert!(rejections.holds(&asking("", "1"), now));
    }
}
