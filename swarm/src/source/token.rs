//! Tokens of the distribution specification's flow: fetched once for all who need one, kept
//! for most of their life.
//!
//! A token is kept under the endpoint and repository it is for, and under the fingerprint of the
//! credential that bought it: one caller's token is never used for another, or for anonymous.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, header};
use moka::future::Cache;
use protocol::Repository;
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::{
    challenge::BearerChallenge,
    clock,
    credential::{Credential, Fingerprint, Scheme},
    error::{AnsweredBy, SourceError},
    metrics::{SourceMetrics, TokenFetch},
    request::Method,
    upstream::{Upstream, UpstreamId},
};

/// The tokens of all registries.
#[derive(Debug)]
pub(super) struct Tokens {
    outcomes: Cache<Scope, Outcome>,
    metrics: SourceMetrics,
}

/// What a token is for: `repository:<repository>:pull` at one endpoint, as one caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) upstream: UpstreamId,
    pub(super) repository: Repository,
    /// `None` for anonymous.
    pub(super) identity: Option<Fingerprint>,
}

/// Where and as whom a token is bought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purchase<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) challenge: &'a BearerChallenge,
    pub(super) credential: Option<&'a Credential>,
    /// A token that the registry did not take, so it must be another.
    pub(super) rejected: Option<&'a HeaderValue>,
}

/// How the last purchase ended.
#[derive(Debug, Clone)]
enum Outcome {
    Granted(Arc<Token>),
    /// The token server wants none of this caller.
    Refused {
        until: Instant,
    },
    Failed(SourceError),
}

#[derive(Debug)]
struct Token {
    authorization: HeaderValue,
    /// What it was bought with, to buy the next one.
    challenge: BearerChallenge,
    life: Life,
    /// When the next one was last looked for in vain, or is being looked for.
    renewed_last: Mutex<Option<Instant>>,
}

/// When a token is to be renewed, and when it is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) refresh_at: Instant,
    pub(super) expires_at: Instant,
}

/// What a token server answers; the specification has both names for the token.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Tokens kept; the least used go first.
const TOKENS_MAX: u64 = 4096;
/// The life of a token that does not tell it.
const LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// No token is kept longer.
pub(super) const LIFE_MAX: Duration = Duration::from_secs(60 * 60);
/// A refused purchase is not tried again for so long.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// How long anybody waits for the next token while the last one holds.
const RENEWAL_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked for.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);
/// The longest answer of a token server that is read, in bytes.
pub(super) const TOKEN_ANSWER_LEN_MAX: usize = 64 * 1024;

// === impl Tokens ===

impl Tokens {
    pub(super) fn new(metrics: SourceMetrics) -> Self {
        Self {
            outcomes: Cache::builder()
                .max_capacity(TOKENS_MAX)
                .time_to_live(LIFE_MAX)
                .build(),
            metrics,
        }
    }

    /// The token that is remembered for `scope`, renewed when most of its life is over.
    pub(super) async fn remembered(
        &self,
        scope: &Scope,
        upstream: &Upstream,
        credential: Option<&Credential>,
    ) -> Option<HeaderValue> {
        let Some(Outcome::Granted(token)) = self.outcomes.get(scope).await else {
            return None;
        };
        let now = clock::now();
        if now < token.life.refresh_at {
            return Some(token.authorization.clone());
        }
        let purchase = Purchase {
            upstream,
            challenge: &token.challenge,
            credential,
            rejected: None,
        };
        if token.life.expires_at <= now {
            return self.obtain(scope, purchase).await.ok().flatten();
        }
        // The token server is ill, the token is not: nobody waits for it, but a moment and rarely.
        if token.may_renew_at(now) {
            // Given up, it is asked for again by the next one whose turn it is.
            let _ = timeout(RENEWAL_WAIT, self.renew(scope, purchase, &token)).await;
        }
        match self.outcomes.get(scope).await {
            Some(Outcome::Granted(newest)) => Some(newest.authorization.clone()),
            Some(Outcome::Refused { .. } | Outcome::Failed(_)) | None => {
                Some(token.authorization.clone())
            }
        }
    }

