//! A plain HTTP/1.1 client that hides nothing: one request per connection, headers as sent, and the
//! way a body ended (complete, short by FIN, or reset), which is what clients of a mirror react to.
//!
//! It never follows a redirect, retries, decodes or pools.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// No single read or connect of a test takes longer than this.
const IO_LIMIT: Duration = Duration::from_secs(60);

/// A request, as it will be written.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    framing: Framing,
    reader: BufReader<TcpStream>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All that the framing promised has come.
    Complete,
    /// The connection was closed in order before the promised end.
    Short,
    /// The connection was reset.
    Reset,
    /// No byte came for the time a test waits.
    Stalled,
}

/// A body read to its end.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub ending: Ending,
}

#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunked { left: u64, ended: bool },
    UntilClose,
}

// === impl Request ===

impl Request {
    /// A request without headers of its own.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
        }
    }

    /// A GET.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A HEAD.
    #[must_use]
    pub fn head(target: &str) -> Self {
        Self::new("HEAD", target)
    }

    /// Adds a header line; the same name may be added again.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the request and reads the head of the answer.
    ///
    /// # Errors
    /// Nobody listens, or the answer is not HTTP.
    pub fn send(&self, address: SocketAddr) -> Result<Response> {
        self.send_with(address, &mut io::empty(), 0)
    }

    /// Sends the request with a body of `length` bytes.
    ///
    /// # Errors
    /// As [`Request::send`], or the body is shorter than promised.
    pub fn send_with(
        &self,
        address: SocketAddr,
        body: &mut dyn Read,
        length: u64,
    ) -> Result<Response> {
        let mut stream = TcpStream::connect_timeout(&address, IO_LIMIT)
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(IO_LIMIT))?;
        stream.set_write_timeout(Some(IO_LIMIT))?;
        stream.set_nodelay(true)?;
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            write!(head, "Host: {address}\r\n")?;
        }
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n")?;
        }
        if length > 0 || matches!(self.method.as_str(), "PUT" | "POST") {
            write!(head, "Content-Length: {length}\r\n")?;
        }
        head.push_str("Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let sent = io::copy(body, &mut stream)?;
        if sent != length {
            bail!(
                "the body of {} {} has {sent} bytes, not {length}",
                self.method,
                self.target
            );
        }
        Response::read(stream, self.method == "HEAD")
            .with_context(|| format!("{} {} at {address}", self.method, self.target))
    }

    /// Sends the request and reads the body to whatever end it has.
    ///
    /// # Errors
    /// As [`Request::send`]; a body that ends badly is no error.
    pub fn fetch(&self, address: SocketAddr) -> Result<Whole> {
        self.send(address)?.whole()
    }
}

// === impl Response ===

impl Response {
    fn read(stream: TcpStream, bodiless: bool) -> Result<Self> {
        let mut reader = BufReader::with_capacity(64 * 1024, stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status: u16 = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3))
            .with_context(|| format!("not a status line: {line:?}"))?
            .parse()?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                bail!("the head of the answer ends early");
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            let (name, value) = text
                .split_once(':')
                .context("a header line without a colon")?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let framing = framing(&headers, bodiless || status == 204 || status == 304)?;
        Ok(Self {
            status,
            headers,
            framing,
            reader,
        })
    }

    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Reads up to `buffer.len()` bytes; `Err` tells how the body ended.
    ///
    /// # Errors
    /// The [`Ending`] of the body, once no byte is left.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Ending> {
        let want = match &mut self.framing {
            Framing::Length(0) | Framing::Chunked { ended: true, .. } => {
                return Err(Ending::Complete);
            }
            Framing::Length(left) => usize::try_from(*left)
                .unwrap_or(usize::MAX)
                .min(buffer.len()),
            Framing::Chunked { left, ended } => {
                if *left == 0 {
                    *left = next_chunk(&mut self.reader)?;
                    if *left == 0 {
                        *ended = true;
                        return Err(Ending::Complete);
                    }
                }
                usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len())
            }
            Framing::UntilClose => buffer.len(),
        };
        let got = read_on(&mut self.reader, &mut buffer[..want])?;
        match &mut self.framing {
            Framing::UntilClose if got == 0 => return Err(Ending::Complete),
            _ if got == 0 => return Err(Ending::Short),
            Framing::Length(left) => *left -= got as u64,
            Framing::Chunked { left, .. } => {
                *left -= got as u64;
                if *left == 0 {
                    let mut newline = [0; 2];
                    self.reader
                        .read_exact(&mut newline)
                        .map_err(|error| ending_of(&error))?;
                }
            }
            Framing::UntilClose => {}
        }
        Ok(got)
    }

    /// Reads at most `limit` bytes and leaves the rest unread.
    ///
    /// # Errors
    /// The body ended before `limit`.
    pub fn read_exactly(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while (body.len() as u64) < limit {
            let want = usize::try_from(limit - body.len() as u64)?.min(buffer.len());
            match self.read_some(&mut buffer[..want]) {
                Ok(got) => body.extend_from_slice(&buffer[..got]),
                Err(ending) => bail!("{ending:?} after {} of {limit} bytes", body.len()),
            }
        }
        Ok(body)
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    /// None today; the body's own end is data.
    pub fn whole(mut self) -> Result<Whole> {
        let mut body = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        let ending = loop {
            match self.read_some(&mut buffer) {
                Ok(got) => body.extend_from_slice(&buffer[..got]),
                Err(ending) => break ending,
            }
        };
        Ok(Whole {
            status: self.status,
            headers: self.headers,
            body,
            ending,
        })
    }
}

// === impl Whole ===

impl Whole {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

fn framing(headers: &[(String, String)], bodiless: bool) -> Result<Framing> {
    if bodiless {
        return Ok(Framing::Length(0));
    }
    if header(headers, "transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        return Ok(Framing::Chunked {
            left: 0,
            ended: false,
        });
    }
    Ok(match header(headers, "content-length") {
        Some(length) => Framing::Length(length.parse()?),
        None => Framing::UntilClose,
    })
}

fn next_chunk(reader: &mut BufReader<TcpStream>) -> Result<u64, Ending> {
    let mut line = String::new();
    let got = reader
        .read_line(&mut line)
        .map_err(|error| ending_of(&error))?;
    if got == 0 {
        return Err(Ending::Short);
    }
    let size = line.trim_end().split(';').next().unwrap_or_default();
    u64::from_str_radix(size, 16).map_err(|_| Ending::Short)
}

/// One read. The kernel does not begin a read with a time limit again by itself after a signal, and
/// that says nothing of the connection.
fn read_on(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Ending> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.map_err(|error| ending_of(&error)),
        }
    }
}

fn ending_of(error: &io::Error) -> Ending {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Ending::Short,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ending::Stalled,
        _ => Ending::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails in these ways, the last one first, and then gives a byte.
    struct Failing(Vec<io::ErrorKind>);

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.pop().map_or(Ok(1), |kind| Err(kind.into()))
        }
    }

    #[test]
    fn a_read_that_a_signal_interrupts_is_no_end() {
        use io::ErrorKind::{ConnectionReset, Interrupted, WouldBlock};
        for (failures, expect) in [
            (vec![Interrupted, Interrupted], Ok(1)),
            (vec![ConnectionReset, Interrupted], Err(Ending::Reset)),
            (vec![WouldBlock], Err(Ending::Stalled)),
        ] {
            let told = format!("{failures:?}");
            let seen = read_on(&mut Failing(failures), &mut [0]);
            assert_eq!(seen, expect, "{told}");
        }
    }
}
