//! Two hosts that exchange pieces: a parent with a store, a shelf and real mutual TLS on a loopback
//! port, and a child.

mod exchange;
mod faults;
mod load;
mod requests;
mod streams;
pub(crate) mod throttled;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use prometheus::Registry;
use protocol::{
    AttemptId, Content, ContentKind, Digest, Host, Identity, Layout, Origin, PieceBatch,
    PieceIndex, PieceSet, Right, Role, SignedBatch, TaskId, Visibility, identity::Authority,
};
use swarm::{
    peer::{
        Asker, PeerMetrics, PeerServer, PeerServerConfig, PieceClient, PieceClientConfig, PieceRun,
    },
    reader::InterestGuard,
    source::{Question, Told},
    store::{Config, Store},
    task::{Progress, Shared, Shelf, Stage},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) const ATTEMPT: AttemptId = AttemptId(7);

/// No test takes longer, whatever hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A shelf that the test fills.
#[derive(Debug, Default)]
pub(crate) struct TestShelf {
    tasks: Mutex<HashMap<TaskId, watch::Sender<Progress>>>,
}

/// A body in a store of its own, as the driver of its task would show it.
pub(crate) struct Stored {
    pub(crate) task: TaskId,
    pub(crate) body: Vec<u8>,
    pub(crate) layout: Layout,
    pub(crate) progress: Progress,
    pub(crate) store: Store,
    _directory: tempfile::TempDir,
}

/// A host that serves pieces.
pub(crate) struct Parent {
    pub(crate) host: Host,
    pub(crate) server: PeerServer,
    pub(crate) shelf: Arc<TestShelf>,
    accepted: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

#[async_trait::async_trait]
impl Shelf for TestShelf {
    async fn bring(&self, _: TaskId, _: Origin) -> Option<Shared> {
        None
    }

    async fn public(&self, _: &Question, _: Duration) -> Option<Told> {
        None
    }

    async fn lend(&self, _: TaskId, _: Origin, _: Right) {}

    async fn want(&self, _: TaskId, _: Vec<protocol::Want>) -> Vec<InterestGuard> {
        Vec::new()
    }

    async fn follow(&self, task: TaskId) -> Option<Shared> {
        let tasks = self
            .tasks
            .lock()
            .expect("no test fails while it holds this");
        tasks.get(&task).map(|progress| Shared {
            progress: progress.subscribe(),
        })
    }
}

impl TestShelf {
    pub(crate) fn put(&self, task: TaskId, progress: Progress) {
        self.tasks
            .lock()
            .expect("no test fails while it holds this")
            .insert(task, watch::channel(progress).0);
    }

    pub(crate) fn change(&self, task: TaskId, change: impl FnOnce(&mut Progress)) {
        self.tasks
            .lock()
            .expect("no test fails while it holds this")[&task]
            .send_modify(change);
    }

    pub(crate) fn remove(&self, task: TaskId) {
        self.tasks
            .lock()
            .expect("no test fails while it holds this")
            .remove(&task);
    }
}

impl Stored {
    /// `size` bytes that differ from piece to piece, all of them held and proven.
    pub(crate) fn new(size: usize) -> Self {
        let body: Vec<u8> = (0..size).map(|at| (at / 251 + at % 253) as u8).collect();
        let task = TaskId(Digest::sha256_of(&body));
        let layout = Layout::for_size(Some(size as u64));
        let visibility = Visibility::Public;
        let content = Content {
            attempt: ATTEMPT,
            layout,
            media_type: None,
            visibility,
        };
        let directory = tempfile::tempdir().expect("a directory for tests");
        let config = Config {
            dir: directory.path().join("store"),
            storage_quota: 1 << 30,
            manifest_quota: 1 << 20,
            min_free: 0,
        };
        let store =
            Store::open(config, SystemTime::UNIX_EPOCH).expect("a store in an empty directory");
        let file = store
            .create(task, ContentKind::Blob, &content)
            .expect("room for the task");
        let count = layout.piece_count().expect("a size that is known");
        for piece in (0..count).map(PieceIndex) {
            let bytes = layout.bytes_of(piece);
            file.land(piece, &body[bytes.start as usize..bytes.end as usize])
                .expect("room for the piece");
        }
        let progress = Progress {
            content: Some(content),
            file: Some(file),
            held: PieceSet::of_range(0..count),
            batches: vec![batch(task, ATTEMPT, 0..count)],
            stage: Stage::Complete,
            ..Progress::default()
        };
        Self {
            task,
            body,
            layout,
            progress,
            store,
            _directory: directory,
        }
    }