    /// What the token for `scope` was bought with.
    pub(super) async fn challenge(&self, scope: &Scope) -> Option<BearerChallenge> {
        match self.outcomes.get(scope).await? {
            Outcome::Granted(token) => Some(token.challenge.clone()),
            Outcome::Refused { .. } | Outcome::Failed(_) => None,
        }
    }

    /// Buys the token that comes after `token`, which stays when none is to be had.
    async fn renew(&self, scope: &Scope, purchase: Purchase<'_>, token: &Arc<Token>) {
        let now = clock::now();
        let bought = async {
            match self.buy(scope, purchase).await {
                granted @ Outcome::Granted(_) => granted,
                Outcome::Refused { .. } | Outcome::Failed(_) => Outcome::Granted(Arc::clone(token)),
            }
        };
        let entry = self.outcomes.entry_by_ref(scope);
        entry
            .or_insert_with_if(bought, |outcome| outcome.is_stale(now, None))
            .await;
    }

    /// A token for `scope`; `None` when the token server refuses this caller. One purchase
    /// serves everyone who waits for it.
    pub(super) async fn obtain(
        &self,
        scope: &Scope,
        purchase: Purchase<'_>,
    ) -> Result<Option<HeaderValue>, SourceError> {
        let now = clock::now();
        let rejected = purchase.rejected.cloned();
        let entry = self
            .outcomes
            .entry_by_ref(scope)
            .or_insert_with_if(self.buy(scope, purchase), |outcome| {
                outcome.is_stale(now, rejected.as_ref())
            })
            .await;
        match entry.into_value() {
            Outcome::Granted(token) => Ok(Some(token.authorization.clone())),
            Outcome::Refused { .. } => Ok(None),
            Outcome::Failed(error) => Err(error),
        }
    }

    async fn buy(&self, scope: &Scope, purchase: Purchase<'_>) -> Outcome {
        let outcome = fetch(scope, purchase).await.unwrap_or_else(Outcome::Failed);
        self.metrics.token_fetched(match &outcome {
            Outcome::Granted(_) => TokenFetch::Granted,
            Outcome::Refused { .. } => TokenFetch::Refused,
            Outcome::Failed(_) => TokenFetch::Failed,
        });
        outcome
    }
}

// === impl Outcome ===

impl Outcome {
    fn is_stale(&self, now: Instant, rejected: Option<&HeaderValue>) -> bool {
        match self {
            Self::Granted(token) => {
                token.life.refresh_at <= now || rejected == Some(&token.authorization)
            }
            Self::Refused { until } => *until <= now,
            Self::Failed(_) => true,
        }
    }
}

// === impl Token ===

impl Token {
    /// Whether to look for the next token now. Of those who come at once, one does.
    fn may_renew_at(&self, now: Instant) -> bool {
        let mut last = self
            .renewed_last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last + RENEWAL_PAUSE <= now);
        if may {
            *last = Some(now);
        }
        may
    }
}

// === impl Life ===

impl Life {
    /// The life of a token that was asked for at `now`; the last fifth is left for renewal.
    fn new(now: Instant, told: Option<u64>) -> Self {
        let life = told.map_or(LIFE_DEFAULT, Duration::from_secs).min(LIFE_MAX);
        Self {
            refresh_at: now + life.mul_f64(0.8),
            expires_at: now + life,
        }
    }
}

