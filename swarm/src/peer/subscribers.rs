//! The parent's side of one availability stream: a feed for each task that the child asked for.
//!
//! All feeds of a stream run in its one task, so that a feed that was dropped can say nothing more.
//! A full stream makes its feeds wait; none of them queues anything (see [`super::feed`]).

use std::{collections::HashMap, sync::Arc};

use futures_util::{
    StreamExt as _,
    future::{AbortHandle, Abortable},
    stream::FuturesUnordered,
};
use protocol::{
    Origin, TaskId,
    availability::{Ask, Subscriber, Tell},
};
use tokio::sync::mpsc;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{
    feed::{Feed, Next},
    seats::{Seat, Spreads},
    spread::Turn,
};
use crate::{
    reader::InterestGuard,
    task::{Shared, Shelf, Stage},
};

/// Tasks that one child may follow at once; one more is answered as gone.
const TASKS_PER_STREAM_MAX: usize = 1024;

/// A task that the child follows, be there more to tell or not: it fetches what it was told of.
struct Followed {
    feed: AbortHandle,
    /// What the child reads of it, for as long as that stands.
    _wants: Vec<InterestGuard>,
    _fed: TaskTrackerToken,
}

/// Serves `subscriber` until its child leaves. Every task that it follows counts as `fed`; once that
/// is closed, no further one is.
pub(super) async fn serve(
    shelf: Arc<dyn Shelf>,
    spreads: Spreads,
    fed: TaskTracker,
    mut subscriber: Subscriber,
) {
    let mut feeds = FuturesUnordered::new();
    let mut followed: HashMap<TaskId, Followed> = HashMap::new();
    let tell = subscriber.tell;
    loop {
        let asked = tokio::select! {
            asked = subscriber.ask.recv() => asked,
            Some(over) = feeds.next() => {
                if let Ok(Some(gone)) = over {
                    followed.remove(&gone);
                }
                continue;
            }
            () = tell.closed() => return,
        };
        let Some(asked) = asked else { return };
        let task = asked.task();
        if let Ask::Wants { wants, .. } = asked {
            if let Some(followed) = followed.get_mut(&task) {
                followed._wants = shelf.want(task, wants).await;
            }
            continue;
        }
        if let Ask::Lend { origin, right, .. } = asked {
            shelf.lend(task, origin, right).await;
            continue;
        }
        // A second subscription to a task starts it again.
        let before = followed.remove(&task);
        if let Some(before) = &before {
            before.feed.abort();
        }
        let origin = match asked {
            Ask::Unsubscribe(_) | Ask::Wants { .. } | Ask::Lend { .. } => continue,
            Ask::Subscribe(_) => None,
            Ask::Bring { origin, .. } => Some(origin),
        };
        let is_late = fed.is_closed() && before.is_none();
        if is_late || followed.len() >= TASKS_PER_STREAM_MAX {
            tracing::debug!(child = %subscriber.child, is_late, "may follow no further task");
            // A child this far over its bound may miss it.
            let _ = tell.try_send(Tell::Gone { task });
            continue;
        }
        let (feed, registration) = AbortHandle::new_pair();
        let _fed = fed.token();
        let _wants = Vec::new();
        followed.insert(task, Followed { feed, _wants, _fed });
        // Who has no scheduler has no siblings to hear of a piece from: it is told at once.
        let seat = match origin {
            None => spreads.join(task),
            Some(_) => Seat::apart(),
        };
        feeds.push(Abortable::new(
            follow(Arc::clone(&shelf), seat, (task, origin), tell.clone()),
            registration,
        ));
    }
}

/// Tells the child of `task` until there is nothing more to tell. Gives back a task that is gone.
async fn follow(
    shelf: Arc<dyn Shelf>,
    seat: Seat,
    (task, origin): (TaskId, Option<Origin>),
    tell: mpsc::Sender<Tell>,
) -> Option<TaskId> {
    let shared = match (shelf.follow(task).await, origin) {
        (None, Some(origin)) => shelf.bring(task, origin).await,
        (shared, _) => shared,
    };
    let told = match shared {
        Some(shared) => feed(shared, &seat, (task, &tell)).await,
        None => None,
    };
    if told.is_some() {
        return None;
    }
    // A child that has left needs no answer.
    let _ = tell.send(Tell::Gone { task }).await;
    Some(task)
}

/// `None` when the task is not, or no more, to be had here.
async fn feed(
    shared: Shared,
    seat: &Seat,
    (task, tell): (TaskId, &mpsc::Sender<Tell>),
) -> Option<()> {
    let mut progress = shared.progress;
    let mut feed = Feed::new(task);
    loop {
        let next = {
            let seen = progress.borrow_and_update();
            // What came from others, others have.
            let is_only_here =
                |piece| matches!(seen.stage, Stage::Complete) || seen.from_source.contains(piece);
            feed.next(&seen, |layout, piece| match is_only_here(piece) {
                true => seat.turn(layout, piece),
                false => Turn::Now,
            })
        };
        match next {
            Next::Tell(message) => {
                if tell.send(message).await.is_err() {
                    return Some(());
                }
            }
            Next::Wait(Some(later)) => tokio::select! {
                () = tokio::time::sleep_until(later.into()) => {}
                // With its driver gone nothing changes, and time still passes.
                Ok(()) = progress.changed() => {}
            },
            Next::Wait(None) if progress.changed().await.is_ok() => {}
            // Its driver has left. What is complete stays to be had.
            Next::Wait(None) if matches!(progress.borrow().stage, Stage::Complete) => {
                return Some(());
            }
            Next::Wait(None) | Next::Gone => return None,
        }
    }
}
