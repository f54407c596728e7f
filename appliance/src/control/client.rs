//! The asking end of the control socket.

use std::{path::PathBuf, pin::pin, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::data_dir::DataDir;

/// A node that does not answer within this is taken for stuck.
const DEADLINE: Duration = Duration::from_secs(10);

/// The longest answer that is read.
const ANSWER_LEN_MAX: usize = 64 * 1024 * 1024;

/// A node that is at something long says so more often than this.
const SILENCE: Duration = Duration::from_secs(30);

/// The longest line of an answer that is read.
const LINE_LEN_MAX: usize = 1024 * 1024;

/// What a command asks for.
type Call<'a> = (&'a Method, &'a str);

/// Asks the node that runs on one of `data_dirs`, the first that has one.
pub(crate) fn ask<T: DeserializeOwned>(
    data_dirs: &[PathBuf],
    method: &Method,
    path: &str,
) -> anyhow::Result<T> {
    let asked = exchange(data_dirs, (method, path), Vec::new(), async |answer| {
        let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect();
        Ok(body.await.map_err(broken)?.to_bytes())
    });
    let body = run(async { tokio::time::timeout(DEADLINE, asked).await })?
        .context("the node does not answer")??;
    serde_json::from_slice(&body).context(UNREADABLE)
}

/// Asks with `body` and hands each line of the answer to `heard`, until that has seen enough and
/// answers with it. `None` if the node ends before.
pub(crate) fn follow<L: DeserializeOwned, T>(
    data_dirs: &[PathBuf],
    call: Call<'_>,
    body: Vec<u8>,
    mut heard: impl FnMut(L) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    run(exchange(data_dirs, call, body, async |mut answer| {
        let mut text = Vec::new();
        loop {
            let next = tokio::time::timeout(SILENCE, answer.frame()).await;
            let Some(frame) = next.context("the node does not answer any more")? else {
                return Ok(None);
            };
            text.extend_from_slice(&frame?.into_data().unwrap_or_default());
            anyhow::ensure!(text.len() <= LINE_LEN_MAX, "{UNREADABLE}");
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let line = serde_json::from_slice(&line).context(UNREADABLE)?;
                if let Some(enough) = heard(line)? {
                    return Ok(Some(enough));
                }
            }
        }
    }))?
}

const UNREADABLE: &str = "the node answered what this version cannot read";

fn run<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(future))
}

fn socket_of(data_dirs: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let sockets = data_dirs
        .iter()
        .map(|data_dir| DataDir::socket_in(data_dir));
    let Some(socket) = sockets.into_iter().find(|socket| socket.exists()) else {
        let tried: Vec<String> = data_dirs
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        bail!(
            "no node runs on {}; name its data directory with --data-dir",
            tried.join(" or ")
        );
    };
    Ok(socket)
}

/// Sends one request and reads its answer with `read`, if the node knows one.
async fn exchange<T>(
    data_dirs: &[PathBuf],
    (method, path): Call<'_>,
    body: Vec<u8>,
    read: impl AsyncFnOnce(Response<Incoming>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let socket = socket_of(data_dirs)?;
    let stream = UnixStream::connect(&socket).await.with_context(|| {
        format!(
            "the node at {} cannot be reached; does it run, and as this user?",
            socket.display()
        )
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "darter")
        .body(Full::new(Bytes::from(body)))?;
    let answered = async {
        let answer = sender.send_request(request).await?;
        if answer.status() == StatusCode::OK {
            return read(answer).await;
        }
        let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect();
        let body = body.await.map_err(broken)?.to_bytes();
        bail!("{}", String::from_utf8_lossy(&body).trim());
    };
    let mut answered = pin!(answered);
    tokio::select! {
        answered = &mut answered => answered,
        // What came before the node closed the connection is still to be read.
        ended = connection => {
            ended?;
            answered.await
        }
    }
}

fn broken(error: Box<dyn std::error::Error + Send + Sync>) -> anyhow::Error {
    anyhow::anyhow!("the answer broke off: {error}")
}
