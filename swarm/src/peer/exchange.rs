//! One request to a parent and its answer: asks for a run, checks that the answer is one, and hands
//! the pieces on one by one as each is whole.
//!
//! Only that the bytes are as many as the layout says is judged here. What waits for this host's own
//! limit on bandwidth does not count against the parent.

use std::{
    future::Future,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Body;
use hyper_util::client::legacy;
use protocol::{Host, PieceIndex};
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep},
};

use super::{
    PieceClientConfig, PieceError, PieceRun, assembly::Assembly, dial::Dialer,
    metrics::PeerMetrics, request::PieceRequest,
};
use crate::bandwidth::Pace;

/// The pool of connections to parents.
pub(super) type Connections = legacy::Client<Dialer, Empty<Bytes>>;

/// A run that is fetched, and for whom.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) run: PieceRun,
    pub(super) pace: Pace,
    pub(super) sender: mpsc::Sender<Result<(PieceIndex, Bytes), PieceError>>,
}

// === impl Exchange ===

impl Exchange {
    /// Fetches the run. Ends early without an error when nobody wants it and much is to come.
    pub(super) async fn go(
        &self,
        connections: &Connections,
        config: &PieceClientConfig,
        metrics: &PeerMetrics,
        parent: &Host,
    ) -> Result<(), PieceError> {
        let mut patience = pin!(sleep(config.run_timeout));
        let (request, announced) = request(parent, &self.run)?;
        let asking = async {
            let answered = connections.request(request).await;
            answered.map_err(|error| broken(&error))
        };
        let response = within(patience.as_mut(), asking).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(PieceError::Gone),
            StatusCode::SERVICE_UNAVAILABLE => return Err(PieceError::Busy),
            _ => return Err(PieceError::Malformed("the status is unknown")),
        }
        let body = response.into_body();
        let rest = checked_length(&body, &self.run, announced)?;
        let assembly = Assembly::new(&self.run, rest);
        self.receive(body, assembly, patience, (config, metrics))
            .await
    }

    async fn receive<B>(
        &self,
        mut body: B,
        mut assembly: Assembly<'_>,
        mut patience: Pin<&mut Sleep>,
        (config, metrics): (&PieceClientConfig, &PeerMetrics),
    ) -> Result<(), PieceError>
    where
        B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
    {
        while let Some(bytes) = within(patience.as_mut(), next_bytes(&mut body)).await? {
            assembly.rest = assembly.rest.saturating_sub(bytes.len() as u64);
            if self.sender.is_closed() && assembly.rest > config.drain_bytes_max {
                return Ok(());
            }
            let waited = self.pace.take(bytes.len() as u64).await;
            extend(patience.as_mut(), waited);
            let taking = async {
                self.take(&mut assembly, bytes, metrics).await;
                Ok(())
            };
            within(patience.as_mut(), taking).await?;
        }
        match assembly.is_whole() {
            true => Ok(()),
            false => Err(PieceError::Malformed("the body ended early")),
        }
    }

    /// Adds `bytes` to the run and hands on each piece that they make whole.
    async fn take(&self, assembly: &mut Assembly<'_>, mut bytes: Bytes, metrics: &PeerMetrics) {
        while !bytes.is_empty() {
            let lacking = assembly.lacking();
            if lacking == 0 {
                return;
            }
            let part = bytes.split_to(lacking.min(bytes.len()));
            if let Some((index, piece)) = assembly.add(part) {
                metrics.fetch_bytes.inc_by(piece.len() as u64);
                // A stream that was dropped is being drained: its pieces go nowhere.
                let _ = self.sender.send(Ok((index, piece))).await;
            }
        }
    }
}

/// What `doing` comes to, unless the patience with the parent ends before.
async fn within<T>(
    patience: Pin<&mut Sleep>,
    doing: impl Future<Output = Result<T, PieceError>>,
) -> Result<T, PieceError> {
    tokio::select! {
        biased;
        done = doing => done,
        () = patience => Err(PieceError::Slow),
    }
}

