//! Pure: what the first bytes of a connection are, and whom they name.
//!
//! Reads as much of a ClientHello (RFC 8446 section 4.1.2) as tells the server's name and whether
//! the real one is encrypted. It judges nothing else of it: whoever speaks TLS then does. What it
//! does not understand it calls [`Opening::Other`], which is passed on untouched.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// What a client began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// More bytes are needed to tell.
    Incomplete,
    Tls(Hello),
    Other,
}

/// What a ClientHello tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The host name in lower case. Addresses are never sent as one (RFC 6066 section 3).
    pub(crate) sni: Option<String>,
    /// Whether a second ClientHello, with the real name, may be encrypted in this one.
    pub(crate) has_ech: bool,
    /// What all connections of one program have in common, as far as that can be told: a number for
    /// what it offers, whatever the order.
    pub(crate) shape: u64,
}

/// Reads fields from the front; `None` where the bytes end before the field does.
struct Fields<'a>(&'a [u8]);

/// Bytes that are looked at before the opening is called [`Opening::Other`]: a ClientHello with
/// keys that withstand quantum computers takes two to three thousand.
pub(crate) const OPENING_LEN_MAX: usize = 32 * 1024;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The length of a record's plaintext (RFC 8446 section 5.1), with some room for old clients.
const RECORD_LEN_MAX: usize = 16 * 1024 + 256;
const RANDOM_LEN: usize = 32;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
const HOST_NAME: u8 = 0;

/// Extensions that come and go between the connections of one program: the name, padding, and what
/// an earlier connection left (RFC 8446 section 4.2, RFC 7685, RFC 5077).
const PASSING: [u16; 5] = [SERVER_NAME, 21, 35, 41, 42];

/// What `bytes`, all that a client has sent so far, begin with.
pub(crate) fn read(bytes: &[u8]) -> Opening {
    let Some(handshake) = handshake(bytes) else {
        return Opening::Other;
    };
    let mut fields = Fields(&handshake);
    let (Some(kind), Some(length)) = (fields.u8(), fields.u24()) else {
        return incomplete(bytes);
    };
    if kind != CLIENT_HELLO || OPENING_LEN_MAX < length {
        return Opening::Other;
    }
    match fields.take(length) {
        None => incomplete(bytes),
        Some(body) => hello(body).map_or(Opening::Other, Opening::Tls),
    }
}

fn incomplete(bytes: &[u8]) -> Opening {
    if bytes.len() < OPENING_LEN_MAX {
        Opening::Incomplete
    } else {
        Opening::Other
    }
}

/// The first handshake message in the records of `bytes`, as far as it goes; `None` where these are
/// no records of a handshake. Early data may follow it.
fn handshake(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut messages = Vec::new();
    let mut rest = bytes;
    while let Some((kind, after)) = rest.split_first() {
        if is_whole(&messages) {
            break;
        }
        if *kind != HANDSHAKE_RECORD {
            return None;
        }
        let mut fields = Fields(after);
        let Some(major) = fields.u8() else { break };
        if major != 3 {
            return None;
        }
        let (Some(_minor), Some(length)) = (fields.u8(), fields.u16()) else {
            break;
        };
        let length = usize::from(length);
        if length == 0 || RECORD_LEN_MAX < length {
            return None;
        }
        let whole = fields.0.len().min(length);
        messages.extend_from_slice(&fields.0[..whole]);
        rest = &fields.0[whole..];
    }
    Some(messages)
}

fn is_whole(messages: &[u8]) -> bool {
    let mut fields = Fields(messages);
    let length = fields.u8().and_then(|_| fields.u24());
    length.is_some_and(|length| length <= fields.0.len())
}

/// `None` where the body contradicts its own lengths, or the name is none.
fn hello(body: &[u8]) -> Option<Hello> {
    let mut fields = Fields(body);
    let _version = fields.u16()?;
    fields.take(RANDOM_LEN)?;
    let _session = fields.vector_u8()?;
    let ciphers = fields.vector_u16()?;
    let _compressions = fields.vector_u8()?;
    let mut hello = Hello {
        sni: None,
        has_ech: false,
        shape: shape(ciphers, Vec::new()),
    };
    if fields.0.is_empty() {
        return Some(hello);
    }
    let mut kinds = Vec::new();
    let mut extensions = Fields(fields.vector_u16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let value = extensions.vector_u16()?;
        kinds.push(kind);
        match kind {
            SERVER_NAME => hello.sni = Some(server_name(value)?),
            ENCRYPTED_CLIENT_HELLO => hello.has_ech = true,
            _ => {}
        }
    }
    hello.shape = shape(ciphers, kinds);
    Some(hello)
}

fn shape(ciphers: &[u8], mut kinds: Vec<u16>) -> u64 {
    let pairs = ciphers.chunks_exact(2);
    let mut ciphers: Vec<_> = pairs
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    kinds.retain(|kind| !PASSING.contains(kind));
    let mut hasher = DefaultHasher::new();
    for values in [&mut ciphers, &mut kinds] {
        values.retain(|value| !is_grease(*value));
        values.sort_unstable();
        values.hash(&mut hasher);
    }
    hasher.finish()
}

/// Values that mean nothing, and are others each time (RFC 8701).
fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

fn server_name(value: &[u8]) -> Option<String> {
    let mut names = Fields(Fields(value).vector_u16()?);
    while !names.0.is_empty() {
        let kind = names.u8()?;
        let name = names.vector_u16()?;
        if kind == HOST_NAME {
            let is_visible = name.iter().all(u8::is_ascii_graphic) && !name.is_empty();
            let name = std::str::from_utf8(name).ok().filter(|_| is_visible)?;
            return Some(name.trim_end_matches('.').to_ascii_lowercase());
        }
    }
    None
}

// === impl Fields ===

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|field| field[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)
            .map(|field| u16::from_be_bytes([field[0], field[1]]))
    }

    fn u24(&mut self) -> Option<usize> {
        let field = self.take(3)?;
        Some(usize::from(field[0]) << 16 | usize::from(field[1]) << 8 | usize::from(field[2]))
    }

    fn vector_u8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn vector_u16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests;
