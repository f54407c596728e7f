//! The unix socket by which local commands reach the running node. Only its own user may.

pub(crate) mod client;

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use anyhow::Context as _;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, body::Incoming};
use protocol::{Digest, TaskId};
use swarm::store::Store;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cache::{CacheList, CachePin, CacheRemoval},
    explain,
    http_service::{self, Answer, answer, text},
    preheat::{Preheater, Wish},
    status::Overview,
};

/// Local commands that are answered at once; further ones wait.
const COMMANDS_MAX: usize = 16;

/// The serving end of the socket.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    served: Arc<Served>,
}

/// What the commands are answered from.
#[derive(Debug)]
struct Served {
    overview: Overview,
    preheater: Preheater,
}

/// What a running answer needs of the process.
#[derive(Clone)]
struct Running {
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// The longest question that is read.
const QUESTION_LEN_MAX: usize = 64 * 1024;

// === impl Server ===

impl Server {
    /// Binds `socket`. What an earlier process left there is replaced; the data directory is
    /// locked, so it is no longer in use.
    pub(crate) fn bind(
        socket: &Path,
        overview: Overview,
        preheater: Preheater,
    ) -> anyhow::Result<Self> {
        let shown = socket.display();
        // Made under another name, so that nobody can connect before the permissions are set.
        let fresh = socket.with_extension("new");
        let _missing = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).with_context(|| {
            format!("the control socket {shown} cannot be made; a shorter path of the data directory may help")
        })?;
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))
            .and_then(|()| std::fs::rename(&fresh, socket))
            .with_context(|| format!("the control socket {shown} cannot be put in place"))?;
        Ok(Self {
            listener,
            served: Arc::new(Served {
                overview,
                preheater,
            }),
        })
    }

    /// Answers until the process drains.
    pub(crate) async fn run(self, closing: CancellationToken, tasks: TaskTracker) {
        let slots = Arc::new(Semaphore::new(COMMANDS_MAX));
        let running = Running {
            closing: closing.clone(),
            tasks: tasks.clone(),
        };
        let answering = async {
            while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        let served = serve(Arc::clone(&self.served), stream, running.clone());
                        tasks.spawn(async move {
                            served.await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the control socket accepts no more");
                        return;
                    }
                }
            }
        };
        closing.run_until_cancelled(answering).await;
    }
}

async fn serve(served: Arc<Served>, stream: UnixStream, running: Running) {
    let closing = running.closing.clone();
    let respond = |request| respond(Arc::clone(&served), request, running.clone());
    http_service::serve(stream, closing, respond).await;
}

async fn respond(served: Arc<Served>, request: Request<Incoming>, running: Running) -> Answer {
    let uri = request.uri().clone();
    let path: Vec<&str> = uri.path().split('/').skip(1).collect();
    let store = || served.preheater.swarm.store().clone();
    match (request.method(), &path[..]) {
        (&Method::GET, ["status"]) => json(&served.overview.status().await),
        (&Method::GET, ["cache"]) => {
            let store = store();
            blocking(move || CacheList::of(&store)).await
        }
        (&Method::DELETE, ["cache", digest]) => of_content(digest, store(), CacheRemoval::of).await,
        (&Method::POST, ["cache", digest, "pin"]) => {
            of_content(digest, store(), CachePin::pin).await
        }
        (&Method::DELETE, ["cache", digest, "pin"]) => {
            of_content(digest, store(), CachePin::unpin).await
        }
        (&Method::GET, ["explain", digest]) => match digest.parse() {
            Ok(digest) => explained(&served.preheater, TaskId(digest), uri.query()).await,
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        (&Method::POST, ["preheat"]) => match wish(request).await {
            Ok(wish) => {
                let Running { closing, tasks } = running;
                served.preheater.clone().answer(wish, &tasks, closing)
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        _ => unknown(),
    }
}

/// Answers with what `work` does to one content of the store.
async fn of_content<T>(digest: &str, store: Store, work: fn(&Store, Digest) -> T) -> Answer
where
    T: serde::Serialize + Send + 'static,
{
    match digest.parse() {
        Ok(digest) => blocking(move || work(&store, digest)).await,
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

async fn wish(request: Request<Incoming>) -> anyhow::Result<Wish> {
    let body = Limited::new(request.into_body(), QUESTION_LEN_MAX).collect();
    let body = body.await.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

async fn explained(asked: &Preheater, task: TaskId, host: Option<&str>) -> Answer {
    let explained = explain::Explained::of(&asked.operators, &asked.swarm, (task, host)).await;
    match explained {
        Ok(explained) => json(&explained),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")),
    }
}

fn unknown() -> Answer {
    let told = "this node knows no such command; is it of another version?\n";
    text(StatusCode::NOT_FOUND, told)
}

/// Answers with what `work` finds on the disk.
async fn blocking<T>(work: impl FnOnce() -> T + Send + 'static) -> Answer
where
    T: serde::Serialize + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => json(&value),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
