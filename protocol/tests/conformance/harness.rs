//! Both adapters of the services, on the loopback, and what they are made of.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use protocol::{
    Digest, Host, HostId, Identity, Role, Scheduler, Session, TaskId,
    availability::{Availability, Subscriber, Subscribers, Subscription},
    grpc,
    identity::Authority,
    scheduler::{Hello, SessionEnd, SessionError},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::operator::ScriptedOperator;

/// Longer than anything here takes; what is not done by then hangs.
const HANG: Duration = Duration::from_secs(20);

/// A scheduler whose sessions are played by the test.
pub(crate) struct SchedulerUnderTest {
    pub(crate) scheduler: Arc<dyn Scheduler>,
    pub(crate) sessions: mpsc::Receiver<SessionEnd>,
    pub(crate) server: Option<Server>,
}

/// A parent whose streams are played by the test.
pub(crate) struct ParentUnderTest {
    pub(crate) availability: Arc<dyn Availability>,
    pub(crate) parent: Host,
    pub(crate) subscribers: mpsc::Receiver<Subscriber>,
    pub(crate) server: Option<Server>,
}

/// A listener that serves until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drain: CancellationToken,
    _accepting: JoinSet<()>,
}

#[derive(Debug)]
pub(crate) struct ScriptedScheduler(pub(crate) mpsc::Sender<SessionEnd>);

#[derive(Debug, Clone)]
struct ScriptedSubscribers(mpsc::Sender<Subscriber>);

#[async_trait::async_trait]
impl Scheduler for ScriptedScheduler {
    /// Refuses a host without a slot, so that a refusal can be told from a broken connection.
    async fn open(&self, hello: Hello) -> Result<Session, SessionError> {
        if hello.upload_slots == 0 {
            return Err(SessionError::Refused("no slots".to_owned()));
        }
        let (session, end) = Session::pair(hello);
        self.0
            .send(end)
            .await
            .map_err(|_| SessionError::Unreachable("gone".to_owned()))?;
        Ok(session)
    }
}

#[async_trait::async_trait]
impl Subscribers for ScriptedSubscribers {
    async fn accept(&self, subscriber: Subscriber) {
        let _ = self.0.send(subscriber).await;
    }
}

/// The local adapter: no connection between the two.
#[async_trait::async_trait]
impl Availability for ScriptedSubscribers {
    async fn open(&self, _parent: &Host) -> Result<Subscription, SessionError> {
        let (subscription, subscriber) = Subscription::pair(id("node-1"));
        self.accept(subscriber).await;
        Ok(subscription)
    }
}

/// Runs `check` against each adapter of the scheduler.
pub(crate) async fn each_scheduler(check: impl AsyncFn(SchedulerUnderTest)) {
    let (sender, sessions) = mpsc::channel(1);
    let scheduler = Arc::new(ScriptedScheduler(sender));
    within(check(SchedulerUnderTest {
        scheduler,
        sessions,
        server: None,
    }))
    .await;
    within(check(remote_scheduler(&authority()).await)).await;
}

/// Runs `check` against each adapter of availability.
pub(crate) async fn each_parent(check: impl AsyncFn(ParentUnderTest)) {
    let (sender, subscribers) = mpsc::channel(1);
    let parent = Host {
        id: id("seed-1"),
        address: "127.0.0.1:1".parse().unwrap(),
    };
    let availability = Arc::new(ScriptedSubscribers(sender));
    within(check(ParentUnderTest {
        availability,
        parent,
        subscribers,
        server: None,
    }))
    .await;
    within(check(remote_parent(&authority()).await)).await;
}

pub(crate) async fn remote_scheduler(authority: &Authority) -> SchedulerUnderTest {
    let (sender, sessions) = mpsc::channel(1);
    let server = serve_scheduler(
        identity(authority, "scheduler-1", &[Role::Scheduler]),
        sender,
    )
    .await;
    let client = identity(authority, "node-1", &[Role::Proxy]);
    let host = Host {
        id: id("scheduler-1"),
        address: server.address,
    };
    let scheduler = Arc::new(grpc::SchedulerClient::new(client, host));
    SchedulerUnderTest {
        scheduler,
        sessions,
        server: Some(server),
    }
}

pub(crate) async fn serve_scheduler(
    identity: Identity,
    sessions: mpsc::Sender<SessionEnd>,
) -> Server {
    serve_services(identity, services(sessions)).await
}

