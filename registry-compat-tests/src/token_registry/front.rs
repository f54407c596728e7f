//! The registry's own door: challenges, judges, and passes on what is allowed.

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    Blobs, Door, Ping, State,
    credential::Credential,
    rights::Action,
    serve::{Answered, Body, error, full, parameter},
    tokens::{Scheme, Verdict},
};
use super::{Caller, locked};
use crate::process::unix_time;

/// What is asked for, as far as rights and answers depend on it.
struct Asked<'a> {
    /// Empty where no repository is named.
    repository: &'a str,
    /// `blobs`, `manifests`, `tags` or `referrers`; empty otherwise.
    kind: &'a str,
    /// What follows the kind.
    rest: &'a str,
}

const KINDS: [&str; 4] = ["blobs", "manifests", "referrers", "tags"];

pub(super) async fn answer(state: &State, request: Request<Incoming>) -> Result<Answered> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    let Some(below) = path.strip_prefix("/v2/").or((path == "/v2").then_some("")) else {
        return Ok((
            Caller::Nobody,
            error(StatusCode::NOT_FOUND, "NAME_UNKNOWN")?,
        ));
    };
    let asked = Asked::read(below);
    let is_ping = below.is_empty();
    let needs = asked.needs(&parts.method, query);
    let credential = Credential::of(&parts.headers);
    let (caller, verdict) = {
        let (tokens, rules) = (locked(&state.tokens), locked(&state.rules));
        let judged_by = (&*rules, state.settings.scheme);
        tokens.judge(judged_by, &credential, &needs, unix_time())
    };
    let is_open = is_ping && state.settings.ping == Ping::Open && credential == Credential::None;
    let refused = match verdict {
        Verdict::Allow => None,
        Verdict::Challenge(_) if is_open => None,
        Verdict::Challenge(told) => Some(state.challenge(told, &needs)?),
        Verdict::Denied => Some(error(StatusCode::FORBIDDEN, "DENIED")?),
        Verdict::Hidden => Some(error(StatusCode::NOT_FOUND, "NAME_UNKNOWN")?),
    };
    if let Some(refused) = refused {
        return Ok((caller, refused));
    }
    if is_ping {
        let mut answer = Response::new(full("{}"));
        let version = HeaderValue::from_static("registry/2.0");
        let headers = answer.headers_mut();
        headers.insert("Docker-Distribution-Api-Version", version);
        return Ok((caller, answer));
    }
    if let Some(own) = state.own_answer(&parts.method, &asked)? {
        return Ok((caller, own));
    }
    let told = parts
        .uri
        .path_and_query()
        .map_or(path, |told| told.as_str());
    let is_redirected = state.settings.blobs == Blobs::Redirected;
    if is_redirected && asked.kind == "blobs" && parts.method == Method::GET {
        return Ok((caller, state.redirect(&asked, told).await?));
    }
    let mut headers = parts.headers;
    state.name_front(&mut headers)?;
    let body = body.map_err(anyhow::Error::from).boxed();
    let passed = state.behind.ask(parts.method, told, headers, body).await?;
    Ok((caller, passed))
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// Read from the right: kinds are legal parts of a repository's name.
    fn read(below: &'a str) -> Self {
        let found = KINDS.iter().filter_map(|&kind| {
            let at = below.rfind(&format!("/{kind}/"))?;
            Some((at, kind))
        });
        match found.max() {
            Some((at, kind)) => Self {
                repository: &below[..at],
                kind,
                rest: &below[at + kind.len() + 2..],
            },
            None => Self {
                repository: "",
                kind: "",
                rest: below,
            },
        }
    }

    /// What somebody must be allowed to who asks so. Mounting reads where it mounts from.
    fn needs(&self, method: &Method, query: &str) -> Vec<(String, Action)> {
        if self.repository.is_empty() {
            return Vec::new();
        }
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let action = if is_read { Action::Pull } else { Action::Push };
        let mut needs = vec![(self.repository.to_owned(), action)];
        needs.extend(parameter(query, "from").map(|from| (from, Action::Pull)));
        needs
    }
}

