//! The body of an answer: it writes the log line when it ends, however it ends, and a body whose
//! bytes run out before their end is cut, never ended as if it were whole.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};

use crate::{
    activity::Answering,
    error::Fault,
    line::{Cut, Ending},
    log::{BytesBy, Record},
};

/// What an answer sends.
pub(crate) enum Content {
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn ContentStream>>),
}

/// Bytes that are still on their way.
pub trait ContentStream: Stream<Item = Result<Bytes, BrokenOff>> + Send {
    /// Where the bytes that were yielded came from.
    fn served(&self) -> BytesBy;
}

/// Why a stream has no more bytes although it has not reached its end.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct BrokenOff {
    /// What it is to the one who asked, where the answer has not begun yet.
    pub fault: Fault,
    pub reason: String,
}

/// The body that hyper sends.
pub(crate) struct AnswerBody {
    content: Content,
    /// Bytes still to come, where that is known.
    remaining: Option<u64>,
    cut: Arc<Cut>,
    record: Record,
    is_cut: bool,
    answering: Option<Answering>,
}

/// A body on a stream of its own ends before its end.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body is cut short")]
pub(crate) struct CutShort;

// === impl Content ===

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

// === impl AnswerBody ===

impl AnswerBody {
    /// `length` is what the headers promise of a stream.
    pub(crate) fn new(
        content: Content,
        length: Option<u64>,
        cut: Arc<Cut>,
        record: Record,
    ) -> Self {
        let remaining = match &content {
            Content::Empty => Some(0),
            Content::Full(bytes) => Some(bytes.len() as u64),
            Content::Stream(_) => length,
        };
        Self {
            content,
            remaining,
            cut,
            record,
            is_cut: false,
            answering: None,
        }
    }

    /// With it the request is over.
    pub(crate) fn ends(&mut self, answering: Answering) {
        self.answering = Some(answering);
    }

    /// Stops the answer where it is. Nothing wakes the body again where the connection is about to
    /// end; a stream of its own ends with an error.
    fn cut_off(&mut self, fault: Fault, why: &str) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        self.is_cut = true;
        self.record.cut(fault, why);
        match self.cut.ask() {
            Ending::Fin => Poll::Pending,
            Ending::Reset => Poll::Ready(Some(Err(CutShort))),
        }
    }

    fn data(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        self.record.sent(bytes.len() as u64);
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if self.is_cut {
            return Poll::Pending;
        }
        let this = &mut *self;
        let next = match std::mem::replace(&mut this.content, Content::Empty) {
            Content::Empty => return Poll::Ready(None),
            Content::Full(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Content::Full(bytes) => return this.data(bytes),
            Content::Stream(mut stream) => {
                let next = stream.as_mut().poll_next(context);
                this.content = Content::Stream(stream);
                next
            }
        };
        match next {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(bytes))) => this.data(bytes),
            Poll::Ready(Some(Err(broken))) => this.cut_off(broken.fault, &broken.reason),
            Poll::Ready(None) if this.remaining.is_some_and(|remaining| remaining > 0) => this
                .cut_off(
                    Fault::Failing,
                    "the source ended before the promised length",
                ),
            Poll::Ready(None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let served = match &self.content {
            Content::Stream(stream) => stream.served(),
            Content::Empty | Content::Full(_) => BytesBy::default(),
        };
        self.record.finish(served);
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody")
            .field("content", &self.content)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}