async fn fetch(scope: &Scope, purchase: Purchase<'_>) -> Result<Outcome, SourceError> {
    let Purchase {
        upstream,
        challenge,
        credential,
        rejected: _,
    } = purchase;
    let default = format!("repository:{}:pull", scope.repository);
    let scopes = challenge.scope.as_deref().unwrap_or(&default);
    let url = token_url(scopes, challenge, &upstream.endpoint)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let asked_at = clock::now();
    let dialer = &upstream.dialer;
    let response = match credential {
        Some(credential) if credential.scheme() == Scheme::Refresh => {
            let (url, form) = refresh_form(url, credential)?;
            dialer.post(&url, headers, form).await?
        }
        credential => {
            if let Some(credential) = credential {
                headers.insert(header::AUTHORIZATION, credential.header().clone());
            }
            dialer.send(Method::Get, &url, headers).await?
        }
    };
    match response.status().as_u16() {
        200..=299 => {}
        400 | 401 | 403 | 404 => {
            return Ok(Outcome::Refused {
                until: asked_at + REFUSED_FOR,
            });
        }
        _ => return Err(upstream.failure(response, AnsweredBy::Elsewhere).await),
    }
    let body = upstream
        .dialer
        .body(response, None)
        .collect(TOKEN_ANSWER_LEN_MAX)
        .await?;
    let (authorization, life) = read_token(&body, asked_at)?;
    Ok(Outcome::Granted(Arc::new(Token {
        authorization,
        challenge: challenge.clone(),
        life,
        renewed_last: Mutex::default(),
    })))
}

/// The URL to ask. A password or a token goes over TLS, unless the operator gave the registry a
/// plain endpoint.
pub(super) fn token_url(
    scopes: &str,
    challenge: &BearerChallenge,
    endpoint: &Url,
) -> Result<Url, SourceError> {
    let mut url =
        Url::parse(&challenge.realm).map_err(|_| SourceError::Malformed("the realm is no URL"))?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    match url.scheme() {
        _ if has_user || !url.has_host() => {
            return Err(SourceError::Malformed("the realm is no usable URL"));
        }
        "https" => {}
        "http" if endpoint.scheme() == "http" => {}
        _ => return Err(SourceError::Malformed("the realm is not https")),
    }
    url.set_fragment(None);
    let mut query = url.query_pairs_mut();
    if let Some(service) = &challenge.service {
        query.append_pair("service", service);
    }
    for scope in scopes.split_ascii_whitespace() {
        query.append_pair("scope", scope);
    }
    drop(query);
    Ok(url)
}

