//! Orders that a seed works off, with the engine that it has in a host and a registry before it.

mod registry;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use protocol::{
    AttemptId, Content, ContentKind, Digest, Host, Identity, Layout, Origin, PieceIndex, Role,
    TaskId, Visibility,
    availability::{Availability, Subscription},
    identity::Authority,
    scheduler::SessionError,
};
use seed::{Config, Metrics, Seed, WARMING_MAX};
use swarm::{
    Parts, Swarm, WarmOrder,
    bandwidth::Throttle,
    conductor::Limits,
    peer::{PeerMetrics, PieceClient, PieceClientConfig},
    source::{self, RegistryConfig, SourceMetrics, Timeouts, Upstreams},
    store::{self, Store, TaskSummary},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

const REGISTRY: &str = "r.example";

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(20);

const SIZE: usize = 1 << 20;

/// What has room for two contents of that size.
const QUOTA: u64 = 5 << 19;

/// A running seed, who orders from it, and what it fetches from.
struct Stand {
    registry: Registry,
    orders: mpsc::Sender<WarmOrder>,
    counts: prometheus::Registry,
    store: Store,
    shutdown: CancellationToken,
    running: JoinSet<()>,
    _directory: TempDir,
}

/// Nobody is followed here.
#[derive(Debug)]
struct NobodyThere;

#[async_trait::async_trait]
impl Availability for NobodyThere {
    async fn open(&self, _: &Host) -> Result<Subscription, SessionError> {
        Err(SessionError::Unreachable("nobody is there".to_owned()))
    }
}

// === impl Stand ===

impl Stand {
    async fn start() -> Self {
        Self::start_with(Duration::ZERO).await
    }

    async fn start_with(retention: Duration) -> Self {
        let registry = Registry::start().await;
        let counts = prometheus::Registry::new();
        let directory = tempfile::tempdir().expect("a directory for tests");
        let config = store::Config {
            dir: directory.path().join("store"),
            storage_quota: QUOTA,
            manifest_quota: 1 << 20,
            min_free: 0,
        };
        let store = Store::open(config, SystemTime::UNIX_EPOCH).expect("an empty directory");
        let swarm = swarm(&registry, &store, &counts);
        let (orders, queue) = mpsc::channel(2 * WARMING_MAX);
        let metrics = Metrics::register(&counts).expect("a fresh registry");
        let seed = Seed::new(Config { retention }, swarm, queue, metrics);
        let shutdown = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(seed.run(shutdown.clone()));
        Self {
            registry,
            orders,
            counts,
            store,
            shutdown,
            running,
            _directory: directory,
        }
    }

    async fn order(&self, task: TaskId) {
        let order = WarmOrder {
            task,
            origin: Origin {
                registry: REGISTRY.parse().expect("a registry name"),
                repository: "team/image".parse().expect("a repository name"),
                kind: ContentKind::Blob,
            },
            wants: Vec::new(),
            by: "scheduler".parse().expect("a host id"),
        };
        self.orders.send(order).await.expect("the seed runs");
    }

    /// What is counted under `name`, with this outcome if there are several.
    fn counted(&self, name: &str, outcome: &str) -> f64 {
        let families = self.counts.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.expect("a metric of the seed").get_metric().iter();
        let named = metrics.filter(|metric| {
            let mut labels = metric.get_label().iter();
            labels.all(|label| label.value() == outcome)
        });
        named
            .map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value())
            .sum()
    }

    fn warming(&self) -> f64 {
        self.counted("darter_seed_warming", "")
    }

    /// Waits until so many orders are over, held and failed.
    async fn ends(&self, held: usize, failed: usize) {
        let ended = |outcome| self.counted("darter_seed_warmed_total", outcome);
        let expect = (held as f64, failed as f64);
        eventually(|| (ended("held"), ended("failed")) == expect).await;
    }

    /// Keeps `body` as something that a client wanted just now.
    fn use_now(&self, body: &[u8]) -> TaskId {
        let task = TaskId(Digest::sha256_of(body));
        let layout = Layout::for_size(Some(body.len() as u64));
        let content = Content {
            attempt: AttemptId(1),
            layout,
            media_type: None,
            visibility: Visibility::Public,
        };
        let made = self.store.create(task, ContentKind::Blob, &content);
        let made = made.expect("room is made for it");
        for piece in (0..layout.piece_count().expect("a size")).map(PieceIndex) {
            let bytes = layout.bytes_of(piece);
            let landed = made.land(piece, &body[bytes.start as usize..bytes.end as usize]);
            landed.expect("room for the piece");
        }
        task
    }

    fn kept(&self, task: TaskId) -> Option<TaskSummary> {
        self.store.list().find(|kept| kept.task == task)
    }
}

