//! The connections of the registry: reads heads, writes answers, and ends as a fault wants it.
//!
//! Written by hand on purpose: an HTTP library would mend what is meant to be broken.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use super::{
    State,
    contents::{Head, Reply},
    fault::{End, Fault, Framing},
    flow::{Flow, Trickle},
};

/// Bytes of one write.
const WRITE_BYTES: usize = 64 << 10;

/// An answer down to its bytes.
struct Sending {
    reply: Reply,
    framing: Framing,
    told_length: usize,
    /// What of the body is sent.
    body: Bytes,
    flow: Flow,
    /// `None` where the connection goes on.
    end: Option<End>,
}

/// Accepts until it is dropped; its connections end with it.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        // What goes wrong on a connection is what the client has seen, or caused.
        connections.spawn(async move { drop(converse(stream, &state).await) });
    }
}

/// One request after another, until a fault ends the connection or the client does.
async fn converse(stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(head) = read_head(&mut stream).await? {
        let (turn, fault) = state.begin(&head);
        if let Some(
            Fault::SlowStart(wait)
            | Fault::Trickles(Trickle {
                first_after: wait, ..
            }),
        ) = &fault
        {
            sleep(*wait).await;
        }
        let answered = match &fault {
            Some(Fault::NoAnswer) => Ok(Some(End::Close)),
            fault => {
                let sending = Sending::of(state.answer(&head, fault.as_ref()), fault.as_ref());
                let is_head = head.method == "HEAD";
                send(stream.get_mut(), sending, is_head, |sent| {
                    state.sent(turn, sent);
                })
                .await
            }
        };
        let ended = match answered {
            Ok(None) => Ok(None),
            Ok(Some(end)) => finish(&mut stream, end).await.map(|()| Some(end)),
            Err(error) => Err(error),
        };
        state.end(turn);
        if ended?.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

/// `None` where the client has no further request.
async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
    let (mut first, mut headers) = (String::new(), Vec::new());
    if stream.read_line(&mut first).await? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Head {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
    }))
}

async fn send(
    stream: &mut TcpStream,
    sending: Sending,
    is_head: bool,
    sent: impl Fn(usize),
) -> io::Result<Option<End>> {
    let Sending {
        reply,
        framing,
        told_length,
        body,
        flow,
        end,
    } = sending;
    let mut head = format!("HTTP/1.1 {} As Told\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match framing {
        Framing::Length => head.push_str(&format!("Content-Length: {told_length}\r\n")),
        Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::UntilClose => head.push_str("Connection: close\r\n"),
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    if is_head {
        return Ok(end);
    }
    let mut done = 0;
    while done < body.len() {
        let room = tokio::select! {
            biased;
            room = flow.room(reply.start, done) => room.min(WRITE_BYTES),
            // Nothing comes while an answer is under way but the end of the connection: what is
            // written to one that is over would count as sent.
            _ended = stream.read_u8() => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let part = &body[done..body.len().min(done + room)];
        if framing == Framing::Chunked {
            let size = format!("{:x}\r\n", part.len());
            stream.write_all(size.as_bytes()).await?;
        }
        stream.write_all(part).await?;
        if framing == Framing::Chunked {
            stream.write_all(b"\r\n").await?;
        }
        done += part.len();
        sent(part.len());
    }
    if framing == Framing::Chunked && end.is_none() {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(end)
}

async fn finish(stream: &mut BufReader<TcpStream>, end: End) -> io::Result<()> {
    match end {
        End::Close => stream.get_mut().shutdown().await,
        End::Reset => stream.get_ref().set_zero_linger(),
        // Until the client closes its end.
        End::Stall => stream.read_u8().await.map(drop).or(Ok(())),
    }
}

// === impl Sending ===

impl Sending {
    fn of(mut reply: Reply, fault: Option<&Fault>) -> Self {
        let mut body = reply.body.to_vec();
        match fault {
            Some(Fault::WrongByte(at)) if *at < body.len() => body[*at] ^= 0xff,
            Some(Fault::Oversize(by)) => body.resize(body.len() + by, b' '),
            Some(_) | None => {}
        }
        reply.body = body.into();
        let size = reply.body.len();
        let (framing, told_length, sent, end) = match fault {
            Some(Fault::Breaks {
                framing,
                after,
                end,
            }) => (*framing, size, size.min(*after), Some(*end)),
            Some(Fault::Framed(Framing::UntilClose)) => {
                (Framing::UntilClose, size, size, Some(End::Close))
            }
            Some(Fault::Framed(framing)) => (*framing, size, size, None),
            Some(Fault::ToldLonger(by)) => (Framing::Length, size + by, size, Some(End::Close)),
            Some(Fault::ToldShorter(by)) => {
                let told = size.saturating_sub(*by);
                (Framing::Length, told, told, None)
            }
            Some(
                Fault::NoAnswer
                | Fault::SlowStart(_)
                | Fault::Oversize(_)
                | Fault::WrongByte(_)
                | Fault::Status(_)
                | Fault::Limited { .. }
                | Fault::NoChallenge
                | Fault::RedirectLoop
                | Fault::RedirectTo(_)
                | Fault::DigestHeader(_)
                | Fault::Header(..)
                | Fault::IgnoresRange
                | Fault::Sluiced(_)
                | Fault::Trickles(_),
            )
            | None => (Framing::Length, size, size, None),
        };
        let flow = match fault {
            Some(Fault::Sluiced(sluice)) => Flow::Sluiced(sluice.clone()),
            Some(Fault::Trickles(trickle)) => Flow::Trickling(*trickle),
            Some(_) | None => Flow::Free,
        };
        Self {
            flow,
            body: reply.body.slice(..sent),
            reply,
            framing,
            told_length,
            end,
        }
    }
}
