//! The storage host: gives bytes to whoever has an address that was signed for GET and is not too
//! old, and to nobody who brings a credential beside it, as S3 does.

use std::time::Duration;

use anyhow::Result;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;

use super::{
    Caller, Door, HEARD_MAX, State, locked,
    serve::{Answered, error, full, parameter},
};
use crate::process::unix_time;

pub(super) async fn answer(state: &State, request: Request<Incoming>) -> Result<Answered> {
    let caller = Caller::Nobody;
    if request.headers().contains_key(header::AUTHORIZATION) {
        let told = error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT")?;
        return Ok((Caller::Unknown, told));
    }
    let path = request.uri().path().trim_start_matches('/');
    let query = request.uri().query().unwrap_or_default();
    let signed = path
        .rsplit_once('/')
        .filter(|_| request.method() == Method::GET && state.is_signed(path, query));
    let Some((repository, digest)) = signed else {
        return Ok((caller, error(StatusCode::FORBIDDEN, "ACCESS_DENIED")?));
    };
    let mut headers = HeaderMap::new();
    if let Some(range) = request.headers().get(header::RANGE) {
        headers.insert(header::RANGE, range.clone());
    }
    let behind = format!("/v2/{repository}/blobs/{digest}");
    let asked = state.behind.ask(Method::GET, &behind, headers, full(""));
    let mut answer = asked.await?;
    // A store knows nothing of registries.
    answer.headers_mut().remove("Docker-Content-Digest");
    let binary = HeaderValue::from_static("binary/octet-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, binary);
    Ok((caller, answer))
}

// === impl State ===

impl State {
    /// Where the blob is to be had for a while.
    pub(super) fn signed_address(&self, repository: &str, digest: &str) -> String {
        let life = locked(&self.rules).signature_life;
        let expires = (unix_time() + life).as_secs();
        let path = format!("{repository}/{digest}");
        let signature = self.signature(&path, expires);
        let mut given = locked(&self.signatures);
        if given.len() < HEARD_MAX {
            given.push(signature.clone());
        }
        let origin = self.origin(Door::Storage);
        format!("{origin}/{path}?expires={expires}&signature={signature}")
    }

    fn is_signed(&self, path: &str, query: &str) -> bool {
        let expires = parameter(query, "expires").and_then(|told| told.parse().ok());
        let Some(expires) = expires else { return false };
        let right = self.signature(path, expires);
        let is_right = parameter(query, "signature").is_some_and(|told| told == right);
        is_right && unix_time() < Duration::from_secs(expires)
    }

    fn signature(&self, path: &str, expires: u64) -> String {
        let signed = format!("GET\n{path}\n{expires}");
        let hash = blake3::keyed_hash(&self.signing_key, signed.as_bytes());
        hash.to_hex().to_string()
    }
}
