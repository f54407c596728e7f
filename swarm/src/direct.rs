//! A content straight from the source, with no store between: there is no room, or the copy that
//! is held came from another registry. Nothing is kept, shared or announced.
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

/// Opens `request` at its own registry, with its own credential.
pub(crate) async fn open(upstreams: &Upstreams, request: OpenRequest) -> Result<Opened, OpenError> {
    let (range, is_whole) = match request.wanted {
        Wanted::Whole => {
            let (start, end) = (0, None);
            (ByteRange { start, end }, true)
        }
        wanted => {
            let learnt = sizing::learn(upstreams, &request).await;
            let size = learnt.map_err(source_error)?.ok_or_else(unknown_size)?;
            let bytes = wanted
                .resolve(size)
                .ok_or(OpenError::NotSatisfiable { size })?;
            let (start, end) = (bytes.start, Some(bytes.end));
            (ByteRange { start, end }, wanted.is_all_of(size))
        }
    };
    let digest = request.task.0;
    let fetch = FetchRequest {
        origin: request.origin,
        digest,
        range,
        credential: request.credential,
    };
    let fetched = upstreams.fetch(fetch).await.map_err(source_error)?;
    let end = range.end.or(fetched.size).unwrap_or(u64::MAX);
    let stream = match is_whole {
        true => verified(fetched.body, digest),
        false => fetched.body.map_err(read_error).boxed(),
    };
    Ok(Opened {
        size: fetched.size,
        media_type: fetched.media_type,
        range: range.start..end,
        how: How::Source,
        reader: Reader::direct(stream),
    })
}

/// What a withheld body has in hand.
struct Withheld {
    body: Body,
    hasher: ContentHasher,
    last: Option<Bytes>,
}

/// The body with each chunk one behind, the last one only when the digest holds.
fn verified(body: Body, digest: Digest) -> BoxStream<'static, Result<Bytes, ReadError>> {
    let start = Withheld {
        body,
        hasher: digest.hasher(),
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
