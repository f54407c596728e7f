//! A host with papers of the cluster that says it holds what others want, and then gives them
//! something else, or nothing. It speaks to the scheduler and to its children by the services of
//! `protocol`, as any host would, and by hand where it must not.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use protocol::{
    AttemptId, ContentKind, Digest, Host, HostId, Identity, Layout, Origin, PieceBatch, PieceIndex,
    PieceSet, Role, Scheduler as _, TaskId, Up, Visibility,
    availability::{Ask, Availability as _, Subscriber, Subscribers, Tell},
    grpc::{ALPN, AvailabilityClient, SchedulerClient, serve_availability},
    scheduler::{Hello, Outcome},
};
use registry_compat_tests::image::Blob;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::HERD_LIMIT;
use registry_compat_tests::cluster::Cluster;

/// What it does instead of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Proven pieces, with other bytes.
    WrongBytes,
    /// Of every second piece that it says it holds it then says it does not.
    Lacks,
    /// Half a piece, and then nothing more on that connection.
    StallsInPiece,
    /// Something that is not HTTP where pieces are asked for.
    GarbagePieces,
    /// Something that is not HTTP/2 where availability is.
    GarbageStream,
    /// A batch in which a digest is not what was signed.
    Forged,
    /// Bytes and batches of its own, that it has no right to sign.
    NoRight,
    /// As a seed, batches and bytes of its own that belong together, and that are another blob's.
    WrongWhole,
    /// It takes subscriptions, and tells nothing.
    Silent,
}

/// A running liar; it ends with this value.
#[derive(Debug)]
pub(crate) struct Liar {
    shared: Arc<Shared>,
    _runtime: Runtime,
}

#[derive(Debug)]
struct Shared {
    lie: Lie,
    identity: Identity,
    /// What it has of each task: the bytes, and what it tells.
    tasks: HashMap<TaskId, (Bytes, Vec<Tell>)>,
    /// Who asked for which task, for its availability or for pieces.
    asked: Mutex<Vec<(HostId, TaskId)>>,
}

/// The id of the liar: before all others where hosts are sorted.
pub(crate) const LIAR: &str = "a-liar";

// === impl Liar ===

impl Liar {
    /// Joins `cluster` and says that it holds `blobs`, which it is given the bytes of. What proves
    /// them it has from the first seed, but for a lie that needs no proof.
    pub(crate) fn start(cluster: &Cluster, lie: Lie, blobs: &[(Blob, Bytes)]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let is_seed = lie == Lie::WrongWhole;
        let role = if is_seed { Role::Seed } else { Role::Proxy };
        let identity = cluster.identity(LIAR, &[role])?;
        let address = cluster.address(65002);
        let shared = runtime.block_on(async {
            let mut tasks = HashMap::new();
            for (blob, bytes) in blobs {
                let task = TaskId(blob.digest.parse()?);
                let tells = match lie {
                    Lie::NoRight | Lie::Forged | Lie::WrongWhole | Lie::Silent => {
                        own_tells(&identity, task, bytes)
                    }
                    _ => true_tells(&identity, cluster.seed(), task).await?,
                };
                tasks.insert(task, (bytes.clone(), tells));
            }
            let shared = Arc::new(Shared {
                lie,
                identity: identity.clone(),
                tasks,
                asked: Mutex::default(),
            });
            let listener = TcpListener::bind(address).await?;
            runtime.spawn(accept(listener, Arc::clone(&shared)));
            anyhow::Ok(shared)
        })?;
        let scheduler = SchedulerClient::new(identity.clone(), cluster.scheduler().clone());
        let hello = Hello {
            host: Host {
                id: identity.id().clone(),
                address,
            },
            is_seed,
            upload_slots: 64,
            idc: None,
            location: None,
        };
        let tasks = shared.tasks.keys().copied().collect();
        runtime.block_on(async {
            let mut session = scheduler.open(hello).await?;
            session.up.send(Up::Held { tasks }).await?;
            // What is said is heard in order: an answer to this proves that the other was heard.
            let task = TaskId(Digest::sha256_of(LIAR.as_bytes()));
            session.up.send(registered(task)?).await?;
            let answered = timeout(HERD_LIMIT, session.down.recv()).await?;
            answered.context("the scheduler answers")?;
            let outcome = Outcome::Left;
            session.up.send(Up::Finished { task, outcome }).await?;
            runtime.spawn(async move {
                // The session lives as long as its half here, both ways; what is told does not matter.
                let mut session = session;
                while session.down.recv().await.is_some() {}
            });
            anyhow::Ok(())
        })?;
        Ok(Self {
            shared,
            _runtime: runtime,
        })
    }

    /// How often `host` has come to it for `blob`.
    pub(crate) fn asked_by(&self, host: &str, blob: &Blob) -> Result<usize> {
        let by = (host.parse()?, TaskId(blob.digest.parse()?));
        let asked = self
            .shared
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(asked.iter().filter(|asked| **asked == by).count())
    }
}

// === impl Shared ===

