//! Lists that are passed through as the upstream gives them: tags and referrers.
//!
//! Only what a client of the list needs is passed on, and a `Link` to the next page leads back here.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use protocol::Digest;
use swarm::{
    ReadError,
    source::{Body, Method, Redirects, Resource, UpstreamRequest},
};

use crate::{
    answer::{Answer, Ask},
    body::{BrokenOff, Content, ContentStream},
    error::{Fault, Refusal},
    log::BytesBy,
    route::Target,
    serve::Proxy,
    upstream,
};

/// A body on its way from the upstream, no longer than the bound.
pub(crate) struct Passing {
    body: Body,
    passed: u64,
    len_max: u64,
}

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

// === impl Proxy ===

impl Proxy {
    /// The tags of a repository, or where a digest is given, what refers to it.
    pub(crate) async fn list(
        &self,
        ask: &Ask,
        target: &Target,
        referred: Option<Digest>,
    ) -> Result<Answer, Refusal> {
        let query = without_namespace(&ask.query);
        let (resource, missing) = match referred {
            Some(digest) => (
                Resource::Referrers { digest, query },
                Fault::ManifestUnknown,
            ),
            None => (Resource::TagsList { query }, Fault::NameUnknown),
        };
        let request = UpstreamRequest {
            method: if ask.is_head() {
                Method::Head
            } else {
                Method::Get
            },
            registry: target.registry.clone(),
            repository: target.repository.clone(),
            resource,
            range: None,
            credential: ask.credential.clone(),
            redirects: Redirects::Follow,
        };
        let sent = self.upstream.send(request, ask.patience()).await;
        let response = sent.map_err(|error| upstream::refusal(&error, missing))?;
        let len_max = self.config().manifest_len_max as u64;
        if response
            .content_length
            .is_some_and(|length| len_max < length)
        {
            let message = format!("the upstream's list is longer than {len_max} bytes");
            return Err(Refusal::new(Fault::TooLarge, message));
        }
        let passing = Passing {
            body: response.body,
            passed: 0,
            len_max,
        };
        let mut answer = Answer::new(response.status, Content::Stream(Box::pin(passing)));
        answer.length = response.content_length;
        answer.headers = passed_on(&response.headers, ask);
        Ok(answer)
    }
}

// === impl Passing ===

impl Passing {
    /// A body that is the registry's affair alone.
    pub(crate) fn unbounded(body: Body) -> Self {
        Self {
            body,
            passed: 0,
            len_max: u64::MAX,
        }
    }
}

impl Stream for Passing {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.body.poll_next_unpin(context));
        Poll::Ready(next.map(|chunk| {
            let chunk =
                chunk.map_err(|error| upstream::broken_off(&ReadError::Source(Arc::new(error))))?;
            self.passed += chunk.len() as u64;
            if self.len_max < self.passed {
                let (fault, reason) = (
                    Fault::TooLarge,
                    "the upstream's list is too long".to_owned(),
                );
                return Err(BrokenOff { fault, reason });
            }
            Ok(chunk)
        }))
    }
}

impl ContentStream for Passing {
    fn served(&self) -> BytesBy {
        BytesBy {
            source: self.passed,
            ..BytesBy::default()
        }
    }
}

fn passed_on(given: &HeaderMap, ask: &Ask) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in [header::CONTENT_TYPE, OCI_FILTERS_APPLIED, header::WARNING] {
        if let Some(value) = given.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    for value in given.get_all(header::LINK) {
        let link = value
            .to_str()
            .ok()
            .and_then(|link| next_page(link, &ask.path, &ask.query));
        if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
            headers.append(header::LINK, link);
        }
    }
    headers
}

/// The link to the next page (RFC 8288), told for the path that the client asked for and with the
/// `ns` that it used. Whatever host and path the upstream wrote, the next page is of this list.
pub(crate) fn next_page(link: &str, path: &str, query: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').map(str::trim).any(|parameter| {
        parameter
            .strip_prefix("rel=")
            .is_some_and(|rel| rel.trim_matches('"') == "next")
    });
    let (_, next_query) = target.split_once('?').filter(|_| is_next)?;
    let next_query = next_query.split('#').next().unwrap_or_default();
    let namespace = query.split('&').find(|pair| pair.starts_with("ns="));
    let namespace = namespace.map(|pair| format!("&{pair}")).unwrap_or_default();
    let next_query = without_namespace(next_query);
    Some(format!("<{path}?{next_query}{namespace}>; rel=\"next\""))
}

/// The query as the upstream is to see it: `ns` is for this proxy.
pub(crate) fn without_namespace(query: &str) -> String {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.starts_with("ns="))
        .collect();
    kept.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(link: &str, path: &str, query: &str, expect: Option<&str>) {
        assert_eq!(next_page(link, path, query).as_deref(), expect, "{link}");
    }

    #[test]
    fn the_next_page_is_asked_of_this_proxy() {
        let path = "/v2/ghcr.io/a/b/tags/list";
        let expect = Some("</v2/ghcr.io/a/b/tags/list?last=x&n=2>; rel=\"next\"");
        check(
            "</v2/a/b/tags/list?last=x&n=2>; rel=\"next\"",
            path,
            "n=2",
            expect,
        );
        check(
            "<https://ghcr.io/v2/a/b/tags/list?last=x&n=2>; rel=next",
            path,
            "",
            expect,
        );
        check("<?last=x&n=2>;rel=\"next\"", path, "", expect);
        let expect = Some("</v2/a/tags/list?n=2&ns=quay.io>; rel=\"next\"");
        check(
            "</v2/a/tags/list?n=2>; rel=\"next\"",
            "/v2/a/tags/list",
            "ns=quay.io&n=2",
            expect,
        );
    }

    #[test]
    fn other_links_are_left_out() {
        for link in [
            "",
            "<a",
            "</v2/a?n=1>",
            "</v2/a?n=1>; rel=\"prev\"",
            "</v2/a>; rel=\"next\"",
        ] {
            check(link, "/v2/a/tags/list", "", None);
        }
    }

    #[test]
    fn the_namespace_is_not_for_the_upstream() {
        assert_eq!(
            without_namespace("ns=quay.io&n=5&last=a%20b"),
            "n=5&last=a%20b"
        );
        assert_eq!(without_namespace("ns=quay.io"), "");
        assert_eq!(without_namespace(""), "");
    }
}
