//! Binds the sockets, and says in one sentence why one cannot be bound.

mod owner;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::bail;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 1024;

/// How often another port is tried when both families are to share one that the kernel chooses.
const PAIR_ATTEMPTS: usize = 16;

/// The sockets of one key of the configuration.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listeners: Vec<TcpListener>,
    /// Where it is reached; with the port that was chosen where 0 was asked for.
    pub(crate) address: SocketAddr,
}

/// Whether an address that the machine does not have can be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address {
    Own,
    /// It comes with a bridge that may be made later, and is reached from then on.
    Coming,
}

/// Binds `address`, which the configuration gives at `key`.
pub(crate) fn bind(key: &str, address: SocketAddr) -> anyhow::Result<Bound> {
    bind_one(key, address, Address::Own)
}

/// As [`bind`], also where the machine does not have the address yet.
pub(crate) fn bind_ahead(key: &str, address: SocketAddr) -> anyhow::Result<Bound> {
    bind_one(key, address, Address::Coming)
}

fn bind_one(key: &str, address: SocketAddr, whose: Address) -> anyhow::Result<Bound> {
    let listener = listener(address, whose).map_err(|error| sentence(key, address, &error))?;
    let address = listener.local_addr()?;
    Ok(Bound {
        listeners: vec![listener],
        address,
    })
}

/// Binds `address`, and where it is the loopback of IPv4, that of IPv6 at the same port too:
/// clients resolve `localhost` to either. A machine with no IPv6 is given a warning.
pub(crate) fn bind_both_families(key: &str, address: SocketAddr) -> anyhow::Result<Bound> {
    if address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return bind(key, address);
    }
    for _ in 0..PAIR_ATTEMPTS {
        let mut bound = bind(key, address)?;
        let twin = SocketAddr::from((Ipv6Addr::LOCALHOST, bound.address.port()));
        match listener(twin, Address::Own) {
            Ok(listener) => bound.listeners.push(listener),
            Err(error) if has_no_ipv6(&error) => {
                tracing::warn!(%twin, %error, "this machine has no IPv6 loopback; listening on IPv4 alone");
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 => {
                continue;
            }
            Err(error) => return Err(sentence(key, twin, &error)),
        }
        return Ok(bound);
    }
    bail!("{key}: no port is free in both address families; name one")
}

fn listener(address: SocketAddr, whose: Address) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A port whose last owner is gone may still have connections that wait to end.
    socket.set_reuseaddr(true)?;
    match (whose, address) {
        (Address::Own, _) => {}
        (Address::Coming, SocketAddr::V4(_)) => sockopt::set_ip_freebind(&socket, true)?,
        (Address::Coming, SocketAddr::V6(_)) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [
        rustix::io::Errno::AFNOSUPPORT,
        rustix::io::Errno::ADDRNOTAVAIL,
    ]
    .iter()
    .any(|errno| code == Some(errno.raw_os_error()))
}

fn sentence(key: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let who = owner::of_port(port)
                .map_or_else(|| "another process".to_owned(), |owner| owner.to_string());
            anyhow::anyhow!("port {port} is taken by {who}; stop it or set {key}")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!(
                "port {port} may not be bound by this user; set {key} to a port from 1024 on"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("this machine has no address {}; set {key}", address.ip())
        }
        _ => anyhow::anyhow!("{address} cannot be bound: {error}; set {key}"),
    }
}
