//! A right to read at a registry, as one host lends it to another: over mutual TLS alone, for one task,
//! and kept from every log.

use std::fmt;

/// The value of an `Authorization` header with a token, as token servers give them: `Bearer …`. A
/// password is never lent.
#[derive(Clone, PartialEq, Eq)]
pub struct Right(String);

/// The longest right, in bytes: tokens of some clouds take 8 KiB.
pub const RIGHT_LEN_MAX: usize = 16 * 1024;

// === impl Right ===

impl Right {
    /// `None` for what is no bearer token, or too long for one.
    pub fn bearer(text: &str) -> Option<Self> {
        let (scheme, token) = text.split_once(' ')?;
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let holds = scheme.eq_ignore_ascii_case("bearer") && is_token;
        (holds && text.len() <= RIGHT_LEN_MAX).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Right(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_lent_and_a_password_is_not() {
        assert!(Right::bearer("Bearer abc.def").is_some());
        assert!(Right::bearer("bearer x").is_some());
        let long = format!("Bearer {}", "x".repeat(RIGHT_LEN_MAX));
        for text in [
            "",
            "Bearer",
            "Bearer ",
            "Basic dTpw",
            "Bearer a b",
            "Bearer a\n",
            &long,
        ] {
            assert!(Right::bearer(text).is_none(), "{text}");
        }
        let shown = format!("{:?}", Right::bearer("Bearer secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
