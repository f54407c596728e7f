//! The two directions of one open stream, between its messages and the queues of the domain.
//!
//! Both ends follow one rule: when nothing more comes in, what is already queued still goes out,
//! and then the stream ends. So a session ends for both when either drops its half, and nothing
//! that was queued before is lost. A full queue makes the pump wait, which in turn lets the
//! window of the stream fill up and makes the sender wait.

use std::sync::{Arc, OnceLock};

use futures_util::{Stream, stream};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::{DRAIN_TIMEOUT, convert::Malformed};

/// That nothing more comes in, and how the other end is to be told.
#[derive(Debug, Clone, Default)]
pub(super) struct Over {
    token: CancellationToken,
    refusal: Arc<OnceLock<Status>>,
}

// === impl Over ===

impl Over {
    /// Over when `token` is cancelled, too.
    pub(super) fn under(token: &CancellationToken) -> Self {
        Self {
            token: token.child_token(),
            refusal: Arc::default(),
        }
    }

    fn end(&self) {
        self.token.cancel();
    }

    fn refuse(&self, status: Status) {
        // The first reason is the one that counts.
        let _ = self.refusal.set(status);
        self.end();
    }
}

/// The messages that go out: those of `queue`, until its sender is dropped or nothing comes in.
pub(super) fn outgoing<T, M>(
    queue: mpsc::Receiver<T>,
    over: Over,
    encode: fn(T) -> M,
) -> impl Stream<Item = Result<M, Status>> + Send
where
    T: Send + 'static,
    M: Send + 'static,
{
    stream::unfold(Some((queue, over)), move |state| async move {
        let (mut queue, over) = state?;
        let next = tokio::select! {
            next = queue.recv() => next,
            () = over.token.cancelled() => {
                queue.close();
                queue.recv().await
            }
        };
        match next {
            Some(message) => Some((Ok(encode(message)), Some((queue, over)))),
            None => over.refusal.get().map(|status| (Err(status.clone()), None)),
        }
    })
}

/// Carries what comes in to `queue`, until the stream ends, breaks or says what nobody may say, or
/// until nobody listens any more. Answers how it broke, if it did.
pub(super) async fn pump<M, T>(
    mut messages: Streaming<M>,
    queue: mpsc::Sender<T>,
    over: Over,
    decode: fn(M) -> Result<T, Malformed>,
) -> Result<(), Status> {
    let ended = tokio::select! {
        ended = forward(&mut messages, &queue, decode) => ended,
        () = queue.closed() => Ok(()),
        () = over.token.cancelled() => Ok(()),
    };
    match &ended {
        Ok(()) => over.end(),
        Err(status) => over.refuse(status.clone()),
    }
    drop(queue);
    // To stop reading now would reset the stream, and lose what still waits to go out.
    let _ = timeout(DRAIN_TIMEOUT, discard(messages)).await;
    ended
}

/// What a stream that broke is refused with: what cannot be decoded is the sender's fault.
pub(super) fn blamed(status: &Status) -> Status {
    match status.code() {
        Code::Internal | Code::Unknown => Status::invalid_argument(status.message()),
        _ => status.clone(),
    }
}

async fn forward<M, T>(
    messages: &mut Streaming<M>,
    queue: &mpsc::Sender<T>,
    decode: fn(M) -> Result<T, Malformed>,
) -> Result<(), Status> {
    while let Some(message) = messages.message().await.map_err(|status| blamed(&status))? {
        if queue.send(decode(message)?).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn discard<M>(mut messages: Streaming<M>) {
    while let Ok(Some(_)) = messages.message().await {}
}
