//! Pure: reads what clients bring as `Authorization`, and writes it as they do.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderMap;

/// What came as `Authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    None,
    Basic {
        user: String,
        password: String,
    },
    Bearer(String),
    /// Of no form that is known.
    Other,
}

// === impl Credential ===

impl Credential {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(http::header::AUTHORIZATION) else {
            return Self::None;
        };
        let read = value.to_str().ok().and_then(|text| {
            let (scheme, rest) = text.split_once(' ')?;
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(Self::Bearer(rest.trim().to_owned()));
            }
            let told = scheme.eq_ignore_ascii_case("basic").then_some(rest)?;
            let decoded = BASE64_STANDARD.decode(told.trim()).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            let (user, password) = text.split_once(':')?;
            Some(Self::Basic {
                user: user.to_owned(),
                password: password.to_owned(),
            })
        });
        read.unwrap_or(Self::Other)
    }
}

/// `Authorization` as a client writes a user and a password.
#[must_use]
pub fn basic(user: &str, password: &str) -> String {
    let told = BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {told}")
}
