//! The unix socket by which local commands reach the running node. Only its own user may.

pub(crate) mod client;

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use anyhow::Context as _;
use http::{Method, StatusCode};
use protocol::Digest;
use swarm::store::Store;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cache::{CacheList, CacheRemoval},
    http_service::{self, Answer, answer, text},
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
    store: Store,
}

// === impl Server ===

impl Server {
    /// Binds `socket`. What an earlier process left there is replaced; the data directory is
    /// locked, so it is no longer in use.
    pub(crate) fn bind(socket: &Path, overview: Overview, store: Store) -> anyhow::Result<Self> {
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
            served: Arc::new(Served { overview, store }),
        })
    }

    /// Answers until the process drains.
    pub(crate) async fn run(self, closing: CancellationToken, tasks: TaskTracker) {
        let slots = Arc::new(Semaphore::new(COMMANDS_MAX));
        let answering = async {
            while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        let served = serve(Arc::clone(&self.served), stream, closing.clone());
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

async fn serve(served: Arc<Served>, stream: UnixStream, closing: CancellationToken) {
    let respond = |request: http::Request<_>| {
        let served = Arc::clone(&served);
        async move { respond(served, request.method(), request.uri().path()).await }
    };
    http_service::serve(stream, closing, respond).await;
}

async fn respond(served: Arc<Served>, method: &Method, path: &str) -> Answer {
    match (method, path) {
        (&Method::GET, "/status") => json(&served.overview.status()),
        (&Method::GET, "/cache") => blocking(move || CacheList::of(&served.store)).await,
        (&Method::DELETE, path) => match path.strip_prefix("/cache/").map(str::parse::<Digest>) {
            Some(Ok(digest)) => blocking(move || CacheRemoval::of(&served.store, digest)).await,
            Some(Err(error)) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            None => unknown(),
        },
        _ => unknown(),
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