pub(crate) async fn serve_services(
    identity: Identity,
    services: grpc::SchedulerServices,
) -> Server {
    Server::start(identity, move |io, peer, drain| {
        let services = services.clone();
        async move {
            let _ = grpc::serve_scheduler(io, peer, services, drain.cancelled_owned()).await;
        }
    })
    .await
}

/// A scheduler whose sessions the test plays, and that takes no order.
pub(crate) fn services(sessions: mpsc::Sender<SessionEnd>) -> grpc::SchedulerServices {
    let (orders, _) = mpsc::channel(1);
    grpc::SchedulerServices {
        scheduler: Arc::new(ScriptedScheduler(sessions)),
        operator: Arc::new(ScriptedOperator(orders)),
        refusals: Arc::new(Unheard),
    }
}

/// Nobody hears of refused hosts.
#[derive(Debug)]
pub(crate) struct Unheard;

impl grpc::Refusals for Unheard {
    fn refused(&self, _: &HostId) {}
}

pub(crate) async fn remote_parent(authority: &Authority) -> ParentUnderTest {
    let (sender, subscribers) = mpsc::channel(1);
    let seed = identity(authority, "seed-1", &[Role::Seed]);
    let accepting: Arc<dyn Subscribers> = Arc::new(ScriptedSubscribers(sender));
    let server = Server::start(seed, move |io, peer, drain| {
        let accepting = Arc::clone(&accepting);
        async move {
            let _ = grpc::serve_availability(io, peer, accepting, drain.cancelled_owned()).await;
        }
    })
    .await;
    let parent = Host {
        id: id("seed-1"),
        address: server.address,
    };
    let client = identity(authority, "node-1", &[Role::Proxy]);
    let availability = Arc::new(grpc::AvailabilityClient::new(client));
    ParentUnderTest {
        availability,
        parent,
        subscribers,
        server: Some(server),
    }
}

// === impl Server ===

type Io = tokio_rustls::server::TlsStream<TcpStream>;

impl Server {
    /// The appliance's part: accepts, shakes hands, reads who the peer is, and serves.
    async fn start<F>(
        identity: Identity,
        serve: impl Fn(Io, protocol::PeerIdentity, CancellationToken) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = CancellationToken::new();
        let acceptor = TlsAcceptor::from(identity.server_config(&[grpc::ALPN]).unwrap());
        let mut accepting = JoinSet::new();
        let drained = drain.clone();
        let serve = Arc::new(serve);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, identity) = (acceptor.clone(), identity.clone());
                let (drained, serve) = (drained.clone(), Arc::clone(&serve));
                connections.spawn(async move {
                    let Ok(io) = acceptor.accept(stream).await else {
                        return;
                    };
                    let chain = io.get_ref().1.peer_certificates().unwrap_or_default();
                    let Ok(peer) = identity.peer(chain) else {
                        return;
                    };
                    serve(io, peer, drained).await;
                });
            }
        });
        Self {
            address,
            drain,
            _accepting: accepting,
        }
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.expect("it hangs")
}

/// Sends to `queue` until a send has to wait, and answers how many messages went in.
pub(crate) async fn fill<T>(queue: &mpsc::Sender<T>, message: impl Fn(u32) -> T) -> u32 {
    let waits = Duration::from_millis(300);
    for sent in 0..100_000 {
        match tokio::time::timeout(waits, queue.reserve()).await {
            Ok(room) => room.expect("somebody listens").send(message(sent)),
            Err(_) => return sent,
        }
    }
    panic!("no message had to wait");
}

pub(crate) fn authority() -> Authority {
    Authority::new("main").unwrap()
}

pub(crate) fn identity(authority: &Authority, name: &str, roles: &[Role]) -> Identity {
    let issued = authority
        .issue(&id(name), roles.iter().copied().collect())
        .unwrap();
    Identity::from_pem(authority.ca_pem(), &issued.certificate, &issued.key).unwrap()
}

pub(crate) fn id(name: &str) -> HostId {
    name.parse().unwrap()
}

pub(crate) fn task(number: u32) -> TaskId {
    TaskId(Digest::sha256_of(&number.to_be_bytes()))
}

pub(crate) fn hello() -> Hello {
    Hello {
        host: "node-1@10.0.0.5:65002".parse().unwrap(),
        is_seed: false,
        upload_slots: 8,
        idc: Some("north".to_owned()),
        location: None,
    }
}
