//! Pure: what a registry says of the requests that it still answers.
//!
//! Docker Hub tells it as `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`, the
//! form of draft-polli-ratelimit-headers: a number, then parameters.

use http::HeaderMap;

/// What one answer told, as far as it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RateLimit {
    /// Requests in one window.
    pub(super) limit: Option<u32>,
    /// Those of them that are left.
    pub(super) remaining: Option<u32>,
}

// === impl RateLimit ===

impl RateLimit {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let number = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            let (number, _) = value.split_once(';').unwrap_or((value, ""));
            number.trim().parse().ok()
        };
        Self {
            limit: number("ratelimit-limit"),
            remaining: number("ratelimit-remaining"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(remaining: &str, expect: Option<u32>) {
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-remaining", remaining.parse().unwrap());
        let limit = None;
        let remaining = expect;
        assert_eq!(RateLimit::of(&headers), RateLimit { limit, remaining });
    }

    #[test]
    fn the_number_is_read_and_anything_else_is_nothing() {
        check("76;w=21600", Some(76));
        check(" 0 ; w=21600", Some(0));
        check("200", Some(200));
        check("", None);
        check("-1;w=21600", None);
        check("many", None);
        check("99999999999", None);
        assert_eq!(RateLimit::of(&HeaderMap::new()), RateLimit::default());
    }
}
