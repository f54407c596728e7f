//! A host that warms the swarm: takes a scheduler's orders and has each task, a bounded number at
//! a time. Every host does so for a preheat; one with the seed role is also the first to be told
//! when anybody wants what nobody has.
//!
//! Keeps nothing itself: the engine stores, shares and evicts. What was ordered counts as used for
//! the time of its retention, so that it is there when those come for whom it was ordered. An order
//! for a task that is under way or held costs a slot for as long, and nothing else: the engine has
//! one download of a task at most, and tells the scheduler that ordered it how it goes, also one that
//! ordered it before and has forgotten.

pub mod config;

use std::{sync::Arc, time::SystemTime};

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use protocol::TaskId;
use swarm::{OpenError, Swarm, WarmOrder};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use config::{Config, RawConfig};

/// Tasks warmed at once; further orders wait in the queue of the engine, which is bounded.
pub const WARMING_MAX: usize = 256;

/// What takes the orders of one host's schedulers.
#[derive(Debug)]
pub struct Seed {
    config: Config,
    swarm: Swarm,
    orders: mpsc::Receiver<WarmOrder>,
    metrics: Metrics,
    slots: Arc<Semaphore>,
    warming: JoinSet<(TaskId, Result<(), OpenError>)>,
}

/// What the seed counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    warming: IntGauge,
    warmed: IntCounterVec,
}

// === impl Metrics ===

impl Metrics {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let warming = IntGauge::new("darter_seed_warming", "Tasks being warmed now")?;
        let warmed = Opts::new(
            "darter_seed_warmed_total",
            "Orders to warm that are over, by outcome",
        );
        let warmed = IntCounterVec::new(warmed, &["outcome"])?;
        for outcome in ["held", "failed"] {
            warmed.with_label_values(&[outcome]);
        }
        registry.register(Box::new(warming.clone()))?;
        registry.register(Box::new(warmed.clone()))?;
        Ok(Self { warming, warmed })
    }
}

// === impl Seed ===

impl Seed {
    pub fn new(
        config: Config,
        swarm: Swarm,
        orders: mpsc::Receiver<WarmOrder>,
        metrics: Metrics,
    ) -> Self {
        Self {
            config,
            swarm,
            orders,
            metrics,
            slots: Arc::new(Semaphore::new(WARMING_MAX)),
            warming: JoinSet::new(),
        }
    }

    /// Warms what it is told to until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = self.warming.join_next(), if !self.warming.is_empty() => self.ended(ended),
                order = self.orders.recv(), if self.slots.available_permits() > 0 => match order {
                    Some(order) => self.begin(order),
                    None => break,
                },
            }
        }
        self.warming.shutdown().await;
    }

    fn begin(&mut self, order: WarmOrder) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return;
        };
        let (swarm, retention) = (self.swarm.clone(), self.config.retention);
        self.warming.spawn(async move {
            let task = order.task;
            let warmed = swarm.warm(order).await;
            if warmed.is_ok() {
                swarm.retain(task, wall_clock() + retention).await;
            }
            drop(slot);
            (task, warmed)
        });
        self.metrics.warming.set(self.warming.len() as i64);
    }

    fn ended(&mut self, ended: Result<(TaskId, Result<(), OpenError>), tokio::task::JoinError>) {
        self.metrics.warming.set(self.warming.len() as i64);
        let Ok((task, warmed)) = ended else { return };
        let outcome = match warmed {
            Ok(()) => "held",
            Err(error) => {
                tracing::info!(%task, %error, "could not be warmed");
                "failed"
            }
        };
        self.metrics.warmed.with_label_values(&[outcome]).inc();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is kept until a time outlives the process"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