fn swarm(registry: &Registry, store: &Store, counts: &prometheus::Registry) -> Swarm {
    let authority = Authority::new("test").expect("a cluster name");
    let roles = [Role::Seed].into_iter().collect();
    let id = "seed".parse().expect("a host id");
    let issued = authority.issue(&id, roles).expect("a certificate");
    let identity = Identity::from_pem(authority.ca_pem(), &issued.certificate, &issued.key)
        .expect("what was issued just now");
    let endpoint = format!("http://{}/", registry.address);
    let registry = RegistryConfig {
        endpoints: vec![endpoint.parse().expect("an address makes a URL")],
        also_trust: Default::default(),
        ca: Vec::new(),
        client: None,
        docker_config: None,
    };
    let config = source::Config {
        registries: HashMap::from([(REGISTRY.parse().expect("a registry name"), registry)]),
        timeouts: Timeouts {
            backoff: Duration::from_millis(1),
            ..Timeouts::default()
        },
        ..source::Config::default()
    };
    let metrics = SourceMetrics::register(counts).expect("a fresh registry");
    let upstreams = Upstreams::new(config, metrics).expect("no CA that could be wrong");
    let metrics = PeerMetrics::new(counts).expect("a fresh registry");
    let pieces = PieceClient::new(&identity, PieceClientConfig::default(), metrics);
    let (swarm, _) = Swarm::new(Parts {
        store: store.clone(),
        upstreams,
        identity,
        schedulers: Vec::new(),
        availability: Arc::new(NobodyThere),
        pieces: pieces.expect("TLS for a client"),
        seeds: Vec::new(),
        limits: Limits::default(),
        prefetch: Throttle::default(),
        metrics: swarm::metrics::Metrics::register(counts).expect("a fresh registry"),
    });
    swarm
}

/// Waits until it holds.
async fn eventually(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.expect("it holds in time");
}

/// Small contents that differ.
fn body(number: usize) -> Vec<u8> {
    number.to_le_bytes().repeat(100)
}

#[tokio::test]
async fn no_more_than_the_limit_are_warmed_at_once_and_the_rest_wait() {
    const MORE: usize = 44;
    let stand = Stand::start().await;
    for number in 0..WARMING_MAX + MORE {
        let task = stand.registry.put(body(number));
        stand.order(task).await;
    }
    eventually(|| stand.warming() == WARMING_MAX as f64 && 0 < stand.registry.asked()).await;
    let waiting = stand.orders.max_capacity() - stand.orders.capacity();
    assert_eq!(waiting, MORE);
    stand.registry.open();
    stand.ends(WARMING_MAX + MORE, 0).await;
    assert_eq!(stand.warming(), 0.0);
    assert_eq!(stand.registry.asked(), WARMING_MAX + MORE);
}

#[tokio::test]
async fn the_same_order_again_costs_no_second_fetch() {
    let stand = Stand::start().await;
    let task = stand.registry.put(body(0));
    // While it is under way, and once it is held.
    for _ in 0..3 {
        stand.order(task).await;
    }
    eventually(|| stand.warming() == 3.0 && 0 < stand.registry.asked()).await;
    stand.registry.open();
    stand.ends(3, 0).await;
    stand.order(task).await;
    stand.ends(4, 0).await;
    assert_eq!(stand.registry.asked_for(task), 1);
}

#[tokio::test]
async fn an_order_that_fails_is_counted_and_the_next_one_goes_on() {
    let stand = Stand::start().await;
    stand.registry.open();
    let missing = TaskId(Digest::sha256_of(b"nobody has this"));
    stand.order(missing).await;
    stand.ends(0, 1).await;
    let task = stand.registry.put(body(0));
    stand.order(task).await;
    stand.ends(1, 1).await;
    assert!(stand.kept(missing).is_none());
    assert!(stand.kept(task).is_some_and(|kept| kept.complete));
}

/// What is ordered first and kept for `retention` stands against two contents that were used after it,
/// in a store that has room for two: the one of the three that goes.
async fn goes_first(retention: Duration) -> usize {
    let stand = Stand::start_with(retention).await;
    stand.registry.open();
    let ordered = stand.registry.put(vec![0; SIZE]);
    stand.order(ordered).await;
    stand.ends(1, 0).await;
    let used = [1, 2].map(|byte| stand.use_now(&[byte; SIZE]));
    let gone = [ordered, used[0], used[1]].map(|task| stand.kept(task).is_none());
    assert_eq!(gone.iter().filter(|gone| **gone).count(), 1, "{gone:?}");
    gone.iter().position(|gone| *gone).expect("one is gone")
}

#[tokio::test]
async fn what_was_ordered_counts_as_used_until_its_retention_is_over() {
    assert_eq!(goes_first(Duration::from_secs(3600)).await, 1);
    assert_eq!(goes_first(Duration::ZERO).await, 0);
}

#[tokio::test]
async fn a_seed_that_ends_leaves_what_it_is_warming() {
    let mut stand = Stand::start().await;
    let task = stand.registry.put(body(0));
    stand.order(task).await;
    eventually(|| stand.registry.asked() == 1).await;
    stand.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, stand.running.join_next()).await;
    let ended = ended.expect("it ends though the registry does not answer");
    assert!(matches!(ended, Some(Ok(()))), "{ended:?}");
}
