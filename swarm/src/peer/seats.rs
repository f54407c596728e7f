//! The spreads of this host's tasks, shared between the streams that tell children of pieces and the
//! requests by which they come for them. Decides nothing: see [`super::spread`].

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use protocol::{Layout, PieceIndex, TaskId};

use super::spread::{ChildKey, Spread, Turn};

/// The spreads of all tasks that have children here. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Spreads {
    by_task: Arc<Mutex<HashMap<TaskId, Spread>>>,
}

/// One child's place in a spread, given up when dropped; or apart from all.
#[derive(Debug)]
pub(super) struct Seat(Option<Place>);

#[derive(Debug)]
struct Place {
    spreads: Spreads,
    task: TaskId,
    child: ChildKey,
}

/// Pieces on their way to a child.
#[derive(Debug)]
pub(super) struct Giving {
    spreads: Spreads,
    task: TaskId,
    layout: Layout,
    pieces: Range<u32>,
}

// === impl Spreads ===

impl Spreads {
    pub(super) fn join(&self, task: TaskId) -> Seat {
        let child = self.all().entry(task).or_default().join();
        Seat(Some(Place {
            spreads: self.clone(),
            task,
            child,
        }))
    }

    /// Somebody came for `pieces`, and is being given them until what this returns is dropped.
    pub(super) fn giving(&self, task: TaskId, layout: Layout, pieces: Range<u32>) -> Giving {
        self.asked(task, &layout, pieces.clone());
        Giving {
            spreads: self.clone(),
            task,
            layout,
            pieces,
        }
    }

    fn asked(&self, task: TaskId, layout: &Layout, pieces: Range<u32>) {
        if let Some(spread) = self.all().get_mut(&task) {
            for piece in pieces.map(PieceIndex) {
                spread.asked(layout, piece);
            }
        }
    }

    /// The pieces were given, as far as is known here.
    fn sent(&self, task: TaskId, layout: &Layout, pieces: Range<u32>) {
        if let Some(spread) = self.all().get_mut(&task) {
            for piece in pieces.map(PieceIndex) {
                spread.sent(clock(), layout, piece);
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<TaskId, Spread>> {
        self.by_task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Seat {
    /// Of a child that is told of everything at once.
    pub(super) fn apart() -> Self {
        Self(None)
    }

    /// When the child is told of `piece`, which is held here.
    pub(super) fn turn(&self, layout: &Layout, piece: PieceIndex) -> Turn {
        let Some(place) = &self.0 else {
            return Turn::Now;
        };
        let mut all = place.spreads.all();
        let spread = all.get_mut(&place.task);
        spread.map_or(Turn::Now, |spread| {
            spread.turn(clock(), place.child, (layout, piece))
        })
    }
}

// === impl Giving ===

impl Drop for Giving {
    fn drop(&mut self) {
        self.spreads
            .sent(self.task, &self.layout, self.pieces.clone());
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.spreads.all();
        if let Some(spread) = all.get_mut(&self.task) {
            spread.leave(self.child);
            if spread.is_empty() {
                all.remove(&self.task);
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "seats are taken in real time")]
fn clock() -> Instant {
    Instant::now()
}