impl Shared {
    fn note(&self, child: &HostId, task: TaskId) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push((child.clone(), task));
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, acceptor: TlsAcceptor) -> Result<()> {
        let mut stream = acceptor.accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = self.identity.peer(chain)?;
        let is_availability = stream.get_ref().1.alpn_protocol() == Some(ALPN);
        match (is_availability, self.lie) {
            (true, Lie::GarbageStream) => {
                for task in self.tasks.keys() {
                    self.note(&peer.id, *task);
                }
                stream.write_all(&[0x5a; 4096]).await?;
                stream.flush().await?;
                Ok(stream.read_u8().await.map(drop)?)
            }
            (true, _) => {
                let subscribers: Arc<dyn Subscribers> = self;
                Ok(serve_availability(stream, peer, subscribers, std::future::pending()).await?)
            }
            (false, _) => self.give_pieces(&mut stream, &peer.id).await,
        }
    }

    async fn give_pieces(&self, stream: &mut TlsStream<TcpStream>, child: &HostId) -> Result<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let (task, pieces) = asked_for(std::str::from_utf8(&head)?)?;
            self.note(child, task);
            let (bytes, _) = self.tasks.get(&task).context("a task that is told of")?;
            let layout = Layout::for_size(Some(bytes.len() as u64));
            let start = layout.bytes_of(PieceIndex(pieces.start)).start as usize;
            let end = layout.bytes_of(PieceIndex(pieces.end - 1)).end as usize;
            let mut body = bytes[start..end].to_vec();
            match self.lie {
                Lie::GarbagePieces => {
                    stream.write_all(&[0x5a; 4096]).await?;
                    return Ok(stream.shutdown().await?);
                }
                Lie::Lacks if pieces.start % 2 == 1 => {
                    let lacks = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(lacks).await?;
                    stream.flush().await?;
                    continue;
                }
                Lie::WrongBytes => body[0] ^= 0xff,
                _ => {}
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            if self.lie == Lie::StallsInPiece {
                let half = layout.piece_len() as usize / 2;
                stream.write_all(&body[..half.min(body.len() / 2)]).await?;
                stream.flush().await?;
                return Ok(stream.read_u8().await.map(drop)?);
            }
            stream.write_all(&body).await?;
            stream.flush().await?;
        }
    }
}

#[async_trait::async_trait]
impl Subscribers for Shared {
    async fn accept(&self, subscriber: Subscriber) {
        let Subscriber {
            child,
            mut ask,
            tell,
        } = subscriber;
        while let Some(asked) = ask.recv().await {
            let (Ask::Subscribe(task) | Ask::Bring { task, .. }) = asked else {
                continue;
            };
            self.note(&child, task);
            let Some((_, tells)) = self.tasks.get(&task) else {
                let _left = tell.send(Tell::Gone { task }).await;
                continue;
            };
            for told in tells.iter().filter(|_| self.lie != Lie::Silent) {
                // A child that has left needs no more.
                let _left = tell.send(self.twisted(told.clone())).await;
            }
        }
    }
}

impl Shared {
    fn twisted(&self, mut told: Tell) -> Tell {
        if let (Lie::Forged, Tell::Batch(signed)) = (self.lie, &mut told) {
            signed.batch.digests[0].1 = [0x5a; 32];
        }
        told
    }
}

/// A download that it says it begins.
fn registered(task: TaskId) -> Result<Up> {
    let origin = Origin {
        registry: "registry.test".parse()?,
        repository: "team/sealed".parse()?,
        kind: ContentKind::Blob,
    };
    Ok(Up::Register {
        task,
        origin,
        wants: Vec::new(),
    })
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let tls = shared.identity.server_config(&[ALPN, b"http/1.1"]);
    let acceptor = TlsAcceptor::from(tls.expect("papers of the cluster make TLS"));
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(Arc::clone(&shared).converse(stream, acceptor.clone()));
    }
}

/// The task and the pieces of `GET /tasks/{task}/{attempt}/pieces/{first}-{last}`.
fn asked_for(head: &str) -> Result<(TaskId, Range<u32>)> {
    let path = head.split(' ').nth(1).context("no path")?;
    let words: Vec<&str> = path.split('/').collect();
    let ["", "tasks", task, _, "pieces", run] = words[..] else {
        anyhow::bail!("{path}");
    };
    let (first, last) = run.split_once('-').context("no run")?;
    Ok((
        TaskId(task.parse()?),
        first.parse()?..last.parse::<u32>()? + 1,
    ))
}

/// What `seed` tells a child of `task`, all of which it holds.
async fn true_tells(identity: &Identity, seed: &Host, task: TaskId) -> Result<Vec<Tell>> {
    let client = AvailabilityClient::new(identity.clone());
    let mut stream = client.open(seed).await?;
    stream.ask.send(Ask::Subscribe(task)).await?;
    let (mut tells, mut held, mut count) = (Vec::new(), PieceSet::default(), u32::MAX);
    while held.len() < count {
        let told = timeout(HERD_LIMIT, stream.tell.recv()).await?;
        let told = told.context("the seed tells no more")?;
        match &told {
            Tell::Begins { layout, .. } => count = layout.piece_count().context("no size")?,
            Tell::Holds { new, .. } => held.union(new),
            Tell::Batch(_) | Tell::Ended { .. } => {}
            Tell::Gone { .. } => anyhow::bail!("the seed does not have it"),
        }
        tells.push(told);
    }
    Ok(tells)
}

/// What whoever fetched `bytes` would tell, by the word of one who may not.
fn own_tells(identity: &Identity, task: TaskId, bytes: &Bytes) -> Vec<Tell> {
    let (attempt, layout) = (AttemptId(0x5a), Layout::for_size(Some(bytes.len() as u64)));
    let count = layout.piece_count().unwrap_or_default();
    let digest = |index| {
        let piece = layout.bytes_of(PieceIndex(index));
        let digest = blake3::hash(&bytes[piece.start as usize..piece.end as usize]);
        (PieceIndex(index), *digest.as_bytes())
    };
    let batch = PieceBatch {
        task,
        attempt,
        layout,
        visibility: Visibility::Public,
        digests: (0..count).map(digest).collect(),
    };
    vec![
        Tell::Begins {
            task,
            attempt,
            layout,
            media_type: None,
        },
        Tell::Batch(batch.sign(identity)),
        Tell::Holds {
            task,
            attempt,
            new: PieceSet::of_range(0..count),
        },
    ]
}
