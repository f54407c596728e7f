//! Has a token server answer a client that takes tokens from this proxy: the question is the client's
//! own, and so is the answer. Nothing of either is kept.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use protocol::RegistryName;

use super::{
    challenge::{BearerChallenge, Offer},
    client::Upstreams,
    credential::Credential,
    error::{AnsweredBy, SourceError},
    request::Method,
    token::{TOKEN_ANSWER_LEN_MAX, token_url},
};

/// What a client asks a token for (distribution specification, "Token Authentication").
#[derive(Debug)]
pub struct TokenRequest {
    pub registry: RegistryName,
    /// As the registry knows them, with spaces between.
    pub scopes: String,
    pub grant: Grant,
}

/// By what a client gets its token.
#[derive(Debug)]
pub enum Grant {
    /// A user and a password in the header of a GET, and the query that goes with it.
    Basic {
        credential: Credential,
        account: Option<String>,
    },
    /// The pairs of a form that is posted, without its scopes and its service.
    Form(Form),
}

/// Holds a password or a token, so it is never shown.
pub struct Form(pub Vec<(String, String)>);

/// What comes of the question.
#[derive(Debug)]
pub enum TokenAnswer {
    /// The token server's own answer, whatever it is.
    Answer { status: StatusCode, body: Bytes },
    /// The registry knows no tokens: it takes the password itself.
    Basic,
    /// The registry asks nobody who he is.
    Open,
}

// === impl Upstreams ===

impl Upstreams {
    /// The answer of the token server of `request.registry`, which is found by a request that the
    /// registry refuses.
    pub async fn token(&self, request: TokenRequest) -> Result<TokenAnswer, SourceError> {
        let endpoints = self.endpoints(&request.registry).await?;
        let upstream = endpoints.last()?;
        let mut url = upstream.endpoint.clone();
        url.set_path(&format!("{}v2/", upstream.endpoint.path()));
        let dialer = &upstream.dialer;
        let pinged = dialer.send(Method::Get, &url, HeaderMap::new()).await?;
        if pinged.status().is_success() {
            return Ok(TokenAnswer::Open);
        }
        let refusal = match upstream.failure(pinged, AnsweredBy::Registry).await {
            SourceError::Refused(answer) => answer,
            error => return Err(error),
        };
        let offer = Offer::of(&refusal.headers);
        let Some(challenge) = offer.bearer else {
            return match offer.basic {
                true => Ok(TokenAnswer::Basic),
                false => Err(SourceError::Refused(refusal)),
            };
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let response = match request.grant {
            Grant::Basic {
                credential,
                account,
            } => {
                let mut url = token_url(&request.scopes, &challenge, &upstream.endpoint)?;
                if let Some(account) = account {
                    url.query_pairs_mut().append_pair("account", &account);
                }
                headers.insert(header::AUTHORIZATION, credential.header().clone());
                dialer.send(Method::Get, &url, headers).await?
            }
            Grant::Form(Form(pairs)) => {
                let service = challenge.service.clone();
                let bare = BearerChallenge {
                    service: None,
                    ..challenge
                };
                let url = token_url("", &bare, &upstream.endpoint)?;
                let form = written(pairs, service, request.scopes);
                dialer.post(&url, headers, form).await?
            }
        };
        let status = response.status();
        let body = dialer.body(response, None);
        let body = body.collect(TOKEN_ANSWER_LEN_MAX).await?;
        Ok(TokenAnswer::Answer { status, body })
    }
}

fn written(pairs: Vec<(String, String)>, service: Option<String>, scopes: String) -> String {
    let service = service.map(|service| ("service".to_owned(), service));
    let scopes = (!scopes.is_empty()).then(|| ("scope".to_owned(), scopes));
    let pairs = pairs.into_iter().chain(service).chain(scopes);
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Form(hidden)")
    }
}
