//! Remembers for a moment which repositories refuse anonymous readers.
//!
//! Saves callers with a credential the requests that would be refused again. A caller without
//! one is never answered from here: what became public is seen at once.

use std::time::{Duration, Instant};

use moka::future::Cache;
use protocol::Repository;

use super::{clock, error::Answer, upstream::UpstreamId};

#[derive(Debug)]
pub(super) struct Refusals {
    recent: Cache<Place, Refusal>,
}

pub(super) type Place = (UpstreamId, Repository);

#[derive(Debug, Clone)]
struct Refusal {
    answer: Box<Answer>,
    until: Instant,
}

/// Refusals kept; the least used go first.
const REFUSALS_MAX: u64 = 1024;
/// How long a refusal is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);

// === impl Refusals ===

impl Refusals {
    pub(super) fn new() -> Self {
        Self {
            recent: Cache::new(REFUSALS_MAX),
        }
    }

    pub(super) async fn recent(&self, place: &Place) -> Option<Box<Answer>> {
        let refusal = self.recent.get(place).await?;
        (clock::now() < refusal.until).then_some(refusal.answer)
    }

    pub(super) async fn remember(&self, place: Place, answer: Box<Answer>) {
        let refusal = Refusal {
            answer,
            until: clock::now() + REMEMBERED_FOR,
        };
        self.recent.insert(place, refusal).await;
    }
}
