//! What reads texts of registries and token servers, for any input, each with the property that it is
//! to keep: the entry points of the fuzz targets, and of the test that replays their corpora.
//!
//! Every function panics where its property does not hold.

use http::{HeaderMap, HeaderValue, header};

use super::{
    challenge::Offer,
    clock,
    token::{LIFE_MAX, read_token},
};

/// Each line of `input` is a `WWW-Authenticate`. What a bearer challenge names is not empty.
pub fn www_authenticate(input: &[u8]) {
    let values = input
        .split(|byte| *byte == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok());
    let headers: HeaderMap = values
        .map(|value| (header::WWW_AUTHENTICATE, value))
        .collect();
    let offer = Offer::of(&headers);
    assert!(!headers.is_empty() || (offer.bearer.is_none() && !offer.basic));
    if let Some(bearer) = offer.bearer {
        assert!(!bearer.realm.is_empty());
        assert!(bearer.service.is_none_or(|service| !service.is_empty()));
        assert!(bearer.scope.is_none_or(|scope| !scope.is_empty()));
    }
}

/// `input` is the body of an answer. A token is a credential that no log shows, and is renewed before
/// its end, which comes within the longest life.
pub fn token_answer(input: &[u8]) {
    let asked_at = clock::now();
    let Ok((authorization, life)) = read_token(input, asked_at) else {
        return;
    };
    assert!(authorization.is_sensitive());
    assert!(authorization.len() > "Bearer ".len());
    assert!(authorization.as_bytes().starts_with(b"Bearer "));
    assert!(asked_at <= life.refresh_at && life.refresh_at <= life.expires_at);
    assert!(life.expires_at <= asked_at + LIFE_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every file of a corpus through `target`.
    fn replay(corpus: &str, target: fn(&[u8])) {
        let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let mut count = 0;
        for entry in std::fs::read_dir(corpora.join(corpus)).unwrap() {
            let path = entry.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            let ended = std::panic::catch_unwind(|| target(&input));
            assert!(ended.is_ok(), "{} fails", path.display());
            count += 1;
        }
        assert!(count > 0, "the corpus {corpus} is empty");
    }

    #[test]
    fn every_challenge_of_the_corpus_keeps_its_property() {
        replay("www_authenticate", www_authenticate);
    }

    #[test]
    fn every_token_answer_of_the_corpus_keeps_its_property() {
        replay("token_answer", token_answer);
    }
}
