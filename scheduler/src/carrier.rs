//! Moves the messages of one session, in both directions at once.
//!
//! It reads nothing into them. It ends when the host drops a half, when the driver aborts it, or
//! when the host leaves a message unread for [`OVERRUN`].

use std::time::Duration;

use protocol::{Down, Up};
use tokio::sync::mpsc;

/// How long a host may leave its full queue unread before it is disconnected.
pub(crate) const OVERRUN: Duration = Duration::from_secs(10);

/// One session's messages on their way.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) number: u64,
    pub(crate) up: mpsc::Receiver<Up>,
    pub(crate) down: mpsc::Sender<Down>,
    pub(crate) outbox: mpsc::Receiver<Down>,
    /// Full means that this host waits until the engine has heard the others.
    pub(crate) inbox: mpsc::Sender<Heard>,
}

/// What a host said in a session.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) number: u64,
    pub(crate) up: Up,
}

/// Why the messages of a session move no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Left { number: u64 },
    Overrun { number: u64 },
}

// === impl Carrier ===

impl Carrier {
    pub(crate) async fn run(self) -> Ending {
        let Self {
            number,
            up,
            down,
            outbox,
            inbox,
        } = self;
        tokio::select! {
            () = carry_up(number, up, inbox) => Ending::Left { number },
            is_overrun = carry_down(&down, outbox) => {
                if is_overrun { Ending::Overrun { number } } else { Ending::Left { number } }
            }
            () = down.closed() => Ending::Left { number },
        }
    }
}

async fn carry_up(number: u64, mut up: mpsc::Receiver<Up>, inbox: mpsc::Sender<Heard>) {
    while let Some(up) = up.recv().await {
        if inbox.send(Heard { number, up }).await.is_err() {
            return;
        }
    }
}

/// Tells whether the host left a message unread for too long.
async fn carry_down(down: &mpsc::Sender<Down>, mut outbox: mpsc::Receiver<Down>) -> bool {
    while let Some(message) = outbox.recv().await {
        match tokio::time::timeout(OVERRUN, down.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return false,
            Err(_) => return true,
        }
    }
    false
}
