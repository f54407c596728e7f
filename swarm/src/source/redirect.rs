//! Pure: whether a redirect is followed, where to, and whether the credential may go along.
//!
//! Invariant: a credential leaves for the very scheme, host and port it was meant for and for no
//! other, and nothing goes from TLS to plain HTTP.

use http::StatusCode;
use url::Url;

use super::error::RedirectFault;

/// How many redirects of one request are followed.
pub(super) const REDIRECTS_MAX: usize = 10;

/// Whether an answer with `status` names another place to ask.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where the answer of `current` sends us, `followed` redirects having been followed before.
pub(super) fn target(
    current: &Url,
    location: Option<&str>,
    followed: usize,
) -> Result<Url, RedirectFault> {
    if REDIRECTS_MAX <= followed {
        return Err(RedirectFault::TooMany);
    }
    let location = location
        .filter(|location| !location.is_empty())
        .ok_or(RedirectFault::NoLocation)?;
    let mut target = current
        .join(location)
        .map_err(|_| RedirectFault::NoLocation)?;
    target.set_fragment(None);
    let has_user = !target.username().is_empty() || target.password().is_some();
    match (current.scheme(), target.scheme()) {
        _ if has_user || !target.has_host() => Err(RedirectFault::NoLocation),
        ("https", "http") => Err(RedirectFault::Downgrade),
        (_, "http" | "https") => Ok(target),
        _ => Err(RedirectFault::Scheme),
    }
}

/// Whether two URLs are of one scheme, host and port.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    const HERE: &str = "https://r.example/v2/a/blobs/x";

    #[track_caller]
    fn check(current: &str, location: &str, expect: Result<&str, RedirectFault>) {
        let seen = target(&Url::parse(current).unwrap(), Some(location), 0);
        assert_eq!(
            seen.as_ref().map(Url::as_str).map_err(|fault| *fault),
            expect,
            "{location}"
        );
    }

    #[test]
    fn a_location_is_relative_to_where_we_are() {
        check(HERE, "/other", Ok("https://r.example/other"));
        check(HERE, "y?z=1#f", Ok("https://r.example/v2/a/blobs/y?z=1"));
        check(HERE, "//cdn.example/y", Ok("https://cdn.example/y"));
        check(
            "http://r.example/",
            "https://s.example/",
            Ok("https://s.example/"),
        );
        check(
            "http://r.example/",
            "http://s.example/",
            Ok("http://s.example/"),
        );
    }

    #[test]
    fn a_redirect_to_something_worse_is_refused() {
        check(HERE, "http://r.example/x", Err(RedirectFault::Downgrade));
        check(HERE, "file:///etc/passwd", Err(RedirectFault::NoLocation));
        check(HERE, "ftp://r.example/x", Err(RedirectFault::Scheme));
        check(
            HERE,
            "https://u:p@r.example/x",
            Err(RedirectFault::NoLocation),
        );
        check(HERE, "https://", Err(RedirectFault::NoLocation));
        check(HERE, "", Err(RedirectFault::NoLocation));
    }

    #[test]
    fn redirects_have_an_end() {
        let here = Url::parse(HERE).unwrap();
        assert!(target(&here, Some("/x"), REDIRECTS_MAX - 1).is_ok());
        assert_eq!(
            target(&here, Some("/x"), REDIRECTS_MAX),
            Err(RedirectFault::TooMany)
        );
        assert_eq!(target(&here, None, 0), Err(RedirectFault::NoLocation));
    }

    #[test]
    fn scheme_host_and_port_make_an_origin() {
        let same = |one, other| same_origin(&Url::parse(one).unwrap(), &Url::parse(other).unwrap());
        assert!(same("https://a.example/x", "https://A.example:443/y"));
        assert!(!same("https://a.example/", "http://a.example/"));
        assert!(!same("https://a.example/", "https://b.example/"));
        assert!(!same("https://a.example/", "https://a.example:444/"));
        assert!(!same(
            "https://a.example/",
            "https://a.example.evil.example/"
        ));
    }

    proptest! {
        #[test]
        fn nothing_ever_leaves_tls(location in ".*") {
            if let Ok(target) = target(&Url::parse(HERE).unwrap(), Some(&location), 0) {
                prop_assert!(target.scheme() == "https");
            }
        }
    }
}
