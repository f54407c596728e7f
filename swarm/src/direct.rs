//! A content straight from the source, with no store between: there is no room, the store fails in
//! the middle of a body, or the copy that is held came from another registry. Nothing is kept,
//! shared or announced.
//!
//! The last bytes of a whole body are withheld until its digest holds, as they are from the store.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use protocol::{ContentHasher, Digest};

use crate::{
    open::{How, OpenError, OpenRequest, Opened, Wanted},
    reader::{ReadError, Reader},
    sizing,
    source::{Body, ByteRange, FetchRequest, SourceError, Upstreams},
};

/// What is left of a body that has begun.
pub(crate) struct Rest {
    /// The next byte.
    pub(crate) offset: u64,
    /// Where it ends, unless with the content.
    pub(crate) end: Option<u64>,
    /// Of the whole content, as its reader was told.
    pub(crate) size: Option<u64>,
    /// What has seen all that was given, where that and the rest are the whole.
    pub(crate) given: Option<ContentHasher>,
}

/// Opens `request` at its own registry, with its own credential.
pub(crate) async fn open(upstreams: &Upstreams, request: OpenRequest) -> Result<Opened, OpenError> {
    let wanted = request.wanted;
    let satisfiable = |size| {
        let bytes = wanted.resolve(size);
        bytes.ok_or(OpenError::NotSatisfiable { size })
    };
    let (start, end) = match wanted {
        // The answer tells the size. It is asked for first where the swarm does so too: how often the
        // registry is asked must not tell that the content is held for another one.
        Wanted::Whole | Wanted::From { start: 0 } => (0, None),
        Wanted::From { .. } | Wanted::Span { .. } | Wanted::Suffix { .. } => {
            let learnt = sizing::learn(upstreams, &request).await;
            match (learnt, wanted) {
                (Ok(Some(size)), _) => {
                    let bytes = satisfiable(size)?;
                    (bytes.start, Some(bytes.end))
                }
                // What is wrong shows, with its true error, when the body is asked for.
                (Ok(None) | Err(_), Wanted::Span { start: 0, last }) => {
                    (0, Some(last.saturating_add(1)))
                }
                (Ok(None), _) => return Err(unknown_size()),
                (Err(error), _) => return Err(source_error(error)),
            }
        }
    };
    let digest = request.task.0;
    let fetch = FetchRequest {
        origin: request.origin,
        digest,
        range: ByteRange { start, end },
        credential: request.credential,
    };
    let fetched = upstreams.fetch(fetch).await.map_err(source_error)?;
    let (range, is_whole) = match (wanted, fetched.size) {
        (Wanted::Whole, size) => (0..size.unwrap_or(u64::MAX), true),
        (_, Some(size)) => (satisfiable(size)?, wanted.is_all_of(size)),
        (_, None) => {
            let is_whole = start == 0 && end.is_none();
            (start..end.unwrap_or(u64::MAX), is_whole)
        }
    };
    let stream = match is_whole {
        true => verified(fetched.body, digest, digest.hasher()),
        false => fetched.body.map_err(read_error).boxed(),
    };
    Ok(Opened {
        size: fetched.size,
        media_type: fetched.media_type,
        range,
        how: How::Source,
        reader: Reader::direct(stream),
    })
}

/// Goes on with `request` at its own registry, with its own credential.
pub(crate) async fn go_on(
    upstreams: &Upstreams,
    request: OpenRequest,
    rest: Rest,
) -> Result<Reader, ReadError> {
    let digest = request.task.0;
    let (start, end) = (rest.offset, rest.end);
    let fetch = FetchRequest {
        origin: request.origin,
        digest,
        range: ByteRange { start, end },
        credential: request.credential,
    };
    let fetched = upstreams.fetch(fetch).await.map_err(read_error)?;
    // With more bytes than were promised, those that are would be given before their hash is known.
    if rest.size.is_some() && fetched.size != rest.size {
        let changed = "the size changed between two answers";
        return Err(read_error(SourceError::Malformed(changed)));
    }
    let stream = match rest.given {
        Some(hasher) => verified(fetched.body, digest, hasher),
        None => fetched.body.map_err(read_error).boxed(),
    };
    Ok(Reader::direct(stream))
}

/// What a withheld body has in hand.
struct Withheld {
    body: Body,
    hasher: ContentHasher,
    last: Option<Bytes>,
}

/// The body with each chunk one behind, the last one only when the digest holds; `hasher` has seen
/// what came before it.
fn verified(
    body: Body,
    digest: Digest,
    hasher: ContentHasher,
) -> BoxStream<'static, Result<Bytes, ReadError>> {
    let start = Withheld {
        body,
        hasher,
        last: None,
    };
    let chunks = futures_util::stream::unfold(Some(start), move |state| async move {
        let mut held = state?;
        loop {
            match held.body.next().await {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => {
                    held.hasher.update(&chunk);
                    if let Some(before) = held.last.replace(chunk) {
                        return Some((Ok(before), Some(held)));
                    }
                }
                Some(Err(error)) => return Some((Err(read_error(error)), None)),
                None if held.hasher.finish() != digest => {
                    return Some((Err(ReadError::Corrupt), None));
                }
                None => return held.last.map(|last| (Ok(last), None)),
            }
        }
    });
    chunks.boxed()
}

fn unknown_size() -> OpenError {
    source_error(SourceError::Malformed(
        "a part is wanted of a body whose size it does not tell",
    ))
}

fn source_error(error: SourceError) -> OpenError {
    OpenError::Source(Arc::new(error))
}

fn read_error(error: SourceError) -> ReadError {
    ReadError::Source(Arc::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a body of these chunks after `given` was seen, with the digest of `whole`.
    async fn check(whole: &str, given: &str, chunks: &[&'static str], expect: &str) {
        let digest = Digest::sha256_of(whole.as_bytes());
        let mut hasher = digest.hasher();
        hasher.update(given.as_bytes());
        let chunks: Vec<_> = chunks
            .iter()
            .map(|chunk| match *chunk {
                "broken" => Err(SourceError::Malformed("broken")),
                chunk => Ok(Bytes::from(chunk)),
            })
            .collect();
        let body = Body::new(futures_util::stream::iter(chunks));
        let told: Vec<_> = verified(body, digest, hasher)
            .map(|item| match item {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(ReadError::Corrupt) => "corrupt".to_owned(),
                Err(_) => "broken".to_owned(),
            })
            .collect()
            .await;
        assert_eq!(told.join(" "), expect);
    }

    #[tokio::test]
    async fn a_body_that_holds_comes_whole() {
        check("abcdef", "", &["ab", "", "cd", "ef"], "ab cd ef").await;
        check("abcdef", "abc", &["de", "f"], "de f").await;
        check("", "", &[], "").await;
    }

    #[tokio::test]
    async fn a_body_that_does_not_hold_comes_without_its_end() {
        check("abcdef", "", &["ab", "cd", "eX"], "ab cd corrupt").await;
        check("abcdef", "", &["abcdeX"], "corrupt").await;
        check("abcdef", "", &["ab", "cd"], "ab corrupt").await;
        check("abcdef", "", &["ab", "cd", "ef", "gh"], "ab cd ef corrupt").await;
    }

    #[tokio::test]
    async fn what_was_given_before_counts() {
        check("abcdef", "abX", &["de", "f"], "de corrupt").await;
        check("abcdef", "ab", &["de", "f"], "de corrupt").await;
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_comes_without_what_is_not_verified() {
        check("abcdef", "", &["ab", "cd", "broken"], "ab broken").await;
    }
}
