//! A client that says whatever a test wants, in HTTP/2 over mutual TLS.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use protocol::{Identity, grpc};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How a stream was refused: the gRPC status code and its message.
pub(crate) type Refusal = (u32, String);

/// One message as gRPC frames it.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// A protobuf field of a length that fits in one byte.
pub(crate) fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2, content.len() as u8];
    field.extend_from_slice(content);
    field
}

pub(crate) async fn connect(
    config: rustls::ClientConfig,
    identity: &Identity,
    name: &str,
    address: SocketAddr,
) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = identity.server_name(&name.parse()?);
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}

/// Sends `body` to `path` as the host of `identity`, and answers how it was refused.
pub(crate) async fn post(
    identity: &Identity,
    (name, address): (&str, SocketAddr),
    path: &str,
    body: Vec<u8>,
) -> Result<Refusal> {
    let config = identity.client_config(&[grpc::ALPN])?;
    let io = TokioIo::new(connect(config, identity, name, address).await?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let headers = response.headers().clone();
    let trailers = response.into_body().collect().await?.trailers().cloned();
    let status = trailers.unwrap_or(headers);
    let text = |name: &str| -> Result<String> {
        Ok(status
            .get(name)
            .with_context(|| format!("no {name}"))?
            .to_str()?
            .to_owned())
    };
    Ok((
        text("grpc-status")?.parse()?,
        text("grpc-message")?.replace("%20", " "),
    ))
}
