//! From a request to its answer: what was asked, by whom, and who in this crate answers it.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header,
    request::Parts,
};
use hyper::body::Incoming;
use protocol::{RegistryName, Repository};
use swarm::source::{Credential, Patience, Scheme};

use crate::{
    body::{AnswerBody, Content},
    challenge::challenge_anew,
    client::{Asker, ClientKind},
    error::{Fault, Refusal},
    line::Cut,
    log::Record,
    metrics::RequestKind,
    range,
    route::{Form, RegistryRequest, Resource, RouteError, Target},
    serve::Proxy,
};

/// A request as far as every kind of answer needs it.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) asker: Asker,
    pub(crate) credential: Option<Credential>,
    pub(crate) whence: Whence,
    /// Between which reloads it came.
    pub(crate) epoch: u64,
}

/// From where a request came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whence {
    /// Whether the caller is on this very host.
    pub(crate) is_local: bool,
    /// What the caller speaks: `http` or `https`.
    pub(crate) scheme: &'static str,
}

/// An answer before it is bound to its connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
    /// `Content-Length`, where the body is not at hand (HEAD, a stream).
    pub(crate) length: Option<u64>,
}

pub(crate) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

// === impl Ask ===

impl Ask {
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long a silent upstream is waited for.
    pub(crate) fn patience(&self) -> Patience {
        if self.asker.can_fall_back() {
            Patience::Short
        } else {
            Patience::Long
        }
    }

    /// Whether the request says by `ns` which registry it means.
    pub(crate) fn asker_named_its_registry(&self) -> bool {
        self.asker == Asker::Namespace
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether the caller holds what `etag` names already (RFC 9110 section 13.1.2).
    pub(crate) fn holds(&self, etag: &str) -> bool {
        let lines = self.headers.get_all(header::IF_NONE_MATCH).iter();
        let mut tags = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        tags.any(|tag| matches!(tag.trim().trim_start_matches("W/"), seen if seen == etag || seen == "*"))
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn new(status: StatusCode, content: Content) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            content,
            length: None,
        }
    }

    /// Sets a header to a text of ours or to one that was parsed; one that no header can carry is
    /// left out.
    pub(crate) fn set(&mut self, name: HeaderName, text: &str) {
        if let Ok(value) = HeaderValue::from_str(text) {
            self.headers.insert(name, value);
        }
    }
}

// === impl Proxy ===

