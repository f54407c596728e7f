//! What operators ask of a scheduler over gRPC, on the scheduler's port.
//!
//! Every call has a connection of its own, which ends with it. A client that drops the stream of a
//! preheat ends that preheat.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use super::{
    MESSAGE_LEN_MAX,
    connect::{connect_scheduler, open_within},
    convert,
    generated::{
        ExplainAnswer, ExplainQuestion, PreheatOrder as OrderMessage,
        PreheatProgress as ProgressMessage, SnapshotAnswer, SnapshotQuestion,
        operator_client::OperatorClient as RawClient,
        operator_server::{Operator as RawOperator, OperatorServer},
    },
    serve::{Connection, check_version, refusal},
    stream::{blamed, outgoing},
};
use crate::{
    host::Host,
    identity::Identity,
    operator::{
        Explanation, Operator, PROGRESS_QUEUE, PreheatOrder, PreheatProgress, Question, Snapshot,
    },
    scheduler::SessionError,
};

/// A scheduler on another host, as an operator reaches it.
#[derive(Debug)]
pub struct OperatorClient {
    identity: Identity,
    scheduler: Host,
    preheats: TaskTracker,
}

/// The scheduler as the operators of one connection see it.
#[derive(Debug)]
struct OperatorService {
    operator: Arc<dyn Operator>,
    connection: Connection,
}

pub(super) fn server(
    operator: Arc<dyn Operator>,
    connection: Connection,
) -> OperatorServer<impl RawOperator> {
    OperatorServer::new(OperatorService {
        operator,
        connection,
    })
    .max_decoding_message_size(MESSAGE_LEN_MAX)
    .max_encoding_message_size(MESSAGE_LEN_MAX)
}

// === impl OperatorClient ===

impl OperatorClient {
    /// A client that asks `scheduler` as the host of `identity`. Nothing is dialled yet.
    pub fn new(identity: Identity, scheduler: Host) -> Self {
        Self {
            identity,
            scheduler,
            preheats: TaskTracker::new(),
        }
    }

    /// Waits until every preheat of this client has ended.
    pub async fn closed(&self) {
        self.preheats.close();
        self.preheats.wait().await;
    }

    async fn connect(&self) -> Result<RawClient<Channel>, SessionError> {
        let (channel, _) = connect_scheduler(&self.identity, &self.scheduler).await?;
        Ok(RawClient::new(channel)
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX))
    }
}

#[async_trait::async_trait]
impl Operator for OperatorClient {
    async fn preheat(
        &self,
        order: PreheatOrder,
    ) -> Result<mpsc::Receiver<PreheatProgress>, SessionError> {
        let mut client = self.connect().await?;
        let message = convert::order_message(&order);
        let messages = open_within(&self.scheduler, async {
            Ok(client.preheat(message).await?.into_inner())
        })
        .await?;
        let (progress, followed) = mpsc::channel(PROGRESS_QUEUE);
        self.preheats.spawn(async move {
            if let Err(status) = follow(messages, progress).await {
                tracing::warn!(%status, "a preheat broke off");
            }
        });
        Ok(followed)
    }

    async fn snapshot(&self, listed_max: usize) -> Result<Snapshot, SessionError> {
        let mut client = self.connect().await?;
        open_within(&self.scheduler, async {
            let question = convert::snapshot_question(listed_max);
            let answer = client.snapshot(question).await?.into_inner();
            check_version(answer.version)?;
            Ok(convert::read_snapshot(answer)?)
        })
        .await
    }

    async fn explain(&self, question: Question) -> Result<Vec<Explanation>, SessionError> {
        let mut client = self.connect().await?;
        open_within(&self.scheduler, async {
            let question = convert::question_message(&question);
            let answer = client.explain(question).await?.into_inner();
            check_version(answer.version)?;
            Ok(convert::read_explanations(answer)?)
        })
        .await
    }
}

/// Hands on what the scheduler tells, until that ends or nobody listens; the connection goes with
/// the stream. A slow listener makes the scheduler skip what is outdated.
async fn follow(
    mut messages: Streaming<ProgressMessage>,
    progress: mpsc::Sender<PreheatProgress>,
) -> Result<(), Status> {
    loop {
        let message = tokio::select! {
            message = messages.message() => message.map_err(|status| blamed(&status))?,
            () = progress.closed() => return Ok(()),
        };
        let Some(message) = message else {
            return Ok(());
        };
        check_version(message.version)?;
        if progress
            .send(convert::read_progress(message)?)
            .await
            .is_err()
        {
            return Ok(());
        }
    }
}

// === impl OperatorService ===

#[async_trait::async_trait]
impl RawOperator for OperatorService {
    type PreheatStream = Pin<Box<dyn Stream<Item = Result<ProgressMessage, Status>> + Send>>;

    async fn preheat(
        &self,
        request: Request<OrderMessage>,
    ) -> Result<Response<Self::PreheatStream>, Status> {
        let over = self.connection.stream_opened();
        let order = request.into_inner();
        check_version(order.version)?;
        let order = convert::read_order(order)?;
        let progress = self.operator.preheat(order).await.map_err(refusal)?;
        let messages = outgoing(progress, over, convert::progress_message);
        Ok(Response::new(Box::pin(messages)))
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotQuestion>,
    ) -> Result<Response<SnapshotAnswer>, Status> {
        self.connection.stream_opened();
        let question = request.into_inner();
        check_version(question.version)?;
        let listed_max = convert::read_listed(question.listed_max);
        let snapshot = self.operator.snapshot(listed_max).await;
        let snapshot = snapshot.map_err(refusal)?;
        Ok(Response::new(convert::snapshot_message(snapshot)))
    }

    async fn explain(
        &self,
        request: Request<ExplainQuestion>,
    ) -> Result<Response<ExplainAnswer>, Status> {
        self.connection.stream_opened();
        let question = request.into_inner();
        check_version(question.version)?;
        let question = convert::read_question(&question)?;
        let explained = self.operator.explain(question).await.map_err(refusal)?;
        Ok(Response::new(convert::explanations_message(explained)))
    }
}
