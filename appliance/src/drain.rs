//! How a process ends: told once, it drains; told twice, it goes at once.
//!
//! Invariant: what answers are made of goes on until the answers are given or their time is up. A
//! body that is cut then still ends in order.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long what is cut may take to end in order.
const END_GRACE: Duration = Duration::from_secs(2);

/// What ends together: told to, then waited for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// All that a process runs, by when it ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    /// What takes in new work, and the connections of those who are answered: told to stop, they
    /// end with the answer under way.
    pub(crate) answers: Group,
    /// What answers are made of, here and on other hosts: the roles, and the connections by which
    /// other hosts are fed. Told to stop, they end whatever runs.
    pub(crate) services: Group,
}

/// The signals that ask the process to stop.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Everything that ran has ended.
    Whole,
    /// The deadline passed, or a second signal came; what still ran was dropped.
    Cut,
}

// === impl StopSignals ===

impl StopSignals {
    /// From here on the signals no longer end the process by themselves.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let install = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Stops accepting and waits until what runs has ended and other hosts are `fed`, for
    /// `deadline` or a second signal. What still runs is cut then.
    pub(crate) async fn drain(
        &mut self,
        groups: &Groups,
        fed: impl Future<Output = ()>,
        deadline: Duration,
    ) -> Drained {
        let Groups { answers, services } = groups;
        answers.tasks.close();
        services.tasks.close();
        answers.stop.cancel();
        let drained = tokio::select! {
            ((), ()) = async { tokio::join!(answers.tasks.wait(), fed) } => Drained::Whole,
            () = tokio::time::sleep(deadline) => Drained::Cut,
            () = self.next() => return Drained::Cut,
        };
        services.stop.cancel();
        tokio::select! {
            ((), ()) = async { tokio::join!(answers.tasks.wait(), services.tasks.wait()) } => {}
            () = tokio::time::sleep(END_GRACE) => {}
            () = self.next() => {}
        }
        drained
    }
}
