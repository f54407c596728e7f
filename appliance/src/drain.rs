//! How a process ends: told once, it drains; told twice, it goes at once.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

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

    /// Stops accepting and waits until what runs has ended, for `deadline` or a second signal.
    pub(crate) async fn drain(
        &mut self,
        closing: &CancellationToken,
        tasks: &TaskTracker,
        deadline: Duration,
    ) -> Drained {
        closing.cancel();
        tasks.close();
        tokio::select! {
            () = tasks.wait() => Drained::Whole,
            () = tokio::time::sleep(deadline) => Drained::Cut,
            () = self.next() => Drained::Cut,
        }
    }
}
