//! A BitTorrent tracker for one torrent (BEP 3, BEP 23): whoever announces itself is told of all
//! others. It forgets nobody and checks nothing, since it lives as long as one herd.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::terminal::say;

/// What it says once it can be asked.
pub(crate) const READY: &str = "tracking";

/// What it says of a peer that it had not heard of, before the address.
pub(crate) const HEARD: &str = "heard of ";

/// Seconds after which a peer should ask again.
const INTERVAL: u32 = 2;

const IO_LIMIT: Duration = Duration::from_secs(5);

/// Answers announcements until it is killed.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen)?;
    say(READY);
    let mut peers = Vec::new();
    for stream in listener.incoming() {
        // A peer that asks wrongly or leaves has itself to blame; it will ask again.
        let _peers_own_fault = answer(stream?, &mut peers);
    }
    Ok(())
}

fn answer(mut stream: TcpStream, peers: &mut Vec<SocketAddrV4>) -> Result<()> {
    stream.set_read_timeout(Some(IO_LIMIT))?;
    stream.set_write_timeout(Some(IO_LIMIT))?;
    let mut line = String::new();
    let mut head = BufReader::new(stream.try_clone()?);
    head.read_line(&mut line)?;
    let mut rest = String::new();
    while head.read_line(&mut rest)? > 2 {
        rest.clear();
    }
    let SocketAddr::V4(mut peer) = stream.peer_addr()? else {
        bail!("a peer of IPv6");
    };
    peer.set_port(port(&line).context("no port is announced")?);
    let body = announcement(peers, peer);
    if !peers.contains(&peer) {
        peers.push(peer);
        say(&format!("{HEARD}{peer}"));
    }
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    Ok(())
}

/// The port that the first line of an announcement names.
fn port(line: &str) -> Option<u16> {
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    let (_, query) = target.split_once('?')?;
    let port = query.split('&').find_map(|pair| pair.strip_prefix("port="));
    port?.parse().ok()
}

/// What `peer` is told: all others, six bytes each.
fn announcement(peers: &[SocketAddrV4], peer: SocketAddrV4) -> Vec<u8> {
    let mut compact = Vec::new();
    for other in peers.iter().filter(|other| **other != peer) {
        compact.extend(other.ip().octets());
        compact.extend(other.port().to_be_bytes());
    }
    let mut body = format!("d8:intervali{INTERVAL}e5:peers{}:", compact.len()).into_bytes();
    body.extend(compact);
    body.push(b'e');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_told_of_the_others_and_not_of_itself() {
        let one: SocketAddrV4 = "10.78.0.1:6881".parse().unwrap();
        let other: SocketAddrV4 = "10.78.0.2:258".parse().unwrap();
        assert_eq!(announcement(&[], one), b"d8:intervali2e5:peers0:e");
        let told = announcement(&[one, other], one);
        assert_eq!(told, b"d8:intervali2e5:peers6:\x0a\x4e\x00\x02\x01\x02e");
    }

    #[test]
    fn the_port_is_read_from_the_query() {
        let line = "GET /announce?info_hash=%12&port=6881&left=0 HTTP/1.1\r\n";
        assert_eq!(port(line), Some(6881));
        assert_eq!(port("GET /announce?left=0 HTTP/1.1\r\n"), None);
        assert_eq!(port("GET / HTTP/1.1\r\n"), None);
    }
}
