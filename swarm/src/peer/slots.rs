//! The upload slots as the peer server uses them: the admission policy behind a lock, and the slot
//! that gives itself back.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    admission::{Admission, Ask, Refusal},
    metrics::PeerMetrics,
};

/// The upload slots of this host. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    admission: Arc<Mutex<Admission>>,
    metrics: PeerMetrics,
}

/// The right to answer one request. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    ask: Ask,
}

// === impl Slots ===

impl Slots {
    pub(super) fn new(count: u32, metrics: PeerMetrics) -> Self {
        Self {
            admission: Arc::new(Mutex::new(Admission::new(count))),
            metrics,
        }
    }

    pub(super) fn in_use(&self) -> u32 {
        self.with(|admission| admission.in_use())
    }

    /// Refuses at once while nobody at all can get a slot, before anything is looked up.
    pub(super) fn check_any_free(&self) -> Result<(), Refusal> {
        match self.with(|admission| admission.is_full()) {
            true => Err(Refusal::Full),
            false => Ok(()),
        }
    }

    pub(super) fn admit(&self, ask: Ask) -> Result<Slot, Refusal> {
        self.with(|admission| admission.admit(&ask))?;
        self.metrics.upload_begun(ask.asker);
        Ok(Slot {
            slots: self.clone(),
            ask,
        })
    }

    fn with<T>(&self, decide: impl FnOnce(&mut Admission) -> T) -> T {
        decide(
            &mut self
                .admission
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

// === impl Slot ===

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.with(|admission| admission.release(&self.ask));
        self.slots.metrics.upload_ended();
    }
}
