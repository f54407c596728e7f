//! One request at one endpoint: anonymously first, then, only when refused, as the caller.

use super::{
    challenge::Offer,
    credential::{Credential, Scheme},
    error::{Answer, SourceError},
    metrics::SourceMetrics,
    refusal::Refusals,
    request::{Access, UpstreamRequest, UpstreamResponse},
    token::{Purchase, Scope, Tokens},
    upstream::Upstream,
};

/// What was learned of the rights at all endpoints.
#[derive(Debug)]
pub(super) struct Rights {
    tokens: Tokens,
    refusals: Refusals,
}

// === impl Rights ===

impl Rights {
    pub(super) fn new(metrics: SourceMetrics) -> Self {
        Self {
            tokens: Tokens::new(metrics),
            refusals: Refusals::new(),
        }
    }

    /// The answer of `upstream` to `request`, by the least right that it takes.
    pub(super) async fn ask(
        &self,
        upstream: &Upstream,
        request: &UpstreamRequest,
    ) -> Result<UpstreamResponse, SourceError> {
        let place = (upstream.id.clone(), request.repository.clone());
        if let Some(credential) = &request.credential
            && let Some(refusal) = self.refusals.recent(&place).await
        {
            return self.as_caller(upstream, request, credential, refusal).await;
        }
        let refusal = match self.as_nobody(upstream, request).await {
            Err(SourceError::Refused(answer)) => answer,
            other => return other,
        };
        let Some(credential) = &request.credential else {
            return Err(SourceError::Refused(refusal));
        };
        let answered = self
            .as_caller(upstream, request, credential, refusal.clone())
            .await;
        if answered.is_ok() {
            self.refusals.remember(place, refusal).await;
        }
        answered
    }

    /// With the remembered anonymous token or none; when refused, with a new one.
    async fn as_nobody(
        &self,
        upstream: &Upstream,
        request: &UpstreamRequest,
    ) -> Result<UpstreamResponse, SourceError> {
        let scope = scope(upstream, request, None);
        let remembered = self.tokens.remembered(&scope, upstream, None).await;
        let refusal = match upstream
            .attempt(request, remembered.as_ref(), Access::Anonymous)
            .await
        {
            Err(SourceError::Refused(answer)) => answer,
            other => return other,
        };
        let Some(challenge) = Offer::of(&refusal.headers).bearer else {
            return Err(SourceError::Refused(refusal));
        };
        let purchase = Purchase {
            upstream,
            challenge: &challenge,
            credential: None,
            rejected: remembered.as_ref(),
        };
        match self.tokens.obtain(&scope, purchase).await? {
            Some(token) => {
                upstream
                    .attempt(request, Some(&token), Access::Anonymous)
                    .await
            }
            None => Err(SourceError::Refused(refusal)),
        }
    }

    /// With the caller's credential: as it is, or, where the registry takes tokens alone, with
    /// the token that a password buys.
    async fn as_caller(
        &self,
        upstream: &Upstream,
        request: &UpstreamRequest,
        credential: &Credential,
        refusal: Box<Answer>,
    ) -> Result<UpstreamResponse, SourceError> {
        let offer = Offer::of(&refusal.headers);
        let challenge = match (credential.scheme(), offer.bearer) {
            (Scheme::Basic, Some(challenge)) if !offer.basic => challenge,
            (Scheme::Basic | Scheme::Bearer | Scheme::Other, _) => {
                return upstream
                    .attempt(request, Some(credential.header()), Access::Caller)
                    .await;
            }
        };
        let scope = scope(upstream, request, Some(credential));
        let rejected = self
            .tokens
            .remembered(&scope, upstream, Some(credential))
            .await;
        if let Some(token) = &rejected {
            match upstream.attempt(request, Some(token), Access::Caller).await {
                Err(SourceError::Refused(_)) => {}
                other => return other,
            }
        }
        let rejected = rejected.as_ref();
        let purchase = Purchase {
            upstream,
            challenge: &challenge,
            credential: Some(credential),
            rejected,
        };
        match self.tokens.obtain(&scope, purchase).await? {
            Some(token) => {
                upstream
                    .attempt(request, Some(&token), Access::Caller)
                    .await
            }
            None => Err(SourceError::Refused(refusal)),
        }
    }
}

fn scope(upstream: &Upstream, request: &UpstreamRequest, credential: Option<&Credential>) -> Scope {
    Scope {
        upstream: upstream.id.clone(),
        repository: request.repository.clone(),
        identity: credential.map(Credential::fingerprint),
    }
}