impl Proxy {
    /// The answer to a request. Never fails: what cannot be answered is refused by the table.
    pub(crate) async fn answer(
        &self,
        parts: Parts,
        body: Incoming,
        cut: Arc<Cut>,
        whence: Whence,
    ) -> Response<AnswerBody> {
        let user_agent = parts
            .headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok());
        let client = ClientKind::of(user_agent.unwrap_or_default());
        let mut record = Record::begin(client, parts.method.clone(), Arc::clone(&self.metrics));
        let via = parts.headers.get_all(header::VIA);
        let via = via.iter().filter_map(|value| value.to_str().ok());
        let routed = match is_for_one_host(&parts) {
            true => self.config().router.route(&parts.method, &parts.uri, via),
            false => Err(RouteError::Host),
        };
        let form = match &routed {
            Ok(RegistryRequest::Read(target, _)) => target.form,
            Ok(RegistryRequest::Through(through)) => through.form,
            Ok(RegistryRequest::Token) => Form::Prefix,
            Ok(_) | Err(_) => has_namespace(parts.uri.query()),
        };
        let place = place_of(&routed);
        let credential = self
            .vouchers
            .credential(&parts.headers, place.map(|place| place.1));
        let ask = Ask {
            asker: Asker::of(form, client),
            credential: self.shown_to(place, credential.await),
            whence,
            epoch: self.rights.epoch(),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
        };
        let namespace = note(&mut record, &routed, &ask);
        let mut answer = match self.answer_routed(&ask, client, &routed, body).await {
            Ok(answer) => answer,
            Err(mut refusal) => {
                if let Some((form, registry, repository)) = place_of(&routed) {
                    challenge_anew(&ask, (form, registry), repository, &mut refusal.headers);
                }
                self.metrics.refusal(refusal.fault);
                record.fault = Some(refusal.fault);
                tracing::debug!(fault = refusal.fault.label(), reason = %refusal.message, "refused");
                refused(&refusal, ask.asker)
            }
        };
        answer
            .headers
            .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        if let Some(namespace) = namespace {
            answer.set(OCI_NAMESPACE, &namespace);
        }
        bind(answer, &ask, cut, record)
    }

    /// What is shown to the registry of `place`: a password for this mirror comes along to whatever a path
    /// names, so none goes where nothing but a pattern leads.
    fn shown_to(
        &self,
        place: Option<(Form, &RegistryName, Option<&Repository>)>,
        credential: Option<Credential>,
    ) -> Option<Credential> {
        let is_unknown = match place {
            Some((Form::Prefix, registry, _)) => !self.config().source.is_named(registry),
            Some((Form::Ns | Form::Bare | Form::Forward, ..)) | None => false,
        };
        credential.filter(|credential| !is_unknown || credential.scheme() == Scheme::Bearer)
    }

    async fn answer_routed(
        &self,
        ask: &Ask,
        client: ClientKind,
        routed: &Result<RegistryRequest, RouteError>,
        body: Incoming,
    ) -> Result<Answer, Refusal> {
        match routed.as_ref().map_err(route_refusal)? {
            RegistryRequest::Ping => match self.config().ping_challenge.to(ask, client) {
                // Whoever can go elsewhere is to stay, and say who it is.
                Some(challenge) => Ok(refused(&challenge, Asker::Direct)),
                None => Ok(ping()),
            },
            RegistryRequest::Token => self.give_token(ask, body).await,
            RegistryRequest::Connect | RegistryRequest::Write => Err(Refusal::new(
                Fault::Method,
                "a mirror is read with GET and HEAD alone; push to the registry's own name",
            )),
            RegistryRequest::Through(through) => {
                if !self.config().source.allowed(&through.registry) {
                    return Err(not_allowed(&through.registry));
                }
                self.pass_through(ask, through, body).await
            }
            RegistryRequest::Read(target, resource) => {
                if !self.config().source.allowed(&target.registry) {
                    return Err(not_allowed(&target.registry));
                }
                self.read(ask, target, resource).await
            }
        }
    }

    async fn read(
        &self,
        ask: &Ask,
        target: &Target,
        resource: &Resource,
    ) -> Result<Answer, Refusal> {
        match resource {
            Resource::Blob(digest) => self.blob(ask, target, *digest).await,
            Resource::Manifest(reference) => self.manifest(ask, target, reference).await,
            Resource::TagsList => self.list(ask, target, None).await,
            Resource::Referrers(digest) => self.list(ask, target, Some(*digest)).await,
        }
    }
}

/// The registry and the repository that are asked for, and how.
fn place_of(
    routed: &Result<RegistryRequest, RouteError>,
) -> Option<(Form, &RegistryName, Option<&Repository>)> {
    match routed {
        Ok(RegistryRequest::Read(target, _)) => {
            Some((target.form, &target.registry, Some(&target.repository)))
        }
        Ok(RegistryRequest::Through(through)) => Some((through.form, &through.registry, None)),
        Ok(
            RegistryRequest::Ping
            | RegistryRequest::Token
            | RegistryRequest::Write
            | RegistryRequest::Connect,
        )
        | Err(_) => None,
    }
}

pub(crate) fn not_allowed(registry: &RegistryName) -> Refusal {
    let message = format!(
        "{registry} is not a registry this mirror asks: add [[proxy.registry]] name = \
         \"{registry}\", or a pattern to proxy.allow"
    );
    Refusal::new(Fault::NotAllowed, message)
}

