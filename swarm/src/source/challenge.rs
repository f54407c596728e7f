//! Pure: what a `WWW-Authenticate` asks for (RFC 9110, section 11.6.1; the distribution
//! specification's token flow).
//!
//! Several challenges may come in one header or in several, in any order and quoting. A header
//! that cannot be read hides no other.

use http::{HeaderMap, header};
use http_auth::{ChallengeParser, ChallengeRef};

/// What the registry offers to accept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    pub bearer: Option<BearerChallenge>,
    pub basic: bool,
}

/// Where a token is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BearerChallenge {
    /// The URL of the token server, perhaps with a query of its own.
    pub realm: String,
    pub service: Option<String>,
    pub scope: Option<String>,
}

/// The most challenges of one header that are looked at.
const CHALLENGES_MAX: usize = 16;

// === impl Offer ===

impl Offer {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut offer = Self::default();
        for value in headers.get_all(header::WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            // The parser stops at the first fault; what it gave before holds.
            let text = single_spaced(text);
            let challenges = ChallengeParser::new(&text)
                .map_while(Result::ok)
                .take(CHALLENGES_MAX);
            for challenge in challenges {
                offer.add(&challenge);
            }
        }
        offer
    }

    fn add(&mut self, challenge: &ChallengeRef<'_>) {
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            self.basic = true;
        }
        if challenge.scheme.eq_ignore_ascii_case("bearer") && self.bearer.is_none() {
            self.bearer = BearerChallenge::read(challenge);
        }
    }
}

// === impl BearerChallenge ===

impl BearerChallenge {
    /// `None` without a realm.
    fn read(challenge: &ChallengeRef<'_>) -> Option<Self> {
        let parameter = |name: &str| {
            let (_, value) = challenge
                .params
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(value.to_unescaped()).filter(|value| !value.is_empty())
        };
        Some(Self {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        })
    }
}

/// `text` with one space for every run of them outside of quotes: the standard allows several
/// after the scheme, the parser one.
fn single_spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    let (mut quoted, mut escaped, mut space) = (false, false, false);
    for letter in text.chars() {
        let is_space = letter == ' ' && !quoted;
        if !(is_space && space) {
            spaced.push(letter);
        }
        quoted ^= letter == '"' && !escaped;
        escaped = letter == '\\' && quoted && !escaped;
        space = is_space;
    }
    spaced
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::{any, proptest};

    use super::*;

    /// Renders the offer in `values`: `basic`, and `realm|service|scope` of the bearer.
    #[track_caller]
    fn check(values: &[&str], expect: &str) {
        let offer = Offer::of(&headers(values.iter().map(|value| value.as_bytes())));
        let mut seen = Vec::new();
        if offer.basic {
            seen.push("basic".to_owned());
        }
        if let Some(bearer) = offer.bearer {
            let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            seen.push(format!(
                "{}|{}|{}",
                bearer.realm,
                or_none(bearer.service),
                or_none(bearer.scope)
            ));
        }
        assert_eq!(seen.join(" "), expect, "{values:?}");
    }

    fn headers<'a>(values: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(header::WWW_AUTHENTICATE, value);
            }
        }
        headers
    }

    #[test]
    fn a_bearer_challenge_is_read_in_any_form() {
        check(
            &[r#"Bearer realm="https://t/x?a=b",service="s",scope="repository:a:pull""#],
            "https://t/x?a=b|s|repository:a:pull",
        );
        check(
            &[r#"bearer  scope="repository:a:pull,push" , SERVICE=s, realm="https://t""#],
            "https://t|s|repository:a:pull,push",
        );
        check(&[r#"Bearer realm="https://t""#], "https://t|-|-");
        check(
            &[r#"Bearer realm="https://t",service="",error="insufficient_scope""#],
            "https://t|-|-",
        );
        check(&[r#"Bearer realm="a\"b""#], r#"a"b|-|-"#);
    }

    #[test]
    fn several_challenges_are_all_seen() {
        check(
            &[r#"Basic realm="b", Bearer realm="https://t",service="s""#],
            "basic https://t|s|-",
        );
        check(
            &[r#"Bearer realm="https://t""#, r#"Basic realm="b""#],
            "basic https://t|-|-",
        );
        check(
            &[r#"Negotiate"#, r#"Bearer realm="https://t""#],
            "https://t|-|-",
        );
        check(&[r#"Basic realm="b", garbage ="#, "Basic realm=c"], "basic");
        check(&["\u{e9}", r#"Basic realm="b""#], "basic");
    }

    #[test]
    fn no_realm_is_no_bearer() {
        check(&[], "");
        check(&[r#"Bearer service="s""#], "");
        check(&["Bearer"], "");
        check(&[r#"Bearer realm="""#], "");
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_fall(values in proptest::collection::vec(any::<Vec<u8>>(), 0..4)) {
            Offer::of(&headers(values.iter().map(Vec::as_slice)));
        }

        #[test]
        fn no_almost_right_header_makes_the_parser_fall(text in r#"(Bearer|Basic|[a-z]{0,3})?([ ,="\\]|realm|service|scope|[a-z]){0,40}"#) {
            Offer::of(&headers(std::iter::once(text.as_bytes())));
        }
    }
}
