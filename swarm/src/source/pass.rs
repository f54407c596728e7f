//! Passes a request on to its registry as it is, and the answer back: what is no pull.
//!
//! Nothing is retried or followed, since nothing is known of what it does. The caller's own headers
//! go to the registry's endpoint and nowhere else; those of one connection are the proxy's affair.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use protocol::RegistryName;
use tokio::{sync::watch, time::sleep};
use url::Url;

use super::{
    client::Upstreams,
    credential::Credential,
    dial::{Dialer, failed},
    error::{Awaited, SourceError},
    request::Body,
    upstream::Upstream,
};

/// A request to be passed on.
#[derive(Debug)]
pub struct PassRequest {
    pub registry: RegistryName,
    pub method: Method,
    /// Below the registry's endpoint, percent-encoded.
    pub path: String,
    /// Without the `?`; may be empty.
    pub query: String,
    /// Those that are for the registry itself.
    pub headers: HeaderMap,
    /// Goes along as it is.
    pub credential: Option<Credential>,
    pub body: PassBody,
    /// How long the caller may be silent in the middle of its body.
    pub caller_stall: Duration,
}

/// The body of a request as its caller sends it.
pub type PassBody = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// The registry's answer, whatever it is.
#[derive(Debug)]
pub struct PassResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
    /// The base that the registry's own addresses begin with.
    pub endpoint: Url,
}

/// A body that tells whether it moves.
struct Watched {
    body: PassBody,
    turn: watch::Sender<Turn>,
}

/// Who is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// For the next piece of its body.
    Caller,
    /// It has all of the request.
    Registry,
}

// === impl Upstreams ===

impl Upstreams {
    /// The registry's answer to a request that is passed on to it.
    pub async fn pass(&self, request: PassRequest) -> Result<PassResponse, SourceError> {
        let endpoints = self.endpoints(&request.registry).await?;
        // What is written goes to the registry itself.
        let upstream = endpoints.last()?;
        let slot = upstream.pass_slot().await?;
        let url = below(upstream, &request.path, &request.query)?;
        let endpoint = upstream.endpoint.clone();
        let response = upstream.dialer.pass(&url, request).await?;
        Ok(PassResponse {
            status: response.status(),
            headers: response.headers().clone(),
            body: upstream.dialer.body(response, Some(slot)),
            endpoint,
        })
    }
}

// === impl Dialer ===

impl Dialer {
    async fn pass(
        &self,
        url: &Url,
        request: PassRequest,
    ) -> Result<reqwest::Response, SourceError> {
        let (turn, mut told) = watch::channel(Turn::Caller);
        let body = Watched {
            body: request.body,
            turn,
        };
        let mut headers = request.headers;
        headers.append(header::VIA, self.via.clone());
        if let Some(credential) = &request.credential {
            headers.insert(header::AUTHORIZATION, credential.header().clone());
        }
        let last_word = match request.method {
            Method::GET | Method::HEAD => self.timeouts.response,
            _ => self.timeouts.write,
        };
        let sending = self
            .client_for(url)?
            .request(request.method, url.clone())
            .headers(headers)
            .body(reqwest::Body::wrap(body))
            .send();
        let mut sending = pin!(sending);
        let answered = loop {
            let turn = *told.borrow_and_update();
            let waited = match turn {
                Turn::Caller => request.caller_stall,
                Turn::Registry => last_word,
            };
            tokio::select! {
                answered = sending.as_mut() => {
                    break answered.map_err(|error| failed(url, &error));
                }
                // The body moves, or is over.
                _ = told.changed(), if turn == Turn::Caller => {}
                () = sleep(waited) => {
                    let awaited = Awaited::Headers;
                    break Err(SourceError::Stalled { awaited, waited });
                }
            }
        };
        self.counted(answered)
    }
}

// === impl Watched ===

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let is_over = next.is_none() || self.body.is_end_stream();
        self.turn.send_replace(match is_over {
            true => Turn::Registry,
            false => Turn::Caller,
        });
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    /// A body that nobody reads any more is over, and one of no bytes is never read.
    fn drop(&mut self) {
        self.turn.send_replace(Turn::Registry);
    }
}

/// The address of `path` at the registry, which must not leave its endpoint.
fn below(upstream: &Upstream, path: &str, query: &str) -> Result<Url, SourceError> {
    let mut url = upstream.endpoint.clone();
    let full = format!("{}{path}", url.path().trim_end_matches('/'));
    url.set_path(&full);
    url.set_query(Some(query).filter(|query| !query.is_empty()));
    if url.path() == full {
        Ok(url)
    } else {
        Err(SourceError::Malformed("the path steps out of itself"))
    }
}
