//! The scheduler's session over gRPC: the client that hosts hold, and the server's half, which
//! answers operators on the same connections.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming, service::Routes};

use super::{
    MESSAGE_LEN_MAX,
    connect::{connect_scheduler, open_within},
    convert,
    generated::{
        HostMessage, SchedulerMessage,
        scheduler_client::SchedulerClient as RawClient,
        scheduler_server::{Scheduler as RawScheduler, SchedulerServer},
    },
    operator,
    serve::{Connection, ServeError, check_version, first, refusal, serve},
    stream::{Over, outgoing, pump},
};
use crate::{
    host::{Host, HostId, Role},
    identity::{Identity, PeerIdentity},
    operator::Operator,
    scheduler::{Hello, Scheduler, Session, SessionEnd, SessionError},
};

/// A scheduler on another host. Every session has a connection of its own.
#[derive(Debug)]
pub struct SchedulerClient {
    identity: Identity,
    scheduler: Host,
    sessions: TaskTracker,
}

/// The scheduler as one connected host sees it.
#[derive(Debug)]
struct SchedulerService {
    scheduler: Arc<dyn Scheduler>,
    refusals: Arc<dyn Refusals>,
    peer: PeerIdentity,
    connection: Connection,
}

/// What answers on the port of a scheduler.
#[derive(Debug, Clone)]
pub struct SchedulerServices {
    pub scheduler: Arc<dyn Scheduler>,
    pub operator: Arc<dyn Operator>,
    pub refusals: Arc<dyn Refusals>,
}

/// Who hears of every host that may not open its session.
pub trait Refusals: Send + Sync + std::fmt::Debug {
    /// `host`, by its certificate, was told that it is refused.
    fn refused(&self, host: &HostId);
}

/// Serves `services` on one connection, whose handshake named `peer`. Returns when the peer has
/// gone or, after `drain`, when its session has ended in good order.
pub async fn serve_scheduler<IO>(
    io: IO,
    peer: PeerIdentity,
    services: SchedulerServices,
    drain: impl Future<Output = ()> + Send,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Connection::new();
    let service = SchedulerService {
        scheduler: services.scheduler,
        refusals: services.refusals,
        peer,
        connection: connection.clone(),
    };
    let server = SchedulerServer::new(service)
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    let operator = operator::server(services.operator, connection.clone());
    let routes = Routes::new(server).add_service(operator);
    serve(io, routes, connection, drain).await
}

// === impl SchedulerClient ===

impl SchedulerClient {
    /// A client that reaches `scheduler` as the host of `identity`. Nothing is dialled yet.
    pub fn new(identity: Identity, scheduler: Host) -> Self {
        Self {
            identity,
            scheduler,
            sessions: TaskTracker::new(),
        }
    }

    /// Waits until every session of this client has ended.
    pub async fn closed(&self) {
        self.sessions.close();
        self.sessions.wait().await;
    }
}

#[async_trait::async_trait]
impl Scheduler for SchedulerClient {
    async fn open(&self, hello: Hello) -> Result<Session, SessionError> {
        let (channel, peer) = connect_scheduler(&self.identity, &self.scheduler).await?;
        let mut client = RawClient::new(channel)
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX);
        let over = Over::default();
        let greeting = convert::hello_message(&hello);
        let (session, SessionEnd { hello: _, up, down }) = Session::pair(hello);
        let messages = outgoing(up, over.clone(), convert::up_message)
            .filter_map(|message| std::future::ready(message.ok()));
        let messages = stream::once(std::future::ready(greeting)).chain(messages);
        let answers = open_within(&self.scheduler, async {
            let mut answers = client.open(messages).await?.into_inner();
            check_version(convert::scheduler_version(&first(&mut answers).await?)?)?;
            Ok(answers)
        })
        .await?;
        self.sessions.spawn(async move {
            if let Err(status) = pump(answers, down, over, convert::read_down).await {
                tracing::warn!(scheduler = %peer.id, %status, "the scheduler session broke");
            }
        });
        Ok(session)
    }
}

// === impl SchedulerService ===

impl SchedulerService {
    /// A host speaks for itself alone, and is no seed by its own word.
    fn check(&self, hello: &Hello) -> Result<(), Status> {
        let Self { peer, .. } = self;
        if hello.host.id != peer.id {
            let told = &hello.host.id;
            let problem = format!("the certificate names {}, the message {told}", peer.id);
            return Err(Status::permission_denied(problem));
        }
        if hello.is_seed && !peer.roles.contains(Role::Seed) {
            let problem = format!("the certificate of {} lacks the seed role", peer.id);
            return Err(Status::permission_denied(problem));
        }
        Ok(())
    }

    async fn admit(&self, hello: Hello) -> Result<Session, Status> {
        self.check(&hello)?;
        self.scheduler.open(hello).await.map_err(refusal)
    }
}

#[async_trait::async_trait]
impl RawScheduler for SchedulerService {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<SchedulerMessage, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<HostMessage>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let over = self.connection.stream_opened();
        let mut messages = request.into_inner();
        let (version, hello) = convert::read_hello(first(&mut messages).await?)?;
        check_version(version)?;
        let hello = hello?;
        let host = self.peer.id.clone();
        // Whoever is refused is told, and may be nobody's to ask: the scheduler's log says it too.
        let Session { up, down } = self.admit(hello).await.inspect_err(|status| {
            tracing::warn!(%host, problem = status.message(), "a host was refused");
            self.refusals.refused(&host);
        })?;
        let answers = outgoing(down, over.clone(), convert::down_message);
        self.connection.spawn(async move {
            if let Err(status) = pump(messages, up, over, convert::read_up).await {
                tracing::debug!(%host, %status, "the session of a host broke");
            }
        });
        let welcome = stream::once(std::future::ready(Ok(convert::scheduler_welcome())));
        Ok(Response::new(Box::pin(welcome.chain(answers))))
    }
}
