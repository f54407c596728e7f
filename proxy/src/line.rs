//! One client's connection: how it is read from its first byte on, and how it is ended.
//!
//! A transfer that cannot be completed must end with FIN after the last good byte: clients resume
//! after FIN and give up after RST. The kernel sends RST when a socket is closed with unread bytes,
//! so the write side is shut down first and what the client still sends is read away, for a while.
//! A body that is cut says so to [`Cut`] and yields nothing more; hyper then flushes what it holds,
//! and that flush, seen here, is the moment to stop.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Sleep, timeout},
};

use crate::activity::{Answering, Hold, Underway};

/// A connection with the bytes that were read ahead of it.
#[derive(Debug)]
pub(crate) struct Line<S> {
    stream: S,
    ahead: Bytes,
    cut: Arc<Cut>,
    stall_limit: Duration,
    stall: Option<Pin<Box<Sleep>>>,
}

/// Whether the body that is being written ends before its end, and what is under way beside it.
#[derive(Debug)]
pub(crate) struct Cut {
    state: AtomicU8,
    ending: Ending,
    underway: Arc<Underway>,
}

/// How a body ends that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With its connection.
    Fin,
    /// With its stream, one of many on a connection.
    Reset,
}

/// How long a client may take to close after the last byte was written to it.
const LINGER: Duration = Duration::from_secs(5);

/// How much of what a client still sends is read away before its connection is closed.
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;

const ASKED: u8 = 1;
const FLUSHED: u8 = 2;

// === impl Line ===

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// `stall_limit` is how long a client may read nothing of what is written to it.
    pub(crate) fn new(stream: S, ahead: Bytes, cut: Arc<Cut>, stall_limit: Duration) -> Self {
        Self {
            stream,
            ahead,
            cut,
            stall_limit,
            stall: None,
        }
    }

    /// Puts `bytes` before what is read next.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.ahead = match self.ahead.is_empty() {
            true => bytes,
            false => [bytes, std::mem::take(&mut self.ahead)].concat().into(),
        };
    }

    /// What is under way on it.
    pub(crate) fn underway(&self) -> &Arc<Underway> {
        &self.cut.underway
    }

    /// Has it stay, whatever it waits for, until the hold is dropped.
    pub(crate) fn hold(&self) -> Hold {
        self.cut.underway.hold()
    }

    /// Ends the connection in order. Errors mean that the client is gone, which is the aim.
    pub(crate) async fn close(mut self) {
        let _ = timeout(LINGER, self.stream.shutdown()).await;
        self.cut.underway.left();
        let _ = timeout(LINGER, drain(&mut self.stream)).await;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let len = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..len]);
            self.ahead.advance(len);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> Line<S> {
    /// Passes a write on, and gives up on a client that has read nothing for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let limit = self.stall_limit;
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this when all that it held has been written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.cut.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

// === impl Cut ===

impl Cut {
    pub(crate) fn new(ending: Ending, underway: Arc<Underway>) -> Arc<Self> {
        let state = AtomicU8::new(0);
        Arc::new(Self {
            state,
            ending,
            underway,
        })
    }

    /// A request has come.
    pub(crate) fn begin(&self) -> Answering {
        self.underway.begin()
    }

    /// The body yields nothing more, and its end was not reached; says how it ends.
    pub(crate) fn ask(&self) -> Ending {
        self.state.store(ASKED, Ordering::Release);
        self.ending
    }

    /// Whether all that came before the cut has left.
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == FLUSHED
    }

    fn flushed(&self) {
        let _ = self
            .state
            .compare_exchange(ASKED, FLUSHED, Ordering::AcqRel, Ordering::Acquire);
        self.underway.left();
    }
}

async fn drain<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut total = 0;
    while total < LINGER_BYTES_MAX {
        match stream.read(&mut buffer).await? {
            0 => break,
            len => total += len,
        }
    }
    Ok(())
}
