//! What parents hold, as this host hears it: one availability stream per parent for all tasks.
//!
//! A stream is opened at the first subscription and closed when it was idle for a while. It may
//! break at any moment; then all receivers of that parent end, and the next subscription opens
//! another one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use protocol::{
    Host, Origin, Right, TaskId, Want,
    availability::{Ask, Availability, Tell},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod stream;

use stream::{Stream, Wish};

/// Subscribes to tasks at parents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

/// The bounds of a [`Hub`].
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Parents with an open stream. Past it, a subscription ends at once.
    pub streams_max: usize,
    /// Tasks on one stream. Past it, a subscription ends at once.
    pub tasks_per_stream_max: usize,
    /// Messages of one task that wait for their reader.
    pub tells_waiting: usize,
    /// How long a stream waits for a reader whose queue is full; then that reader's subscription
    /// ends, so that one slow task cannot hold up the others for longer.
    pub full_wait: Duration,
    pub open_timeout: Duration,
    /// A stream that carries no task for so long is closed.
    pub idle_timeout: Duration,
}

#[derive(Debug)]
struct Inner {
    availability: Arc<dyn Availability>,
    config: HubConfig,
    streams: Mutex<HashMap<Host, mpsc::Sender<Wish>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Subscriptions that wait for their stream to open or to look. Past it, a subscription ends.
const WISHES_WAITING: usize = 1024;

// === impl Hub ===

impl Hub {
    pub fn new(availability: Arc<dyn Availability>, config: HubConfig) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let streams = Mutex::default();
        Self {
            inner: Arc::new(Inner {
                availability,
                config,
                streams,
                tasks,
                stop,
            }),
        }
    }

    /// What `parent` tells of `task` from now on; the first message is `Begins` or `Gone`. The
    /// receiver ends after `Gone`, when the stream breaks or cannot be opened, when a bound is
    /// reached, and when another subscription to the same task at the same parent replaces it.
    /// To unsubscribe, drop it.
    pub fn subscribe(&self, parent: &Host, task: TaskId) -> mpsc::Receiver<Tell> {
        self.wish(parent, Ask::Subscribe(task))
    }

    /// As [`Hub::subscribe`]; a parent that is a seed and does not have the task begins to.
    pub fn bring(&self, parent: &Host, task: TaskId, origin: Origin) -> mpsc::Receiver<Tell> {
        self.wish(parent, Ask::Bring { task, origin })
    }

    /// Tells `parent`, whose word on `task` was subscribed to, what is read of it here.
    pub fn want(&self, parent: &Host, task: TaskId, wants: Vec<Want>) {
        let ask = Ask::Wants { task, wants };
        self.inner.hand_over(parent, Wish { ask, tell: None });
    }

    /// Lends `seed` a right by which it may fetch `task`.
    pub(crate) fn lend(&self, seed: &Host, task: TaskId, origin: Origin, right: Right) {
        let ask = Ask::Lend {
            task,
            origin,
            right,
        };
        self.inner.hand_over(seed, Wish { ask, tell: None });
    }

    /// Hosts to which a stream is open, `max` of them at most.
    pub(crate) fn parents(&self, max: usize) -> Vec<Host> {
        self.inner.streams().keys().take(max).cloned().collect()
    }

    fn wish(&self, parent: &Host, ask: Ask) -> mpsc::Receiver<Tell> {
        let (tell, told) = mpsc::channel(self.inner.config.tells_waiting);
        let tell = Some(tell);
        self.inner.hand_over(parent, Wish { ask, tell });
        told
    }

    /// Closes every stream and waits for them.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            streams_max: 1024,
            tasks_per_stream_max: 1024,
            tells_waiting: 64,
            full_wait: Duration::from_secs(2),
            open_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Gives `wish` to the stream of `parent`, or drops it, which ends its receiver.
    fn hand_over(self: &Arc<Self>, parent: &Host, wish: Wish) {
        let mut streams = self.streams();
        let wish = match streams.get(parent) {
            None => wish,
            Some(wishes) => match wishes.try_send(wish) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => return,
                Err(mpsc::error::TrySendError::Closed(wish)) => wish,
            },
        };
        if self.stop.is_cancelled() || streams.len() >= self.config.streams_max {
            return;
        }
        let (wishes, wished) = mpsc::channel(WISHES_WAITING);
        // The queue was made a line above, so there is room.
        let _ = wishes.try_send(wish);
        streams.insert(parent.clone(), wishes);
        let stream = Stream::new(Arc::clone(self), parent.clone(), wished);
        self.tasks.spawn(stream.run());
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, HashMap<Host, mpsc::Sender<Wish>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
