//! How fast a body comes: as fast as it goes, as far as a test lets it, or a little at a time.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

/// A gate in the way of bodies that the test moves. Cheap to clone; all clones are one gate.
#[derive(Debug, Clone)]
pub struct Sluice {
    /// Offset in the whole body of the first byte that is held back.
    limit: Arc<watch::Sender<usize>>,
}

/// So many bytes at a time, so often, with a pause after each; what is left comes freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trickle {
    /// The head of the answer is held back for this long.
    pub first_after: Duration,
    pub step: usize,
    pub every: Duration,
    pub steps: usize,
}

/// How the bytes of one body are let out.
#[derive(Debug, Clone)]
pub(super) enum Flow {
    Free,
    Sluiced(Sluice),
    Trickling(Trickle),
}

// === impl Sluice ===

impl Sluice {
    /// A gate before the byte at `limit` of every body, whichever range was asked for.
    #[must_use]
    pub fn at(limit: usize) -> Self {
        Self {
            limit: Arc::new(watch::Sender::new(limit)),
        }
    }

    /// Lets everything before the byte at `limit` through from now on.
    pub fn move_to(&self, limit: usize) {
        self.limit.send_replace(limit);
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.move_to(usize::MAX);
    }

    async fn room(&self, offset: usize) -> usize {
        let mut limit = self.limit.subscribe();
        // The sender lives as long as the gate that is borrowed here.
        let reached = limit.wait_for(|limit| offset < *limit).await;
        reached.map_or(usize::MAX, |limit| *limit - offset)
    }
}

impl PartialEq for Sluice {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.limit, &other.limit)
    }
}

impl Eq for Sluice {}

// === impl Trickle ===

impl Trickle {
    async fn room(&self, sent: usize) -> usize {
        if self.step * self.steps <= sent {
            return usize::MAX;
        }
        if 0 < sent && sent.is_multiple_of(self.step) {
            sleep(self.every).await;
        }
        self.step - sent % self.step
    }
}

// === impl Flow ===

impl Flow {
    /// Waits until at least one more byte may go, after `sent` of a body that began at `start` of
    /// the whole; tells how many may.
    pub(super) async fn room(&self, start: usize, sent: usize) -> usize {
        match self {
            Self::Free => usize::MAX,
            Self::Sluiced(sluice) => sluice.room(start + sent).await,
            Self::Trickling(trickle) => trickle.room(sent).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trickle_gives_its_steps_and_then_the_rest() {
        let trickle = Trickle {
            first_after: Duration::ZERO,
            step: 10,
            every: Duration::from_millis(1),
            steps: 2,
        };
        for (sent, room) in [
            (0, 10),
            (4, 6),
            (10, 10),
            (20, usize::MAX),
            (21, usize::MAX),
        ] {
            assert_eq!(trickle.room(sent).await, room, "after {sent}");
        }
    }

    #[tokio::test]
    async fn a_sluice_stands_before_a_byte_of_the_whole() {
        let sluice = Sluice::at(100);
        let flow = Flow::Sluiced(sluice.clone());
        assert_eq!(flow.room(0, 40).await, 60);
        assert_eq!(flow.room(90, 4).await, 6);
        let held = tokio::time::timeout(Duration::from_millis(10), flow.room(60, 40)).await;
        assert!(held.is_err(), "{held:?}");
        sluice.open();
        assert!(1 << 40 < flow.room(60, 40).await);
    }
}
