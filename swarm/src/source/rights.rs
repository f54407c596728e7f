//! One request at one endpoint: anonymously first, then, only when refused, as the caller, then as
//! this node.
//!
//! A caller without a credential gets what this node's login opens, so one whose credential is
//! refused gets it as well: he would only have to leave it out.

use protocol::{Repository, Right};

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

/// What a request may be answered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    All,
    /// What anybody may read.
    Nobody,
}

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
        means: Means,
    ) -> Result<UpstreamResponse, SourceError> {
        let place = (upstream.id.clone(), request.repository.clone());
        let credential = match means {
            Means::All => request.credential.as_ref(),
            Means::Nobody => None,
        };
        let known = match credential {
            Some(_) => self.refusals.recent(&place).await,
            None => None,
        };
        let is_known = known.is_some();
        let has_more = means == Means::All && (credential.is_some() || upstream.login.is_some());
        let refusal = match known {
            Some(refusal) => refusal,
            None => match self.as_nobody(upstream, request).await {
                Err(SourceError::Refused(answer)) => answer,
                // Some registries hide from strangers that there is anything.
                Err(SourceError::Status(answer)) if has_more && answer.is_not_found() => answer,
                other => return other,
            },
        };
        let answered = match credential {
            Some(credential) => {
                let refusal = refusal.clone();
                self.as_caller(upstream, request, credential, refusal).await
            }
            None => Err(SourceError::Refused(refusal.clone())),
        };
        let answered = match (answered, means) {
            (Err(no), Means::All) if is_no(&no, &refusal) => {
                self.as_node(upstream, request, refusal.clone(), no).await
            }
            (answered, _) => answered,
        };
        match answered {
            // Who is told what to show is to show it: his token may have ended.
            Err(SourceError::Refused(told)) if told.challenges().next().is_some() => {
                Err(SourceError::Refused(told))
            }
            // To whom it is hidden it is not there, whatever he has shown.
            Err(no) if refusal.is_not_found() && is_no(&no, &refusal) => {
                Err(SourceError::Status(refusal))
            }
            Ok(response) => {
                if !is_known && credential.is_some() {
                    self.refusals.remember(place, refusal).await;
                }
                Ok(response)
            }
            Err(error) => Err(error),
        }
    }

    /// A bearer token for `repository` by `credential`, where anonymous was refused a moment ago.
    pub(super) async fn lendable(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        credential: &Credential,
    ) -> Option<Right> {
        let place = (upstream.id.clone(), repository.clone());
        self.refusals.recent(&place).await?;
        let bought = match credential.scheme() {
            Scheme::Bearer if credential.is_only_for(repository) => {
                return Right::bearer(credential.header().to_str().ok()?);
            }
            Scheme::Basic | Scheme::Refresh => {
                let scope = scope(upstream, repository, Some(credential));
                let remembered = self.tokens.remembered(&scope, upstream, Some(credential));
                let bought = remembered.await?;
                credential
                    .is_kept_from(&bought, repository)
                    .then_some(bought)?
            }
            // Nobody here knows what else it opens.
            Scheme::Bearer | Scheme::Other => return None,
        };
        Right::bearer(bought.to_str().ok()?)
    }

    /// With this node's login, if it has one; where it is refused, with the one that is then there
    /// in its place. Gives `last`, what the caller was told, where none is taken.
    async fn as_node(
        &self,
        upstream: &Upstream,
        request: &UpstreamRequest,
        refusal: Box<Answer>,
        last: SourceError,
    ) -> Result<UpstreamResponse, SourceError> {
        let Some(login) = &upstream.login else {
            return Err(last);
        };
        let mut rejected = None;
        while let Some(credential) = login.credential(rejected).await {
            let seen = self.as_caller(upstream, request, &credential, refusal.clone());
            match seen.await {
                Err(no) if is_no(&no, &refusal) && rejected.is_none() => {
                    rejected = Some(credential.fingerprint());
                }
                Err(no) if is_no(&no, &refusal) => break,
                other => return other,
            }
        }
        Err(last)
    }

    /// With the remembered anonymous token or none; when refused, with a new one.
    async fn as_nobody(
        &self,
        upstream: &Upstream,
        request: &UpstreamRequest,
    ) -> Result<UpstreamResponse, SourceError> {
        let scope = scope(upstream, &request.repository, None);
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

    /// With a credential: as it is, or, where the registry takes tokens alone, with
    /// the token that a password buys.
    async fn as_caller(
        &self,
        upstream: &Upstream,
        request: &UpstreamRequest,
        credential: &Credential,
        refusal: Box<Answer>,
    ) -> Result<UpstreamResponse, SourceError> {
        let offer = Offer::of(&refusal.headers);
        let bearer = match offer.bearer {
            // It was an anonymous token that was refused.
            None if !offer.basic => {
                let anonymous = scope(upstream, &request.repository, None);
                self.tokens.challenge(&anonymous).await
            }
            offered => offered,
        };
        let challenge = match (credential.scheme(), bearer) {
            (Scheme::Basic, Some(challenge)) if !offer.basic => challenge,
            (Scheme::Refresh, Some(challenge)) => challenge,
            (Scheme::Refresh, None) => return Err(SourceError::Refused(refusal)),
            (Scheme::Basic | Scheme::Bearer | Scheme::Other, _) => {
                return upstream
                    .attempt(request, Some(credential.header()), Access::Caller)
                    .await;
            }
        };
        let scope = scope(upstream, &request.repository, Some(credential));
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

/// Whether `error` is a no to who asks, where strangers were answered by `refusal`.
fn is_no(error: &SourceError, refusal: &Answer) -> bool {
    matches!(error, SourceError::Refused(_)) || (refusal.is_not_found() && error.is_no())
}

fn scope(upstream: &Upstream, repository: &Repository, credential: Option<&Credential>) -> Scope {
    Scope {
        upstream: upstream.id.clone(),
        repository: repository.clone(),
        identity: credential.map(Credential::fingerprint),
    }
}
