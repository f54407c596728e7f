//! What the scheduler counts. The names and labels are part of its interface.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use protocol::{
    Down,
    operator::{PreheatProgress, PreheatState},
};

/// The scheduler's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    hosts: IntGauge,
    tasks: IntGauge,
    messages: IntCounter,
    answers: IntCounterVec,
    banned: IntCounter,
    closed: IntCounterVec,
    preheats: IntGauge,
    preheated: IntCounterVec,
}

/// What a host was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Parents,
    Wait,
    BackToSource,
    Warm,
    OnYourOwn,
    Drop,
}

/// Why a session was closed from this side, or not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The host left its messages unread.
    Overrun,
    /// The host opened another session.
    Replaced,
    /// There was no room.
    Full,
    /// The host said nothing for long.
    Silent,
}

/// How the preheat of a task can end.
const DONE: &str = "done";
const FAILED: &str = "failed";

// === impl Metrics ===

impl Metrics {
    /// # Errors
    /// Where `registry` has these metrics already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let answers = Opts::new(
            "darter_scheduler_answers_total",
            "What hosts were told, by kind of answer.",
        );
        let closed = Opts::new(
            "darter_scheduler_sessions_closed_total",
            "Sessions closed or refused by the scheduler, by reason.",
        );
        let preheated = Opts::new(
            "darter_scheduler_preheated_total",
            "Tasks of preheats that are over, by outcome.",
        );
        let metrics = Self {
            hosts: IntGauge::new("darter_scheduler_hosts", "Hosts with an open session.")?,
            tasks: IntGauge::new("darter_scheduler_tasks", "Tasks known.")?,
            messages: IntCounter::new(
                "darter_scheduler_messages_total",
                "Messages received from hosts.",
            )?,
            answers: IntCounterVec::new(answers, &["answer"])?,
            banned: IntCounter::new(
                "darter_scheduler_banned_total",
                "Hosts banned for what they gave others.",
            )?,
            closed: IntCounterVec::new(closed, &["reason"])?,
            preheats: IntGauge::new("darter_scheduler_preheats", "Preheats under way.")?,
            preheated: IntCounterVec::new(preheated, &["outcome"])?,
        };
        for outcome in [DONE, FAILED] {
            metrics.preheated.with_label_values(&[outcome]);
        }
        for answer in Answer::ALL {
            metrics.answers.with_label_values(&[answer.as_str()]);
        }
        for reason in Closed::ALL {
            metrics.closed.with_label_values(&[reason.as_str()]);
        }
        registry.register(Box::new(metrics.hosts.clone()))?;
        registry.register(Box::new(metrics.tasks.clone()))?;
        registry.register(Box::new(metrics.messages.clone()))?;
        registry.register(Box::new(metrics.answers.clone()))?;
        registry.register(Box::new(metrics.banned.clone()))?;
        registry.register(Box::new(metrics.closed.clone()))?;
        registry.register(Box::new(metrics.preheats.clone()))?;
        registry.register(Box::new(metrics.preheated.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn counted(&self, hosts: usize, tasks: usize) {
        self.hosts.set(i64::try_from(hosts).unwrap_or(i64::MAX));
        self.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
    }

    pub(crate) fn message(&self) {
        self.messages.inc();
    }

    pub(crate) fn answered(&self, answer: Answer) {
        self.answers.with_label_values(&[answer.as_str()]).inc();
    }

    pub(crate) fn banned(&self) {
        self.banned.inc();
    }

    pub(crate) fn preheating(&self, count: usize) {
        self.preheats.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A preheat whose tasks are all over.
    pub(crate) fn preheated(&self, progress: &PreheatProgress) {
        for task in &progress.tasks {
            let outcome = match task.state {
                PreheatState::Done => DONE,
                PreheatState::Running | PreheatState::Failed(_) => FAILED,
            };
            self.preheated.with_label_values(&[outcome]).inc();
        }
    }

    pub(crate) fn closed(&self, reason: Closed) {
        self.closed.with_label_values(&[reason.as_str()]).inc();
    }
}

// === impl Answer ===

impl Answer {
    const ALL: [Self; 6] = [
        Self::Parents,
        Self::Wait,
        Self::BackToSource,
        Self::Warm,
        Self::OnYourOwn,
        Self::Drop,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Parents => "parents",
            Self::Wait => "wait",
            Self::BackToSource => "back_to_source",
            Self::Warm => "warm",
            Self::OnYourOwn => "on_your_own",
            Self::Drop => "drop",
        }
    }
}

impl From<&Down> for Answer {
    fn from(down: &Down) -> Self {
        match down {
            Down::Parents { .. } => Self::Parents,
            Down::Wait { .. } => Self::Wait,
            Down::BackToSource { .. } => Self::BackToSource,
            Down::Warm { .. } => Self::Warm,
            Down::OnYourOwn { .. } => Self::OnYourOwn,
            Down::Drop { .. } => Self::Drop,
        }
    }
}

// === impl Closed ===

impl Closed {
    const ALL: [Self; 4] = [Self::Overrun, Self::Replaced, Self::Full, Self::Silent];

    fn as_str(self) -> &'static str {
        match self {
            Self::Overrun => "overrun",
            Self::Replaced => "replaced",
            Self::Full => "full",
            Self::Silent => "silent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_are_the_metrics() {
        let registry = Registry::new();
        let _metrics = Metrics::new(&registry).unwrap();
        let names: Vec<_> = registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "darter_scheduler_answers_total",
                "darter_scheduler_banned_total",
                "darter_scheduler_hosts",
                "darter_scheduler_messages_total",
                "darter_scheduler_preheated_total",
                "darter_scheduler_preheats",
                "darter_scheduler_sessions_closed_total",
                "darter_scheduler_tasks",
            ]
        );
    }
}