/// What is posted to the token server, and where, for an identity token (RFC 6749, section 6): the
/// query that we added is the form's, and only that.
fn refresh_form(url: Url, credential: &Credential) -> Result<(Url, String), SourceError> {
    let malformed = SourceError::Malformed("the identity token is no text");
    let token = credential.header().to_str().map_err(|_| malformed)?;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("client_id", "darter");
    form.append_pair("refresh_token", token);
    let of_form = |name: &str| name == "service" || name == "scope";
    let scopes: Vec<String> = url
        .query_pairs()
        .filter(|(name, _)| name == "scope")
        .map(|(_, scope)| scope.into_owned())
        .collect();
    let service = url.query_pairs().find(|(name, _)| name == "service");
    if let Some((name, service)) = service {
        form.append_pair(&name, &service);
    }
    form.append_pair("scope", &scopes.join(" "));
    let rest: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| !of_form(name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let mut target = url.clone();
    target.set_query(None);
    if !rest.is_empty() {
        target.query_pairs_mut().extend_pairs(rest);
    }
    Ok((target, form.finish()))
}

pub(super) fn read_token(
    body: &[u8],
    asked_at: Instant,
) -> Result<(HeaderValue, Life), SourceError> {
    let malformed = SourceError::Malformed("the token server's answer holds no token");
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| malformed.clone())?;
    let told = answer
        .token
        .filter(|token| !token.is_empty())
        .or(answer.access_token);
    let token = told
        .filter(|token| !token.is_empty())
        .ok_or_else(|| malformed.clone())?;
    let mut authorization =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| malformed)?;
    authorization.set_sensitive(true);
    Ok((authorization, Life::new(asked_at, answer.expires_in)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[track_caller]
    fn url(endpoint: &str, realm: &str, asked: Option<&str>, expect: Option<&str>) {
        let challenge = BearerChallenge {
            realm: realm.to_owned(),
            service: Some("s v".to_owned()),
            scope: asked.map(ToOwned::to_owned),
        };
        let scopes = asked.unwrap_or("repository:a/b:pull");
        let seen = token_url(scopes, &challenge, &Url::parse(endpoint).unwrap()).ok();
        assert_eq!(seen.as_ref().map(Url::as_str), expect, "{realm}");
    }

    #[track_caller]
    fn token(body: &str, expect: Option<(&str, u64)>) {
        let now = clock::now();
        let seen = read_token(body.as_bytes(), now).ok();
        let seen = seen
            .as_ref()
            .map(|(value, life)| (value.to_str().unwrap(), (life.expires_at - now).as_secs()));
        assert_eq!(seen, expect, "{body}");
    }

    #[test]
    fn the_realm_keeps_its_query() {
        let expect = "https://t.example/x?a=b&service=s+v&scope=repository%3Aa%2Fb%3Apull";
        url(
            "https://r.example",
            "https://t.example/x?a=b",
            None,
            Some(expect),
        );
        let expect = "https://t.example/?service=s+v&scope=x&scope=y";
        url(
            "https://r.example",
            "https://t.example#f",
            Some("x y"),
            Some(expect),
        );
    }

    #[test]
    fn a_plain_realm_is_only_for_a_plain_endpoint() {
        url("https://r.example", "http://t.example/", None, None);
        let expect = "http://t.example/?service=s+v&scope=x";
        url(
            "http://r.example",
            "http://t.example/",
            Some("x"),
            Some(expect),
        );
        for bad in ["", "/token", "ftp://t.example", "https://u:p@t.example/"] {
            url("http://r.example", bad, None, None);
        }
    }

    #[test]
    fn an_identity_token_is_posted_and_stands_in_no_url() {
        let url = "https://t.example/x?a=b&service=s&scope=x&scope=y";
        let credential = Credential::refresh("secret&1").unwrap();
        let (target, form) = refresh_form(Url::parse(url).unwrap(), &credential).unwrap();
        assert_eq!(target.as_str(), "https://t.example/x?a=b");
        let expect = "grant_type=refresh_token&client_id=darter&refresh_token=secret%261\
                      &service=s&scope=x+y";
        assert_eq!(form, expect);
    }

    #[test]
    fn a_token_has_two_names_and_a_life() {
        token(r#"{"token":"t","expires_in":300}"#, Some(("Bearer t", 300)));
        token(r#"{"access_token":"a"}"#, Some(("Bearer a", 60)));
        token(
            r#"{"token":"","access_token":"a","issued_at":"x"}"#,
            Some(("Bearer a", 60)),
        );
        token(
            r#"{"token":"t","expires_in":99999999999}"#,
            Some(("Bearer t", 3600)),
        );
        for bad in [
            "",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":"a\nb"}"#,
            r#"{"token":7}"#,
        ] {
            token(bad, None);
        }
    }

    #[test]
    fn the_last_fifth_of_a_life_is_for_renewal() {
        let now = clock::now();
        let life = Life::new(now, Some(100));
        assert_eq!(life.refresh_at - now, Duration::from_secs(80));
        let granted = |value: &'static str| {
            let challenge = BearerChallenge {
                realm: String::new(),
                service: None,
                scope: None,
            };
            let authorization = HeaderValue::from_static(value);
            Outcome::Granted(Arc::new(Token {
                authorization,
                challenge,
                life,
                renewed_last: Mutex::default(),
            }))
        };
        assert!(!granted("a").is_stale(now + Duration::from_secs(79), None));
        assert!(granted("a").is_stale(now + Duration::from_secs(80), None));
        assert!(granted("a").is_stale(now, Some(&HeaderValue::from_static("a"))));
        assert!(!granted("a").is_stale(now, Some(&HeaderValue::from_static("b"))));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_fall(body in any::<Vec<u8>>()) {
            let _ = read_token(&body, clock::now());
        }
    }
}
