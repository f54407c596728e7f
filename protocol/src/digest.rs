//! Content digests as the OCI image specification writes them (descriptor.md, "Digests").
//!
//! Invariant: a [`Digest`] is always one of the registered algorithms with exactly its length;
//! text is checked once, in [`Digest::from_str`].

use std::{fmt, str::FromStr};

use sha2::Digest as _;

/// A content digest: `sha256:<64 hex>` or `sha512:<128 hex>`, lower case only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

/// Why a text is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("a digest is written <algorithm>:<hex>")]
    NoAlgorithm,
    #[error("the digest algorithm must be sha256 or sha512")]
    UnknownAlgorithm,
    #[error("the digest must have exactly as many lower-case hex digits as its algorithm gives")]
    Encoded,
}

/// Hashes a body piece by piece, in order, with the algorithm of the digest it is to match.
#[derive(Clone)]
pub enum ContentHasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

// === impl Digest ===

impl Digest {
    /// The sha256 digest of `body`.
    pub fn sha256_of(body: &[u8]) -> Self {
        Self::Sha256(sha2::Sha256::digest(body).into())
    }

    /// A hasher of this digest's algorithm that has seen nothing yet.
    pub fn hasher(&self) -> ContentHasher {
        match self {
            Self::Sha256(_) => ContentHasher::Sha256(sha2::Sha256::new()),
            Self::Sha512(_) => ContentHasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Whether `body` is what this digest names.
    pub fn matches(&self, body: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(body);
        hasher.finish() == *self
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The bytes that the hex digits write.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The lower-case hex digits after the colon.
    pub fn encoded(&self) -> String {
        hex::encode(self.as_bytes())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        if encoded.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(DigestError::Encoded);
        }
        match algorithm {
            "sha256" => decode(encoded).map(Self::Sha256),
            "sha512" => decode(encoded).map(Self::Sha512),
            _ => Err(DigestError::UnknownAlgorithm),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.encoded())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl ContentHasher ===

impl ContentHasher {
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

impl fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentHasher")
    }
}

fn decode<const N: usize>(encoded: &str) -> Result<[u8; N], DigestError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(encoded, &mut bytes).map_err(|_| DigestError::Encoded)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn refuses(text: &str, expect: DigestError) {
        assert_eq!(text.parse::<Digest>(), Err(expect), "{text}");
    }

    #[test]
    fn the_empty_body_has_its_known_digest() {
        assert_eq!(Digest::sha256_of(b"").to_string(), EMPTY);
        assert!(EMPTY.parse::<Digest>().unwrap().matches(b""));
        assert!(!EMPTY.parse::<Digest>().unwrap().matches(b"x"));
    }

    #[test]
    fn a_text_that_is_no_digest_is_refused() {
        refuses("", DigestError::NoAlgorithm);
        refuses("latest", DigestError::NoAlgorithm);
        refuses("md5:00", DigestError::UnknownAlgorithm);
        refuses("sha256:", DigestError::Encoded);
        refuses(
            &EMPTY.to_uppercase().replace("SHA256", "sha256"),
            DigestError::Encoded,
        );
        refuses(&format!("{EMPTY}0"), DigestError::Encoded);
        refuses(&EMPTY.replace("sha256", "sha512"), DigestError::Encoded);
        refuses(&EMPTY.replace('e', "g"), DigestError::Encoded);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(body in any::<Vec<u8>>()) {
            let digest = Digest::sha256_of(&body);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            let mut hasher = Digest::Sha512([0; 64]).hasher();
            hasher.update(&body);
            let digest = hasher.finish();
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }

        #[test]
        fn no_text_makes_the_parser_fall(text in ".*") {
            let _ = text.parse::<Digest>();
        }
    }
}
