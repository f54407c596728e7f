//! Pure: which headers belong to one connection and go no further (RFC 9110, section 7.6.1).

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

    #[track_caller]
    fn check(lines: &[(&'static str, &'static str)], expect: &[&str]) {
        let given: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let seen = request_headers(&given);
        let mut names: Vec<_> = seen.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, expect);
    }

    #[test]
    fn what_a_connection_header_names_stays_here() {
        check(
            &[
                ("connection", "close, X-Mine , bad name"),
                ("x-mine", "1"),
                ("x-other", "2"),
            ],
            &["x-other"],
        );
    }

    #[test]
    fn the_headers_of_one_connection_stay_here() {
        check(
            &[
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
            ],
            &["authorization", "content-range", "content-type"],
        );
    }
}
