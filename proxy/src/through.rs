//! What is no pull: passed on to its registry as it is, both ways, while it arrives.
//!
//! The caller's credential is the registry's to judge. What a registry writes of its own addresses is
//! read back into the form that the caller used. Headers go on as `hop.rs` says; all else is untouched.

mod address;

use http::{HeaderValue, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use swarm::source::{PassRequest, PassResponse};

use self::address::Seen;
use crate::{
    answer::{Answer, Ask},
    body::Content,
    challenge::challenge_anew,
    error::{Fault, Refusal},
    hop,
    manifest::shelf::TagName,
    passthrough::{Passing, next_page, without_namespace},
    route::{Form, Reference, Through},
    serve::Proxy,
    upstream,
};

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn pass_through(
        &self,
        ask: &Ask,
        through: &Through,
        body: Incoming,
    ) -> Result<Answer, Refusal> {
        let seen = Seen {
            form: through.form,
            registry: &through.registry,
        };
        let mut headers = match through.form {
            Form::Forward => hop::request_headers(&ask.headers),
            Form::Ns | Form::Bare | Form::Prefix => hop::to_registry(&ask.headers),
        };
        headers.remove(header::AUTHORIZATION);
        let request = PassRequest {
            registry: through.registry.clone(),
            method: ask.method.clone(),
            path: through.path.clone(),
            query: seen.query(&without_namespace(&ask.query)),
            headers,
            credential: ask.credential.clone(),
            body: body.map_err(Into::into).boxed(),
            caller_stall: self.config().client_stall_timeout,
        };
        let passed = self.upstream.pass(request).await;
        let response = passed.map_err(|error| upstream::refusal(&error, Fault::NameUnknown))?;
        if response.status.is_success() {
            self.forget_written(through).await;
        }
        let mut answer = answer(ask, &seen, response);
        let place = (through.form, &through.registry);
        challenge_anew(ask, place, None, &mut answer.headers);
        Ok(answer)
    }

    /// A tag that was pushed or removed through here is asked for anew.
    async fn forget_written(&self, through: &Through) {
        let Some((repository, reference)) = &through.writes else {
            return;
        };
        match reference {
            Reference::Tag(tag) => {
                let name = TagName {
                    registry: through.registry.clone(),
                    repository: repository.clone(),
                    tag: tag.clone(),
                };
                self.tags.forget_written(&name).await;
            }
            // By digest it is what it is, and a tag that pointed to it is asked for in its time.
            Reference::Digest(_) => {}
        }
    }
}

fn answer(ask: &Ask, seen: &Seen<'_>, response: PassResponse) -> Answer {
    let mut headers = match seen.form {
        Form::Forward => hop::end_to_end(&response.headers),
        Form::Ns | Form::Bare | Form::Prefix => hop::from_registry(&response.headers),
    };
    let length = headers
        .remove(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let location = headers
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|location| seen.location(location, &response.endpoint));
    if let Some(location) = location.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(header::LOCATION, location);
    }
    let links = headers.get_all(header::LINK).iter();
    let links: Vec<_> = links
        .map(|value| {
            let next = value
                .to_str()
                .ok()
                .and_then(|link| next_page(link, &ask.path, &ask.query));
            next.and_then(|link| HeaderValue::from_str(&link).ok())
                .unwrap_or_else(|| value.clone())
        })
        .collect();
    headers.remove(header::LINK);
    for link in links {
        headers.append(header::LINK, link);
    }
    let passing = Passing::unbounded(response.body);
    let mut answer = Answer::new(response.status, Content::Stream(Box::pin(passing)));
    answer.headers = headers;
    answer.length = length;
    answer
}
