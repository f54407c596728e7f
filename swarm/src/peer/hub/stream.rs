//! One availability stream to one parent, shared out to the tasks that subscribed.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use protocol::{
    Host, TaskId,
    availability::{Ask, Subscription, Tell},
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

use super::Inner;

/// How often subscriptions whose receiver was dropped are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long the parent may take to accept a message; after it, the stream counts as broken.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A subscription on its way to the stream, or what is wanted of one.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) ask: Ask,
    /// Who is told, for a subscription.
    pub(super) tell: Option<mpsc::Sender<Tell>>,
}

/// The owner of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    hub: Arc<Inner>,
    parent: Host,
    wishes: mpsc::Receiver<Wish>,
    readers: HashMap<TaskId, Reader>,
    /// For how long no task was on the stream.
    idle: Duration,
}

/// Who is told about one task.
#[derive(Debug)]
struct Reader {
    tell: mpsc::Sender<Tell>,
    /// Before the first `Begins`, whatever comes was meant for a subscription before this one.
    begun: bool,
}

/// The stream is of no use any more.
#[derive(Debug)]
struct Broken;

// === impl Stream ===

impl Stream {
    pub(super) fn new(hub: Arc<Inner>, parent: Host, wishes: mpsc::Receiver<Wish>) -> Self {
        Self {
            hub,
            parent,
            wishes,
            readers: HashMap::new(),
            idle: Duration::ZERO,
        }
    }

    /// Opens the stream and serves it to its end. Every reader that is left then is dropped, by
    /// which its receiver ends.
    pub(super) async fn run(mut self) {
        let hub = Arc::clone(&self.hub);
        hub.stop.run_until_cancelled(self.serve()).await;
        hub.streams().remove(&self.parent);
    }

    async fn serve(&mut self) {
        let opening = self.hub.availability.open(&self.parent);
        let mut subscription = match timeout(self.hub.config.open_timeout, opening).await {
            Ok(Ok(subscription)) => subscription,
            Ok(Err(error)) => {
                return tracing::debug!(parent = %self.parent, %error, "no availability stream");
            }
            Err(_) => {
                return tracing::debug!(parent = %self.parent, "no availability stream in time");
            }
        };
        let mut sweeps = interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stands = tokio::select! {
                Some(wish) = self.wishes.recv() => self.subscribe(&subscription, wish).await,
                told = subscription.tell.recv() => match told {
                    Some(tell) => self.deliver(&subscription, tell).await,
                    None => Err(Broken),
                },
                _ = sweeps.tick() => self.sweep(&subscription).await,
            };
            if stands.is_err() {
                return;
            }
        }
    }

    async fn subscribe(&mut self, stream: &Subscription, wish: Wish) -> Result<(), Broken> {
        let Some(tell) = wish.tell else {
            let is_lent = matches!(wish.ask, Ask::Lend { .. });
            return match is_lent || self.readers.contains_key(&wish.ask.task()) {
                true => ask(stream, wish.ask).await,
                false => Ok(()),
            };
        };
        self.idle = Duration::ZERO;
        let full = self.readers.len() >= self.hub.config.tasks_per_stream_max;
        match self.readers.entry(wish.ask.task()) {
            // Dropping the wish ends its receiver.
            Entry::Vacant(_) if full => return Ok(()),
            entry => entry.insert_entry(Reader { tell, begun: false }),
        };
        ask(stream, wish.ask).await
    }

    async fn deliver(&mut self, stream: &Subscription, tell: Tell) -> Result<(), Broken> {
        let (task, opens, closes) = match &tell {
            Tell::Begins { task, .. } => (*task, true, false),
            Tell::Gone { task } => (*task, false, true),
            Tell::Batch(signed) => (signed.batch.task, false, false),
            Tell::Holds { task, .. } | Tell::Ended { task, .. } => (*task, false, false),
        };
        let Some(reader) = self.readers.get_mut(&task) else {
            return Ok(());
        };
        reader.begun |= opens;
        if !reader.begun && !closes {
            return Ok(());
        }
        let taken = timeout(self.hub.config.full_wait, reader.tell.send(tell)).await;
        if closes {
            self.readers.remove(&task);
            return Ok(());
        }
        match taken {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => self.unsubscribe(stream, task).await,
        }
    }

    async fn unsubscribe(&mut self, stream: &Subscription, task: TaskId) -> Result<(), Broken> {
        self.readers.remove(&task);
        ask(stream, Ask::Unsubscribe(task)).await
    }

    /// Unsubscribes tasks that nobody reads, and retires a stream that has carried none for long.
    async fn sweep(&mut self, stream: &Subscription) -> Result<(), Broken> {
        let left = |reader: &Reader| reader.tell.is_closed();
        let unread: Vec<TaskId> = self
            .readers
            .iter()
            .filter(|(_, reader)| left(reader))
            .map(|(task, _)| *task)
            .collect();
        for task in unread {
            self.unsubscribe(stream, task).await?;
        }
        if !self.readers.is_empty() {
            self.idle = Duration::ZERO;
            return Ok(());
        }
        self.idle += SWEEP_INTERVAL;
        // The lock is the one under which wishes are handed over: none can slip in between.
        let mut streams = self.hub.streams();
        if self.idle < self.hub.config.idle_timeout || !self.wishes.is_empty() {
            return Ok(());
        }
        streams.remove(&self.parent);
        Err(Broken)
    }
}

async fn ask(stream: &Subscription, ask: Ask) -> Result<(), Broken> {
    match timeout(ASK_TIMEOUT, stream.ask.send(ask)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Broken),
    }
}
