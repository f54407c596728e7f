//! Sends several parts of a blob in one body, one after the other, each as a range of its own is sent.
//!
//! A few parts are opened ahead of the one that is sent, so that what they lack is on its way; their
//! bytes are read when it is their turn. A part that cannot be opened, or ends early, ends the body
//! there: what comes after it would be taken for its rest.

mod framing;

use std::{
    collections::VecDeque,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    FutureExt, Stream,
    future::{BoxFuture, MaybeDone, maybe_done},
};
use swarm::{
    open::{OpenError, Wanted},
    source::Patience,
};

pub(crate) use self::framing::{BLOB_TYPE, Framing};
use crate::{
    body::{BrokenOff, ContentStream},
    door::Door,
    engine::OpenContent,
    error::Fault,
    log::BytesBy,
};

/// Parts on their way to being read.
pub(crate) struct Byteranges {
    door: Arc<Door>,
    framing: Framing,
    /// The next parts, opened or about to be.
    ahead: VecDeque<Opening>,
    /// The part that is sent, or is next.
    turn: usize,
    sending: Option<Part>,
    is_over: bool,
    /// Where the parts that were sent came from.
    served: BytesBy,
}

/// The part that is sent.
struct Part {
    stream: Pin<Box<dyn ContentStream>>,
    remaining: u64,
}

type Opening = MaybeDone<BoxFuture<'static, Result<OpenContent, OpenError>>>;

/// Parts that are opened at once. The swarm tells other hosts of no more than a few that are wanted of
/// one content, and asks a registry for no more at once.
const AHEAD_MAX: usize = 4;

// === impl Byteranges ===

impl Byteranges {
    /// `first` is the first part of `framing`, opened.
    pub(crate) fn new(door: Door, framing: Framing, first: OpenContent) -> Self {
        Self {
            door: Arc::new(door),
            framing,
            ahead: VecDeque::from([MaybeDone::Done(Ok(first))]),
            turn: 0,
            sending: None,
            is_over: false,
            served: BytesBy::default(),
        }
    }

    fn open_ahead(&mut self, context: &mut Context<'_>) {
        let under_way = self.turn + usize::from(self.sending.is_some());
        for index in under_way + self.ahead.len()..self.turn + AHEAD_MAX {
            let Some(part) = self.framing.parts().get(index) else {
                break;
            };
            let (door, wanted) = (Arc::clone(&self.door), span(part));
            // The answer has begun: nobody can go elsewhere with it any more.
            let opening = async move { door.open(wanted, Patience::Long).await };
            self.ahead.push_back(maybe_done(opening.boxed()));
        }
        for opening in &mut self.ahead {
            // What they come to is looked at when it is their turn.
            let _ = opening.poll_unpin(context);
        }
    }

    /// Begins the part whose turn it is; gives what comes before its bytes.
    fn begin(&mut self, opened: Result<OpenContent, OpenError>) -> Result<Bytes, BrokenOff> {
        let opened = opened.map_err(|error| {
            let refusal = self.door.refusal(&error);
            BrokenOff {
                fault: refusal.fault,
                reason: refusal.message,
            }
        })?;
        let expected = self.framing.parts().get(self.turn);
        let head = self.framing.head(self.turn);
        let Some(head) = head.filter(|_| expected == Some(&opened.range)) else {
            return Err(ended_early("the size changed between two parts"));
        };
        self.sending = Some(Part {
            remaining: opened.range.end - opened.range.start,
            stream: opened.stream,
        });
        Ok(head.into())
    }

    fn leave(&mut self) {
        if let Some(part) = self.sending.take() {
            self.served += part.stream.served();
            self.turn += 1;
        }
    }
}

impl Stream for Byteranges {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            this.open_ahead(context);
            if let Some(part) = &mut this.sending {
                match ready!(part.poll_next(context)) {
                    Some(item) => return Poll::Ready(Some(item)),
                    None => this.leave(),
                }
            } else if let Some(opening) = this.ahead.front_mut() {
                ready!(opening.poll_unpin(context));
                let opened = Pin::new(opening).take_output();
                this.ahead.pop_front();
                return Poll::Ready(opened.map(|opened| this.begin(opened)));
            } else if std::mem::replace(&mut this.is_over, true) {
                return Poll::Ready(None);
            } else {
                return Poll::Ready(Some(Ok(this.framing.end().into())));
            }
        }
    }
}

impl ContentStream for Byteranges {
    fn served(&self) -> BytesBy {
        let part = self.sending.as_ref().map(|part| part.stream.served());
        self.served + part.unwrap_or_default()
    }
}

// === impl Part ===

impl Part {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let next = ready!(self.stream.as_mut().poll_next(context));
        Poll::Ready(match next {
            Some(Ok(bytes)) => {
                self.remaining = self.remaining.saturating_sub(bytes.len() as u64);
                Some(Ok(bytes))
            }
            None if self.remaining > 0 => Some(Err(ended_early("a part ended before its end"))),
            ended => ended,
        })
    }
}

fn span(part: &Range<u64>) -> Wanted {
    Wanted::Span {
        start: part.start,
        last: part.end.saturating_sub(1),
    }
}

fn ended_early(why: &str) -> BrokenOff {
    BrokenOff {
        fault: Fault::Failing,
        reason: why.to_owned(),
    }
}