fn extend(patience: Pin<&mut Sleep>, by: Duration) {
    if !by.is_zero() {
        let until = patience.deadline() + by;
        patience.reset(until);
    }
}

/// The request for `run`, and how many bytes the layout says it has.
fn request(parent: &Host, run: &PieceRun) -> Result<(Request<Empty<Bytes>>, u64), PieceError> {
    const NOT_A_RUN: PieceError = PieceError::Malformed("what is asked is not a run of pieces");
    let asked = PieceRequest {
        task: run.task,
        attempt: run.attempt,
        pieces: run.pieces.clone(),
        asker: run.asker,
    };
    let bytes = asked.bytes(&run.layout).ok_or(NOT_A_RUN)?;
    let uri = Uri::builder()
        .scheme("https")
        .authority(parent.to_string())
        .path_and_query(asked.path_and_query())
        .build()
        .map_err(|_| PieceError::Unreachable(format!("{parent} cannot be dialled")))?;
    let request = Request::get(uri)
        .body(Empty::new())
        .map_err(|_| NOT_A_RUN)?;
    Ok((request, bytes.end - bytes.start))
}

/// How long the body will be, if that is what `run` has. Where the size of the whole body is not
/// known, the last piece may be shorter.
fn checked_length(body: &impl Body, run: &PieceRun, announced: u64) -> Result<u64, PieceError> {
    let told = body
        .size_hint()
        .exact()
        .ok_or(PieceError::Malformed("the body has no length"))?;
    let shortest = match run.layout.size() {
        Some(_) => announced,
        None => announced - run.layout.piece_len() + 1,
    };
    let holds = (shortest..=announced).contains(&told);
    holds
        .then_some(told)
        .ok_or(PieceError::Malformed("the body has the wrong length"))
}

async fn next_bytes<B>(body: &mut B) -> Result<Option<Bytes>, PieceError>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

pub(super) fn broken(error: &dyn std::error::Error) -> PieceError {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    PieceError::Unreachable(told)
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, num::NonZeroU64};

    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use prometheus::Registry;
    use protocol::{AttemptId, Digest, Layout, TaskId};

    use super::*;
    use crate::{
        bandwidth::{BandwidthMetrics, Bucket, Rate, Throttle},
        peer::Asker,
    };

    const PIECE: u64 = 256 * 1024;

    /// Receives two pieces, each `delay` after the one before was taken, within a second; the own
    /// limit lets one piece through in ten.
    async fn receive(delay: Duration) -> Result<(), PieceError> {
        let registry = Registry::new();
        let rate = NonZeroU64::new(PIECE / 10).map_or(Rate::Unlimited, Rate::BytesPerSecond);
        let limits = BandwidthMetrics::register(&registry).unwrap();
        let (sender, _arriving) = mpsc::channel(2);
        let exchange = Exchange {
            run: PieceRun {
                task: TaskId(Digest::sha256_of(b"")),
                attempt: AttemptId(1),
                layout: Layout::for_size(Some(2 * PIECE)),
                pieces: 0..2,
                asker: Asker::Child,
            },
            pace: Pace::new(Throttle::new(rate, Bucket::Fetch, &limits)),
            sender,
        };
        let pieces = stream::unfold(0, |count| async move {
            sleep(delay).await;
            let piece = Bytes::from(vec![0; PIECE as usize]);
            (count < 2).then(|| (Ok::<_, Infallible>(Frame::data(piece)), count + 1))
        });
        let body = StreamBody::new(Box::pin(pieces));
        let assembly = Assembly::new(&exchange.run, 2 * PIECE);
        let patience = pin!(sleep(Duration::from_secs(1)));
        let bounds = PieceClientConfig::default();
        let metrics = PeerMetrics::new(&registry).unwrap();
        exchange
            .receive(body, assembly, patience, (&bounds, &metrics))
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_own_limit_is_not_the_fault_of_the_parent() {
        assert_eq!(receive(Duration::from_millis(300)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_parent_that_takes_too_long_altogether_is_slow() {
        let received = receive(Duration::from_millis(600)).await;
        assert_eq!(received, Err(PieceError::Slow));
    }
}
