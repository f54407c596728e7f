//! One call of the container runtime interface, `runtime.v1.ImageService/PullImage`, over the
//! daemon's unix socket.
//!
//! The one request and its answer are short enough to be written by hand: gRPC is HTTP/2 with a
//! five-byte prefix before each message ("gRPC over HTTP2"), and each message here is made of nested
//! fields of text ("Protocol Buffers: Encoding").

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::UnixStream, runtime, time::timeout};

/// A user and a password.
type Login<'a> = Option<(&'a str, &'a str)>;

/// Pulls `image` and returns once the daemon says that it has it.
pub(super) fn pull_image(
    socket: &Path,
    image: &str,
    login: Login<'_>,
    limit: Duration,
) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let call = call(socket, message(image, login)?);
    runtime.block_on(async {
        timeout(limit, call)
            .await
            .context("PullImage has not ended")?
    })
}

async fn call(socket: &Path, message: Bytes) -> Result<()> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    let request = Request::post("http://localhost/runtime.v1.ImageService/PullImage")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message))?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let head = response.headers().clone();
        let body = response.into_body().collect().await?;
        let trailers = body.trailers().cloned().unwrap_or(head);
        let status = trailers
            .get("grpc-status")
            .context("no grpc-status")?
            .to_str()?;
        if status != "0" {
            let told = trailers
                .get("grpc-message")
                .map(|value| value.to_str())
                .transpose()?;
            bail!("grpc-status {status}: {}", told.unwrap_or_default());
        }
        ensure!(body.to_bytes().len() > 5, "the answer names no image");
        Ok(())
    };
    tokio::select! {
        outcome = exchange => outcome,
        ended = connection => bail!("the connection ended first: {ended:?}"),
    }
}

/// `PullImageRequest { image: ImageSpec { image }, auth: AuthConfig { username, password } }` with
/// the gRPC prefix.
fn message(image: &str, login: Login<'_>) -> Result<Bytes> {
    let mut outer = field(1, &field(1, image.as_bytes())?)?;
    if let Some((user, password)) = login {
        let mut auth = field(1, user.as_bytes())?;
        auth.extend(field(2, password.as_bytes())?);
        outer.extend(field(2, &auth)?);
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(outer.len())?.to_be_bytes());
    framed.extend_from_slice(&outer);
    Ok(framed.into())
}

/// A field with wire type 2 (length-delimited) and a length that one or two bytes hold.
fn field(number: u8, value: &[u8]) -> Result<Vec<u8>> {
    ensure!(value.len() < 1 << 14, "too long for a name");
    let mut field = vec![number << 3 | 2];
    let low = u8::try_from(value.len() & 0x7f)?;
    match u8::try_from(value.len() >> 7)? {
        0 => field.push(low),
        high => field.extend_from_slice(&[low | 0x80, high]),
    }
    field.extend_from_slice(value);
    Ok(field)
}
