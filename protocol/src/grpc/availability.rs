//! The availability stream over gRPC: the client that children hold, and the parent's half.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming, service::Routes};

use super::{
    MESSAGE_LEN_MAX,
    connect::{connect, open_within},
    convert,
    generated::{
        ChildMessage, ParentMessage,
        availability_client::AvailabilityClient as RawClient,
        availability_server::{Availability as RawAvailability, AvailabilityServer},
    },
    serve::{Connection, ServeError, check_version, first, serve},
    stream::{Over, outgoing, pump},
};
use crate::{
    availability::{Availability, Subscriber, Subscribers, Subscription},
    host::{Host, HostId},
    identity::{Identity, PeerIdentity},
    scheduler::SessionError,
};

/// Opens streams to parents on other hosts, each over a connection of its own.
#[derive(Debug)]
pub struct AvailabilityClient {
    identity: Identity,
    streams: TaskTracker,
}

/// The subscribers as one connected child sees them.
#[derive(Debug)]
struct AvailabilityService {
    subscribers: Arc<dyn Subscribers>,
    child: HostId,
    connection: Connection,
}

/// Serves availability on one connection, whose handshake named `peer`. Returns when the child
/// has gone or, after `drain`, when its stream has ended in good order.
pub async fn serve_availability<IO>(
    io: IO,
    peer: PeerIdentity,
    subscribers: Arc<dyn Subscribers>,
    drain: impl Future<Output = ()> + Send,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Connection::new();
    let service = AvailabilityService {
        subscribers,
        child: peer.id,
        connection: connection.clone(),
    };
    let server = AvailabilityServer::new(service)
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    serve(io, Routes::new(server), connection, drain).await
}

// === impl AvailabilityClient ===

impl AvailabilityClient {
    /// A client that reaches parents as the host of `identity`.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            streams: TaskTracker::new(),
        }
    }

    /// Waits until every stream of this client has ended.
    pub async fn closed(&self) {
        self.streams.close();
        self.streams.wait().await;
    }
}

#[async_trait::async_trait]
impl Availability for AvailabilityClient {
    async fn open(&self, parent: &Host) -> Result<Subscription, SessionError> {
        let (channel, peer) = connect(&self.identity, parent).await?;
        let mut client = RawClient::new(channel)
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX);
        let over = Over::default();
        let (
            subscription,
            Subscriber {
                child: _,
                ask,
                tell,
            },
        ) = Subscription::pair(self.identity.id().clone());
        let messages = outgoing(ask, over.clone(), convert::ask_message)
            .filter_map(|message| std::future::ready(message.ok()));
        let messages = stream::once(std::future::ready(convert::child_hello())).chain(messages);
        let answers = open_within(parent, async {
            let mut answers = client.open(messages).await?.into_inner();
            check_version(convert::parent_version(&first(&mut answers).await?)?)?;
            Ok(answers)
        })
        .await?;
        self.streams.spawn(async move {
            if let Err(status) = pump(answers, tell, over, convert::read_tell).await {
                tracing::debug!(parent = %peer.id, %status, "the stream of a parent broke");
            }
        });
        Ok(subscription)
    }
}

// === impl AvailabilityService ===

#[async_trait::async_trait]
impl RawAvailability for AvailabilityService {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<ParentMessage, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<ChildMessage>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let over = self.connection.stream_opened();
        let mut messages = request.into_inner();
        check_version(convert::child_version(&first(&mut messages).await?)?)?;
        let (Subscription { ask, tell }, subscriber) = Subscription::pair(self.child.clone());
        let subscribers = Arc::clone(&self.subscribers);
        self.connection
            .spawn(async move { subscribers.accept(subscriber).await });
        let answers = outgoing(tell, over.clone(), convert::tell_message);
        let child = self.child.clone();
        self.connection.spawn(async move {
            if let Err(status) = pump(messages, ask, over, convert::read_ask).await {
                tracing::debug!(%child, %status, "the stream of a child broke");
            }
        });
        let welcome = stream::once(std::future::ready(Ok(convert::parent_welcome())));
        Ok(Response::new(Box::pin(welcome.chain(answers))))
    }
}
