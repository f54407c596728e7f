//! The token server of this proxy (distribution specification, "Token Authentication"): GET with Basic,
//! or a form that is posted. Passwords go to the registry's own token server, over TLS, and are not kept.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use swarm::source::{Credential, Form, Grant, Scheme, TokenAnswer, TokenRequest};
use tokio::time::timeout;

use super::{LIFE, NOBODY, scope::Scopes};
use crate::{
    answer::{Answer, Ask, not_allowed},
    body::Content,
    error::{Fault, Refusal},
    serve::Proxy,
    upstream,
};

/// A token as clients read it, by both of its names.
#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
    access_token: &'a str,
    expires_in: u64,
}

/// What a client asks, and who it says it is.
struct Question {
    scopes: Vec<String>,
    grant: Option<Grant>,
    /// Where the registry takes passwords alone.
    password: Option<Credential>,
}

/// The longest form that is read, in bytes.
const FORM_LEN_MAX: usize = 64 * 1024;

/// How long a client may take to send it.
const FORM_WAIT: Duration = Duration::from_secs(30);

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn give_token(&self, ask: &Ask, body: Incoming) -> Result<Answer, Refusal> {
        if !ask.whence.is_local {
            let message =
                "tokens are given to clients on this host alone, since a password may come along";
            return Err(Refusal::new(Fault::NotAllowed, message));
        }
        let question = match ask.method {
            Method::GET => by_header(ask),
            Method::POST => by_form(body).await?,
            _ => {
                return Err(Refusal::new(
                    Fault::Method,
                    "a token is asked for by GET or POST",
                ));
            }
        };
        let config = self.config();
        let scopes = question.scopes.iter().map(String::as_str);
        let scopes = Scopes::read(scopes, &config.router.names());
        let scopes = scopes.map_err(|error| Refusal::new(Fault::BadName, error.to_string()))?;
        // Who says nothing of himself needs no token; and who names no repository, as a login does, is
        // believed until he asks for something.
        let (Some(grant), Some(registry)) = (question.grant, scopes.registry) else {
            return Ok(made(NOBODY));
        };
        if !config.source.allowed(&registry) {
            return Err(not_allowed(&registry));
        }
        // A login for this proxy comes along to whatever a path names.
        if !config.source.is_named(&registry) {
            tracing::info!(%registry, "it is allowed by a pattern alone: no login is shown to it");
            return Ok(made(NOBODY));
        }
        let request = TokenRequest {
            registry: registry.clone(),
            scopes: scopes.text,
            grant,
        };
        let answered = self.upstream.token(request).await;
        let answered = answered.map_err(|error| upstream::refusal(&error, Fault::NameUnknown))?;
        Ok(match (answered, question.password) {
            (TokenAnswer::Answer { status, body }, _) => given(status, body),
            // One that asks nobody who he is at first may do so for what is private.
            (TokenAnswer::Basic | TokenAnswer::Open, Some(password)) => {
                made(&self.vouchers.give(registry, password).await)
            }
            (TokenAnswer::Basic | TokenAnswer::Open, None) => made(NOBODY),
        })
    }
}

fn by_header(ask: &Ask) -> Question {
    let pairs = pairs_of(ask.query.as_bytes());
    let of = |name: &'static str| {
        let found = pairs.iter().filter(move |(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    let account = of("account").next();
    let credential = ask.headers.get(header::AUTHORIZATION);
    let credential = credential.and_then(Credential::from_header);
    let password = credential.filter(|credential| credential.scheme() == Scheme::Basic);
    Question {
        scopes: of("scope").collect(),
        grant: password.clone().map(|credential| Grant::Basic {
            credential,
            account,
        }),
        password,
    }
}

async fn by_form(body: Incoming) -> Result<Question, Refusal> {
    let malformed = || Refusal::new(Fault::BadName, "the form cannot be read");
    let read = timeout(FORM_WAIT, Limited::new(body, FORM_LEN_MAX).collect()).await;
    let read = read.map_err(|_| malformed())?.map_err(|_| malformed())?;
    let pairs = pairs_of(&read.to_bytes());
    let of = |name: &str| {
        let mut found = pairs.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    };
    let scopes = of("scope").map(str::to_owned).into_iter().collect();
    let password = match (of("username"), of("password")) {
        (Some(user), Some(password)) => Credential::basic(&format!("{user}:{password}")),
        (Some(_) | None, _) => None,
    };
    let has_grant = password.is_some() || of("refresh_token").is_some();
    let rest = pairs
        .iter()
        .filter(|(key, _)| key != "scope" && key != "service")
        .cloned();
    Ok(Question {
        scopes,
        grant: has_grant.then(|| Grant::Form(Form(rest.collect()))),
        password,
    })
}

fn pairs_of(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

fn made(token: &str) -> Answer {
    let token = Token {
        token,
        access_token: token,
        expires_in: LIFE.as_secs(),
    };
    let body = serde_json::to_vec(&token).unwrap_or_default();
    given(StatusCode::OK, body.into())
}

fn given(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Answer::new(status, Content::Full(body));
    answer.headers = HeaderMap::from_iter([
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    answer
}