    pub(crate) fn run(&self, pieces: std::ops::Range<u32>) -> PieceRun {
        PieceRun {
            task: self.task,
            attempt: ATTEMPT,
            layout: self.layout,
            pieces,
            asker: Asker::Child,
        }
    }
}

impl Parent {
    pub(crate) async fn start(authority: &Authority, config: PeerServerConfig) -> Self {
        let identity = identity(authority, "parent");
        let tls = identity
            .server_config(&[b"http/1.1"])
            .expect("TLS for a listener");
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the other side is there");
        let host = Host {
            id: identity.id().clone(),
            address: listener
                .local_addr()
                .expect("a bound listener has an address"),
        };
        let (shelf, accepted) = (
            Arc::new(TestShelf::default()),
            Arc::new(AtomicUsize::new(0)),
        );
        let server = PeerServer::new(Arc::<TestShelf>::clone(&shelf), config, metrics().0);
        let mut serving = JoinSet::new();
        let (counted, serves) = (Arc::clone(&accepted), server.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("the other side is there");
                let (acceptor, identity) = (acceptor.clone(), identity.clone());
                let (counted, serves) = (Arc::clone(&counted), serves.clone());
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(socket).await else {
                        return;
                    };
                    counted.fetch_add(1, Ordering::Relaxed);
                    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
                    let peer = identity.peer(chain).expect("a certificate of this cluster");
                    serves
                        .serve_pieces(tls, peer, CancellationToken::new())
                        .await;
                });
            }
        });
        Self {
            host,
            server,
            shelf,
            accepted,
            _serving: serving,
        }
    }

    /// Connections whose handshake held.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

pub(crate) fn authority() -> Authority {
    Authority::new("test").expect("a cluster name")
}

pub(crate) fn identity(authority: &Authority, id: &str) -> Identity {
    let roles = [Role::Seed].into_iter().collect();
    let issued = authority
        .issue(&id.parse().expect("a host id"), roles)
        .expect("a certificate is issued");
    Identity::from_pem(authority.ca_pem(), &issued.certificate, &issued.key)
        .expect("what was issued just now")
}

pub(crate) fn metrics() -> (PeerMetrics, Registry) {
    let registry = Registry::new();
    (
        PeerMetrics::new(&registry).expect("a fresh registry"),
        registry,
    )
}

pub(crate) fn client(authority: &Authority) -> (PieceClient, Registry) {
    let (metrics, registry) = metrics();
    let config = PieceClientConfig::default();
    let client =
        PieceClient::new(&identity(authority, "child"), config, metrics).expect("TLS for a client");
    (client, registry)
}

pub(crate) fn batch(
    task: TaskId,
    attempt: AttemptId,
    pieces: std::ops::Range<u32>,
) -> Arc<SignedBatch> {
    let batch = PieceBatch {
        task,
        attempt,
        layout: Layout::for_size(Some(1)),
        visibility: Visibility::Public,
        digests: pieces.map(|index| (PieceIndex(index), [0; 32])).collect(),
    };
    Arc::new(SignedBatch {
        batch,
        certificate: Vec::new(),
        signature: Vec::new(),
    })
}

/// Every byte of `run`, or the error it ended with.
pub(crate) async fn fetch(
    client: &PieceClient,
    parent: &Host,
    run: PieceRun,
) -> Result<Vec<u8>, swarm::peer::PieceError> {
    let mut due = run.pieces.clone();
    let mut stream = client.fetch(parent, run);
    let mut body = Vec::new();
    let reading = async {
        while let Some(arrived) = stream.next().await {
            let (index, bytes) = arrived?;
            assert_eq!(Some(index.0), due.next(), "pieces come in order");
            body.extend_from_slice(&bytes);
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the run ends")?;
    Ok(body)
}

/// Gives the other tasks their turns until `holds`.
pub(crate) async fn eventually(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it holds in time");
}

/// What the counter whose name ends with `name` has under `label`.
pub(crate) fn counted(registry: &Registry, name: &str, label: &str) -> u64 {
    let families = registry.gather();
    let named = families.iter().find(|family| family.name().ends_with(name));
    let labelled = |metric: &&prometheus::proto::Metric| {
        let mut labels = metric.get_label().iter();
        labels.any(|pair| pair.value() == label)
    };
    let metric = named.and_then(|family| family.get_metric().iter().find(labelled));
    metric.map_or(0, |metric| metric.get_counter().get_value() as u64)
}
