//! Pure: which headers go on through this proxy: those of one connection never do (RFC 9110, section
//! 7.6.1), and where the caller speaks to this mirror by the mirror's own name, those alone that a
//! registry needs.
//!
//! All registries are one host to such a caller, so what is kept for a host, such as a cookie, would go
//! from one registry to another.

use http::{HeaderMap, HeaderName, header};

/// Headers of a connection, whether or not its `Connection` header names them.
const OF_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers of a request that whoever passes it on writes himself.
const OF_SENDER: [HeaderName; 3] = [header::HOST, header::EXPECT, header::CONTENT_LENGTH];

/// Headers of a request that a registry needs for what is no pull. `Via` tells it from a loop.
const FOR_REGISTRY: [HeaderName; 5] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::RANGE,
    header::USER_AGENT,
    header::VIA,
];

/// As these begin, so do others: what a body is, conditions, and the API's own.
const FAMILIES_FOR_REGISTRY: [&str; 4] = ["content-", "docker-", "if-", "oci-"];

/// Headers of an answer that are said of a host, and would be taken for said of this one.
const OF_HOST: [HeaderName; 4] = [
    header::ALT_SVC,
    HeaderName::from_static("clear-site-data"),
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
];

/// The headers of a request to this mirror that its registry is told.
pub(crate) fn to_registry(given: &HeaderMap) -> HeaderMap {
    let is_needed = |name: &HeaderName| {
        let mut families = FAMILIES_FOR_REGISTRY.iter();
        FOR_REGISTRY.contains(name) || families.any(|family| name.as_str().starts_with(family))
    };
    let headers = request_headers(given);
    let needed = headers.iter().filter(|(name, _)| is_needed(name));
    needed
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The headers of a registry's answer that who asked this mirror is told.
pub(crate) fn from_registry(given: &HeaderMap) -> HeaderMap {
    let mut headers = end_to_end(given);
    for name in OF_HOST {
        headers.remove(name);
    }
    headers
}

/// The headers of a request that go on to the server.
pub(crate) fn request_headers(given: &HeaderMap) -> HeaderMap {
    let mut headers = end_to_end(given);
    for name in OF_SENDER {
        headers.remove(name);
    }
    headers
}

/// The headers of a message that are for its other end.
pub(crate) fn end_to_end(given: &HeaderMap) -> HeaderMap {
    let mut headers = given.clone();
    let named = given.get_all(header::CONNECTION).iter();
    let named = named
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    for name in named.filter_map(|name| name.trim().parse::<HeaderName>().ok()) {
        headers.remove(name);
    }
    for name in OF_CONNECTION {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pass = fn(&HeaderMap) -> HeaderMap;

    #[track_caller]
    fn check(pass: Pass, lines: &[(&'static str, &'static str)], expect: &[&str]) {
        let given: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let seen = pass(&given);
        let mut names: Vec<_> = seen.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, expect);
    }

    #[test]
    fn what_a_connection_header_names_stays_here() {
        for pass in [request_headers as Pass, to_registry] {
            check(
                pass,
                &[
                    ("connection", "close, Content-Mine , bad name"),
                    ("content-mine", "1"),
                    ("content-type", "2"),
                ],
                &["content-type"],
            );
        }
    }

    const REQUEST: [(&str, &str); 25] = [
        ("host", "a"),
        ("expect", "100-continue"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("upgrade", "websocket"),
        ("keep-alive", "1"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "close"),
        ("authorization", "Bearer x"),
        ("content-range", "0-3"),
        ("content-type", "text/plain"),
        ("cookie", "session=1"),
        ("baggage", "trigger=api"),
        ("traceparent", "00-1-2-01"),
        ("x-meta-a", "b"),
        ("x-dragonfly-filter", "c"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("docker-distribution-api-version", "registry/2.0"),
        ("oci-tag", "v1"),
        ("if-none-match", "*"),
        ("accept", "*/*"),
        ("via", "1.1 other"),
    ];

    #[test]
    fn the_headers_of_one_connection_stay_here() {
        check(
            request_headers,
            &REQUEST,
            &[
                "accept",
                "authorization",
                "baggage",
                "content-range",
                "content-type",
                "cookie",
                "docker-distribution-api-version",
                "forwarded",
                "if-none-match",
                "oci-tag",
                "traceparent",
                "via",
                "x-dragonfly-filter",
                "x-forwarded-for",
                "x-meta-a",
            ],
        );
    }

    #[test]
    fn a_registry_is_told_what_it_needs_and_nothing_else() {
        check(
            to_registry,
            &REQUEST,
            &[
                "accept",
                "content-range",
                "content-type",
                "docker-distribution-api-version",
                "if-none-match",
                "oci-tag",
                "via",
            ],
        );
        check(
            to_registry,
            &[
                ("range", "0-1"),
                ("user-agent", "a"),
                ("accept-encoding", "br"),
            ],
            &["accept-encoding", "range", "user-agent"],
        );
    }

    #[test]
    fn what_a_registry_says_of_its_host_is_not_said_of_this_mirror() {
        check(
            from_registry,
            &[
                ("set-cookie", "session=1"),
                ("strict-transport-security", "max-age=9"),
                ("alt-svc", "h3=\":443\""),
                ("clear-site-data", "*"),
                ("keep-alive", "1"),
                ("location", "/v2/"),
                ("range", "0-9"),
                ("docker-upload-uuid", "u"),
                ("x-request-id", "7"),
            ],
            &["docker-upload-uuid", "location", "range", "x-request-id"],
        );
    }
}
