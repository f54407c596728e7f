//! A caller's own `Authorization`, or a login of this node, kept from every log.
//!
//! Lives in memory only. What must be remembered about one is its keyed fingerprint.

use std::{
    fmt,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::HeaderValue;
use protocol::{Repository, Right};
use serde::{Deserialize, de::DeserializeOwned};

/// The value of an `Authorization` header, or an identity token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    value: HeaderValue,
    scheme: Scheme,
}

/// What may be remembered of a credential: tells two apart, and tells nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// How a credential is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Basic,
    Bearer,
    /// An identity token: buys tokens, and is shown to the token server alone.
    Refresh,
    Other,
}

/// The end that a token's payload tells (RFC 7519, section 4.1.4).
#[derive(Deserialize)]
struct Ending {
    exp: Option<u64>,
}

/// What a token's payload says that it opens (distribution specification, "Token Authentication
/// Implementation").
#[derive(Deserialize)]
struct Opening {
    access: Vec<Opened>,
}

#[derive(Deserialize)]
struct Opened {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    actions: Vec<String>,
}

/// A new key for each process: fingerprints written down anywhere mean nothing elsewhere.
static FINGERPRINT_KEY: LazyLock<[u8; 32]> = LazyLock::new(rand::random);

// === impl Credential ===

impl Credential {
    /// The credential in an `Authorization` header. `None` for one that says nobody: an empty
    /// value, or Basic with neither user nor password (`Og==`), which some clients send always.
    pub fn from_header(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?.trim();
        let (scheme, rest) = text.split_once(' ')?;
        let rest = rest.trim();
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "basic" => Scheme::Basic,
            "bearer" => Scheme::Bearer,
            _ => Scheme::Other,
        };
        let nobody = scheme == Scheme::Basic
            && BASE64_STANDARD
                .decode(rest)
                .is_ok_and(|decoded| decoded == b":");
        if rest.is_empty() || nobody {
            return None;
        }
        let mut value = HeaderValue::from_str(text).ok()?;
        value.set_sensitive(true);
        Some(Self { value, scheme })
    }

    /// The identity token that a login gave (`refresh_token` of the distribution specification).
    pub(super) fn refresh(token: &str) -> Result<Self, &'static str> {
        let value = HeaderValue::from_str(token).ok();
        let value = value.filter(|value| !value.is_empty());
        let mut value = value.ok_or("an identity token has signs that none has")?;
        value.set_sensitive(true);
        let scheme = Scheme::Refresh;
        Ok(Self { value, scheme })
    }

    /// What Basic sends of `user:password` (RFC 7617, section 2); `None` for nobody.
    pub fn basic(user_and_password: &str) -> Option<Self> {
        let encoded = BASE64_STANDARD.encode(user_and_password);
        Self::from_header(&HeaderValue::try_from(format!("Basic {encoded}")).ok()?)
    }

    /// What another host has lent.
    pub(crate) fn of_right(right: &Right) -> Option<Self> {
        Self::from_header(&HeaderValue::from_str(right.as_str()).ok()?)
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(*blake3::keyed_hash(&FINGERPRINT_KEY, self.value.as_bytes()).as_bytes())
    }

    /// When a token that tells it ends; its signature is the registry's to check.
    pub fn expires_at(&self) -> Option<SystemTime> {
        let end = Duration::from_secs(self.payload::<Ending>()?.exp?);
        SystemTime::UNIX_EPOCH.checked_add(end)
    }

    /// Whether this is a token that says of itself that it opens nothing but a pull of `repository`.
    pub(super) fn is_only_for(&self, repository: &Repository) -> bool {
        let is_pull = |opened: &Opened| {
            opened.kind == "repository"
                && opened.name == repository.as_str()
                && opened.actions.iter().all(|action| action == "pull")
        };
        self.payload::<Opening>()
            .is_some_and(|told| !told.access.is_empty() && told.access.iter().all(is_pull))
    }

    /// Whether `bought`, which a token server gave for this password or identity token, may leave this
    /// host: it opens nothing but a pull of `repository` as far as it says what it opens, and has nothing
    /// of what bought it, as with servers that give a password back as a token.
    pub(super) fn is_kept_from(&self, bought: &HeaderValue, repository: &Repository) -> bool {
        let Some(token) = Self::from_header(bought) else {
            return false;
        };
        let secret = self.value.to_str().unwrap_or_default();
        let secret = secret.rsplit(' ').next().unwrap_or_default();
        let text = bought.to_str().unwrap_or_default();
        let text = text.rsplit(' ').next().unwrap_or_default();
        let decoded = |text: &str| BASE64_STANDARD.decode(text).unwrap_or_default();
        let pair = decoded(secret);
        let password = pair.splitn(2, |byte| *byte == b':').nth(1);
        let is_in = |secret: &[u8], text: &[u8]| {
            !secret.is_empty() && text.windows(secret.len()).any(|part| part == secret)
        };
        let plain = decoded(text);
        let has_secret = [Some(secret.as_bytes()), password]
            .into_iter()
            .flatten()
            .any(|secret| is_in(secret, text.as_bytes()) || is_in(secret, &plain));
        let is_narrow = token.payload::<Opening>().is_none() || token.is_only_for(repository);
        is_narrow && !has_secret
    }

    fn payload<T: DeserializeOwned>(&self) -> Option<T> {
        let text = self.value.to_str().ok()?;
        let (_, token) = text.split_once(' ')?;
        let payload = token.trim().split('.').nth(1)?;
        let payload = BASE64_URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .ok()?;
        serde_json::from_slice(&payload).ok()
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The header, marked sensitive: for the registry's own host, or for its token server. An
    /// identity token is none.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.value
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({:?}, hidden)", self.scheme)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(text: &str) -> Option<Credential> {
        Credential::from_header(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn nobody_is_no_credential() {
        for text in [
            "",
            "Basic",
            "Basic ",
            "Basic Og==",
            "basic  Og==",
            "Bearer ",
        ] {
            assert!(credential(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        assert_eq!(credential("bAsIc dTpw").unwrap().scheme(), Scheme::Basic);
        assert_eq!(credential("bearer abc").unwrap().scheme(), Scheme::Bearer);
        assert_eq!(credential("Negotiate abc").unwrap().scheme(), Scheme::Other);
    }

    #[test]
    fn a_token_may_tell_when_it_ends() {
        let ends = |payload: &str| {
            let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
            let end = credential(&format!("Bearer e30.{payload}.x"))?.expires_at()?;
            let since = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            Some(since.as_secs())
        };
        assert_eq!(
            ends(r#"{"exp":1700000000,"access":"all"}"#),
            Some(1_700_000_000)
        );
        for payload in ["", "{}", r#"{"exp":"x"}"#, r#"{"exp":-1}"#, "[]"] {
            assert_eq!(ends(payload), None, "{payload}");
        }
        let far = format!("{{\"exp\":{}}}", u64::MAX);
        assert_eq!(ends(&far), None);
        for text in ["Bearer opaque", "Bearer a.!.b", "Basic dTpw"] {
            assert_eq!(credential(text).unwrap().expires_at(), None, "{text}");
        }
    }

    #[test]
    fn a_token_may_tell_that_it_opens_one_repository_and_no_more() {
        let repository = "team/app".parse().unwrap();
        let check = |access: &str, expect: bool| {
            let payload = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"access\":{access}}}"));
            let credential = credential(&format!("Bearer e30.{payload}.x")).unwrap();
            assert_eq!(credential.is_only_for(&repository), expect, "{access}");
        };
        let one = r#"{"type":"repository","name":"team/app","actions":["pull"]}"#;
        check(&format!("[{one}]"), true);
        check("[]", false);
        check("{}", false);
        check(&format!("[{one},{}]", one.replace("app", "other")), false);
        check(&format!("[{}]", one.replace("pull", "push")), false);
        check(&format!("[{}]", one.replace("team/app", "team/ap")), false);
        check(
            &format!("[{}]", one.replace("repository", "registry")),
            false,
        );
        for text in ["Bearer opaque", "Basic dTpw"] {
            assert!(
                !credential(text).unwrap().is_only_for(&repository),
                "{text}"
            );
        }
    }

    #[test]
    fn a_bought_token_leaves_the_host_without_what_bought_it() {
        let repository = "team/app".parse().unwrap();
        let check = |bought: &str, expect: bool| {
            let password = Credential::basic("me:my-password").unwrap();
            let bought = HeaderValue::from_str(bought).unwrap();
            let seen = password.is_kept_from(&bought, &repository);
            assert_eq!(seen, expect, "{bought:?}");
        };
        let access = |name: &str| {
            let payload = format!(
                r#"{{"access":[{{"type":"repository","name":"{name}","actions":["pull"]}}]}}"#
            );
            format!("Bearer e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(payload))
        };
        check("Bearer opaque", true);
        check(&access("team/app"), true);
        check(&access("team/other"), false);
        check("Bearer my-password", false);
        for given in ["me:my-password", "my-password", "v1:my-password:x"] {
            check(&format!("Bearer {}", BASE64_STANDARD.encode(given)), false);
        }
        let identity = Credential::refresh("refresh-token").unwrap();
        let bought = HeaderValue::from_static("Bearer refresh-token");
        assert!(!identity.is_kept_from(&bought, &repository));
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let shown = format!(
            "{:?} {:?}",
            credential("Basic dTpw"),
            credential("Basic dTpw").unwrap().fingerprint()
        );
        assert!(!shown.contains("dTpw"), "{shown}");
        assert!(!format!("{:?}", credential("Basic dTpw").unwrap().header()).contains("dTpw"));
    }

    #[test]
    fn fingerprints_tell_credentials_apart() {
        let fingerprint = |text| credential(text).unwrap().fingerprint();
        assert_eq!(fingerprint("Basic dTpw"), fingerprint("Basic dTpw"));
        assert_ne!(fingerprint("Basic dTpw"), fingerprint("Bearer dTpw"));
    }
}
