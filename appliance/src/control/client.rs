//! The asking end of the control socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::data_dir::DataDir;

/// A node that does not answer within this is taken for stuck.
const DEADLINE: Duration = Duration::from_secs(10);

/// The longest answer that is read.
const ANSWER_LEN_MAX: usize = 64 * 1024 * 1024;

/// Asks the node that runs on one of `data_dirs`, the first that has one.
pub(crate) fn ask<T: DeserializeOwned>(
    data_dirs: &[PathBuf],
    method: &Method,
    path: &str,
) -> anyhow::Result<T> {
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = async { tokio::time::timeout(DEADLINE, exchange(&socket, method, path)).await };
    let body = runtime
        .block_on(asked)
        .context("the node does not answer")??;
    serde_json::from_slice(&body).context("the node answered what this version cannot read")
}

async fn exchange(socket: &Path, method: &Method, path: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
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
        .body(Empty::<Bytes>::new())?;
    let answered = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?
            .to_bytes();
        anyhow::Ok((status, body))
    };
    let (status, body) = tokio::select! {
        answered = answered => answered?,
        ended = connection => {
            ended?;
            bail!("the node closed the connection");
        }
    };
    if status != StatusCode::OK {
        bail!("{}", String::from_utf8_lossy(&body).trim());
    }
    Ok(body)
}