// === impl State ===

impl State {
    /// Where to get a token for `needs`, or that a password is wanted.
    fn challenge(&self, told: Option<&str>, needs: &[(String, Action)]) -> Result<Response<Body>> {
        let challenge = match self.settings.scheme {
            Scheme::Basic => format!("Basic realm=\"{}\"", self.settings.service),
            Scheme::Bearer => {
                let other = locked(&self.rules).other_realm.clone();
                let own = || format!("{}/token", self.origin(Door::Realm));
                let realm = other.unwrap_or_else(own);
                let mut text = format!("Bearer realm=\"{realm}\"");
                text += &format!(",service=\"{}\"", self.settings.service);
                let scopes: Vec<String> = needs.iter().map(scope).collect();
                if !scopes.is_empty() {
                    text += &format!(",scope=\"{}\"", scopes.join(" "));
                }
                if let Some(told) = told {
                    text += &format!(",error=\"{told}\"");
                }
                text
            }
        };
        let mut answer = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED")?;
        let value = HeaderValue::try_from(challenge)?;
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        Ok(answer)
    }

    /// What the rules have it answer, whatever is behind.
    fn own_answer(&self, method: &Method, asked: &Asked<'_>) -> Result<Option<Response<Body>>> {
        let rules = locked(&self.rules);
        let is_head = method == Method::HEAD;
        if asked.kind == "blobs" && is_head {
            if let Some(status) = rules.refuses_head {
                return error(status, "UNSUPPORTED").map(Some);
            }
            if let Some(size) = rules.claimed_blobs.get(asked.rest) {
                let told = ("application/octet-stream", asked.rest, *size);
                return content(told, Bytes::new()).map(Some);
            }
        }
        let is_read = is_head || method == Method::GET;
        let claimed = rules.claimed_manifests.get(asked.rest);
        let Some(claimed) = claimed.filter(|_| is_read && asked.kind == "manifests") else {
            return Ok(None);
        };
        let size = claimed.bytes.len() as u64;
        let told = (claimed.media_type.as_str(), claimed.digest.as_str(), size);
        let bytes = match is_head {
            true => Bytes::new(),
            false => claimed.bytes.clone(),
        };
        content(told, bytes).map(Some)
    }

    /// The storage host's address of a blob that is there.
    async fn redirect(&self, asked: &Asked<'_>, told: &str) -> Result<Response<Body>> {
        let head = self
            .behind
            .ask(Method::HEAD, told, HeaderMap::new(), full(""));
        let status = head.await?.status();
        if !status.is_success() {
            return error(status, "BLOB_UNKNOWN");
        }
        let other = locked(&self.rules).other_storage.clone();
        let location = match other {
            Some(other) => format!("{other}/{}", asked.rest),
            None => self.signed_address(asked.repository, asked.rest),
        };
        let answer = Response::builder().status(StatusCode::TEMPORARY_REDIRECT);
        Ok(answer.header(header::LOCATION, location).body(full(""))?)
    }

    /// Lets the registry behind tell addresses as if it were this one.
    fn name_front(&self, headers: &mut HeaderMap) -> Result<()> {
        let address = self.address(Door::Registry).to_string();
        headers.insert(header::HOST, HeaderValue::try_from(address)?);
        let scheme = self.settings.transport.scheme();
        headers.insert("X-Forwarded-Proto", HeaderValue::from_static(scheme));
        Ok(())
    }
}

fn scope((repository, action): &(String, Action)) -> String {
    match action {
        Action::Pull => format!("repository:{repository}:pull"),
        Action::Push => format!("repository:{repository}:pull,push"),
    }
}

fn content((media_type, digest, size): (&str, &str, u64), bytes: Bytes) -> Result<Response<Body>> {
    let answer = Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, size)
        .header("Docker-Content-Digest", digest);
    Ok(answer.body(full(bytes))?)
}
