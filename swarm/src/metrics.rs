//! What the engine counts. The names are part of the interface: docs and a test list them.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use crate::task::{Stage, TaskFailure};

/// The metrics of the engine.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) tasks: IntGauge,
    pub(crate) sessions: IntGauge,
    ends: IntCounterVec,
    public: IntCounterVec,
}

/// What a seed said that was asked what anybody may read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PublicAnswer {
    Told,
    /// Nothing that it tells anybody.
    Nothing,
    Failed,
}

// === impl PublicAnswer ===

impl PublicAnswer {
    const ALL: [Self; 3] = [Self::Told, Self::Nothing, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Nothing => "nothing",
            Self::Failed => "failed",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let tasks = IntGauge::new("darter_swarm_tasks", "Downloads under way on this host")?;
        let sessions = IntGauge::new("darter_swarm_sessions", "Open sessions with schedulers")?;
        let ends = Opts::new(
            "darter_swarm_task_ends_total",
            "Downloads that are over, by outcome",
        );
        let ends = IntCounterVec::new(ends, &["outcome"])?;
        let public = Opts::new(
            "darter_swarm_public_questions_total",
            "Questions to a seed for what anybody may read, by answer",
        );
        let public = IntCounterVec::new(public, &["answer"])?;
        registry.register(Box::new(public.clone()))?;
        for answer in PublicAnswer::ALL {
            public.with_label_values(&[answer.as_str()]);
        }
        registry.register(Box::new(tasks.clone()))?;
        registry.register(Box::new(sessions.clone()))?;
        registry.register(Box::new(ends.clone()))?;
        for outcome in [
            "complete",
            "source",
            "corrupt",
            "no_room",
            "removed",
            "cancelled",
        ] {
            ends.with_label_values(&[outcome]);
        }
        Ok(Self {
            tasks,
            sessions,
            ends,
            public,
        })
    }

    pub(crate) fn public(&self, answer: PublicAnswer) {
        self.public.with_label_values(&[answer.as_str()]).inc();
    }

    /// Counts the end of a download; `None` is the end of the node.
    pub(crate) fn ended(&self, stage: Option<&Stage>) {
        let outcome = match stage {
            Some(Stage::Complete) => "complete",
            Some(Stage::Failed(TaskFailure::Source(_))) => "source",
            Some(Stage::Failed(TaskFailure::Corrupt)) => "corrupt",
            Some(Stage::Failed(TaskFailure::NoRoom)) => "no_room",
            Some(Stage::Failed(TaskFailure::Removed)) => "removed",
            Some(Stage::Failed(TaskFailure::Cancelled) | Stage::Running) | None => "cancelled",
        };
        self.ends.with_label_values(&[outcome]).inc();
    }
}