/// Writes into the log's record what the request names; gives the namespace to answer with.
fn note(
    record: &mut Record,
    routed: &Result<RegistryRequest, RouteError>,
    ask: &Ask,
) -> Option<String> {
    let (target, resource) = match routed {
        Ok(RegistryRequest::Read(target, resource)) => (target, resource),
        Ok(RegistryRequest::Ping) => {
            record.kind = RequestKind::Ping;
            return None;
        }
        Ok(RegistryRequest::Through(through)) => {
            record.kind = RequestKind::Through;
            record.registry = through.registry.to_string();
            if let Some((repository, reference)) = &through.writes {
                record.repository = repository.to_string();
                record.reference = reference.to_string();
            }
            return (through.form == Form::Ns).then(|| record.registry.clone());
        }
        Ok(RegistryRequest::Token) => {
            record.kind = RequestKind::Token;
            return None;
        }
        Ok(RegistryRequest::Write | RegistryRequest::Connect) | Err(_) => return None,
    };
    (record.kind, record.reference) = match resource {
        Resource::Blob(digest) => (RequestKind::Blob, digest.to_string()),
        Resource::Manifest(reference) => (RequestKind::Manifest, reference.to_string()),
        Resource::TagsList => (RequestKind::Tags, String::new()),
        Resource::Referrers(digest) => (RequestKind::Referrers, digest.to_string()),
    };
    record.registry = target.registry.to_string();
    record.repository = target.repository.to_string();
    let ranges = ask.headers.get_all(header::RANGE);
    let ranges = ranges.iter().filter_map(|value| value.to_str().ok());
    record.range = range::parse(ranges, None, "").told();
    (target.form == Form::Ns).then(|| record.registry.clone())
}

/// HTTP/1.1 wants one `Host` (RFC 9112, section 3.2): with another number of them, somebody before
/// this proxy may have read another request. Other versions may do without.
fn is_for_one_host(parts: &Parts) -> bool {
    let hosts = parts.headers.get_all(header::HOST).iter().count();
    hosts == 1 || (hosts == 0 && parts.version != Version::HTTP_11)
}

/// The form of a request that names no repository: an asker with `ns` is a mirror's client still.
fn has_namespace(query: Option<&str>) -> Form {
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    if pairs.any(|(key, _)| key == Cow::Borrowed("ns")) {
        Form::Ns
    } else {
        Form::Bare
    }
}

fn route_refusal(error: &RouteError) -> Refusal {
    let fault = match error {
        RouteError::NoSuchPath => Fault::NoSuchPath,
        RouteError::Name(_) | RouteError::Host => Fault::BadName,
        RouteError::Digest(..) => Fault::BadDigest,
        RouteError::Loop(_) => Fault::NotAllowed,
    };
    Refusal::new(fault, error.to_string())
}

fn ping() -> Answer {
    let mut answer = Answer::new(StatusCode::OK, Content::Full(Bytes::from_static(b"{}")));
    answer.set(header::CONTENT_TYPE, "application/json");
    answer
}

pub(crate) fn refused(refusal: &Refusal, asker: Asker) -> Answer {
    let (parts, body) = refusal.response(asker).into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        content: Content::Full(body),
        length: None,
    }
}

/// Makes the response that hyper sends. HEAD has the headers of GET and no body.
pub(crate) fn bind(
    mut answer: Answer,
    ask: &Ask,
    cut: Arc<Cut>,
    mut record: Record,
) -> Response<AnswerBody> {
    let at_hand = match &answer.content {
        Content::Empty => None,
        Content::Full(bytes) => Some(bytes.len() as u64),
        Content::Stream(_) => None,
    };
    let has_body = !matches!(
        answer.status,
        StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT
    );
    if let Some(length) = at_hand.or(answer.length).filter(|_| has_body) {
        answer.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if ask.is_head() {
        answer.content = Content::Empty;
    }
    record.status = answer.status.as_u16();
    let mut response = Response::new(AnswerBody::new(answer.content, answer.length, cut, record));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validator_in_a_list_is_found() {
        let ask = |value: &'static str| Ask {
            method: Method::GET,
            headers: HeaderMap::from_iter([(
                header::IF_NONE_MATCH,
                HeaderValue::from_static(value),
            )]),
            path: String::new(),
            query: String::new(),
            asker: Asker::Direct,
            credential: None,
            whence: Whence {
                is_local: true,
                scheme: "http",
            },
            epoch: 0,
        };
        assert!(ask("\"a\", W/\"b\"").holds("\"b\""));
        assert!(ask("*").holds("\"b\""));
        assert!(!ask("\"a\", b").holds("\"b\""));
    }
}
