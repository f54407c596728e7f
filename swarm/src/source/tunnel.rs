//! Connects to what a client tunnels to, and carries nothing itself.
//!
//! A tunnel is its client's own connection, so one on this host may lead to private addresses; no
//! tunnel leads to a loopback, link-local or metadata address unless the configuration has exactly
//! that place as an endpoint, and none back into this process. Judged is the address that is
//! connected to, as everywhere here.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::select_ok;
use tokio::{
    net::TcpStream,
    time::{error::Elapsed, sleep, timeout},
};
use url::Host;

use super::{
    address::{AddressClass, Trust, judge},
    registry::{Authority, Config},
    resolve::{Names, SystemNames},
};

/// Opens the far ends of tunnels. Cheap to clone.
#[derive(Clone)]
pub struct Tunnels {
    names: Arc<dyn Names>,
    /// The endpoints of the configuration and what is trusted beside them.
    written: Arc<[Authority]>,
    connect_timeout: Duration,
    own_ports: Arc<[u16]>,
}

/// Where the client of a tunnel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientPlace {
    /// On this host: what it can reach by itself, it may reach through here.
    Local,
    Elsewhere,
}

/// Why a tunnel was not opened.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The client's fault, or that of whoever gave it the name.
    #[error("{host} leads to {class}, and no tunnel goes there")]
    Forbidden { host: String, class: AddressClass },

    /// The client's fault.
    #[error("{0} is this proxy itself")]
    Own(SocketAddr),

    /// The network's fault, or the far end's.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable { host: String, reason: String },

    /// The network's fault, or the far end's.
    #[error("{host} did not answer within {waited:?}")]
    Slow { host: String, waited: Duration },
}

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// How much sooner one is tried than the next, while it does not answer (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

// === impl Tunnels ===

impl Tunnels {
    /// `own_ports` are those on which this process listens.
    pub fn new(config: &Config, own_ports: Vec<u16>) -> Self {
        Self::with_names(config, own_ports, Arc::new(SystemNames))
    }

    /// As [`Tunnels::new`], names being resolved by `names`.
    pub fn with_names(config: &Config, own_ports: Vec<u16>, names: Arc<dyn Names>) -> Self {
        let registries = config.registries.values();
        let written = registries.flat_map(|registry| {
            let endpoints = registry.endpoints.iter().filter_map(Authority::of);
            endpoints.chain(registry.also_trust.iter().cloned())
        });
        Self {
            names,
            written: written.collect(),
            connect_timeout: config.timeouts.connect,
            own_ports: own_ports.into(),
        }
    }

    /// A connection to `port` of `host`, a name or an address without brackets, for a client at
    /// `place`.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        place: ClientPlace,
    ) -> Result<TcpStream, TunnelError> {
        let connecting = async {
            let found = self.addresses(host).await;
            let addresses = self.judged(host, &found?, port, place)?;
            self.first_of(host, &addresses).await
        };
        match timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(Elapsed { .. }) => Err(TunnelError::Slow {
                host: host.to_owned(),
                waited: self.connect_timeout,
            }),
        }
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, TunnelError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let found = self.names.addresses(host.to_owned()).await;
        found.map_err(|error| unreachable(host, &error))
    }

    /// Those of `found` that may be connected to; an error where there are none.
    fn judged(
        &self,
        host: &str,
        found: &[IpAddr],
        port: u16,
        place: ClientPlace,
    ) -> Result<Vec<SocketAddr>, TunnelError> {
        let trust = match place {
            ClientPlace::Local => Trust::Private,
            // What the operator wrote down may be private.
            ClientPlace::Elsewhere if self.is_written_so(host, port) => Trust::Private,
            ClientPlace::Elsewhere => Trust::Global,
        };
        let mut judged = Vec::new();
        let mut refused = None;
        for address in found {
            match judge(*address, trust) {
                Ok(()) => judged.push(SocketAddr::new(*address, port)),
                Err(_) if self.is_written(*address, port) => {
                    judged.push(SocketAddr::new(*address, port));
                }
                Err(class) => refused = Some(class),
            }
        }
        let mut judged = in_turns(judged);
        judged.truncate(ADDRESSES_MAX);
        match (judged.is_empty(), refused) {
            (true, Some(class)) => Err(TunnelError::Forbidden {
                host: host.to_owned(),
                class,
            }),
            (true, None) => Err(TunnelError::Unreachable {
                host: host.to_owned(),
                reason: "the name has no address".to_owned(),
            }),
            (false, _) => Ok(judged),
        }
    }

    /// Whether the configuration has exactly this place.
    fn is_written(&self, address: IpAddr, port: u16) -> bool {
        let host = match address.to_canonical() {
            IpAddr::V4(address) => Host::Ipv4(address),
            IpAddr::V6(address) => Host::Ipv6(address),
        };
        self.written.contains(&Authority { host, port })
    }

    /// Whether the configuration has this place by this name.
    fn is_written_so(&self, host: &str, port: u16) -> bool {
        let host = Host::parse(host);
        host.is_ok_and(|host| self.written.contains(&Authority { host, port }))
    }

    async fn first_of(
        &self,
        host: &str,
        addresses: &[SocketAddr],
    ) -> Result<TcpStream, TunnelError> {
        let attempts = addresses.iter().enumerate().map(|(number, address)| {
            let attempt = async move {
                sleep(HEAD_START * number as u32).await;
                TcpStream::connect(address)
                    .await
                    .map(|stream| (stream, *address))
            };
            Box::pin(attempt)
        });
        match select_ok(attempts).await {
            Ok(((stream, address), _others)) => self.not_to_itself(stream, address),
            Err(error) => Err(unreachable(host, &error)),
        }
    }

    /// A connection of this machine with itself has one address at both its ends.
    fn not_to_itself(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<TcpStream, TunnelError> {
        let is_own_machine = stream
            .local_addr()
            .is_ok_and(|local| local.ip() == address.ip());
        if is_own_machine && self.own_ports.contains(&address.port()) {
            return Err(TunnelError::Own(address));
        }
        // Small records must not wait for the acknowledgement of what went before.
        let _best_effort = stream.set_nodelay(true);
        Ok(stream)
    }
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnels")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// The families in turns, the first one's first, each in the resolver's order: where one family
/// leads nowhere, the other is next.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let is_first = |address: &SocketAddr| address.is_ipv6() == first_is_v6;
    let (ours, theirs): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_first);
    let (mut ours, mut theirs) = (ours.into_iter(), theirs.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [ours.next(), theirs.next()];
        if pair.iter().all(Option::is_none) {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

fn unreachable(host: &str, error: &io::Error) -> TunnelError {
    TunnelError::Unreachable {
        host: host.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use tokio::net::TcpListener;

    use super::*;
    use crate::source::{RawRegistry, check};

    /// One name, at whatever addresses the test says.
    struct OneName(Vec<IpAddr>);

    impl Names for OneName {
        fn addresses(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let found = self.0.clone();
            Box::pin(async move { Ok(found) })
        }
    }

    fn tunnels(endpoints: &[String], own_ports: &[u16], found: &[&str]) -> Tunnels {
        let registries: Vec<_> = endpoints
            .iter()
            .enumerate()
            .map(|(index, endpoint)| RawRegistry {
                name: format!("r{index}.example"),
                endpoint: endpoint.clone(),
                ..RawRegistry::default()
            })
            .collect();
        let none = |_: &std::path::Path| Err(io::ErrorKind::NotFound.into());
        let config = check(&registries, &[], none).unwrap();
        let found = found.iter().map(|address| address.parse().unwrap());
        Tunnels::with_names(
            &config,
            own_ports.to_vec(),
            Arc::new(OneName(found.collect())),
        )
    }

    #[track_caller]
    fn judge_of(found: &[&str], place: ClientPlace, expect: Result<&[&str], AddressClass>) {
        let tunnels = tunnels(&["https://127.0.0.1:5000".to_owned()], &[], &[]);
        let found: Vec<IpAddr> = found
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let seen = tunnels.judged("a.example", &found, 5000, place);
        let seen = seen.map(|judged| judged.iter().map(|a| a.ip().to_string()).collect());
        let seen = seen.map_err(|error| match error {
            TunnelError::Forbidden { class, .. } => class,
            other => panic!("{other}"),
        });
        let expect = expect.map(|list| list.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(
            seen, expect as Result<Vec<String>, _>,
            "{found:?} {place:?}"
        );
    }

    #[test]
    fn a_tunnel_leads_where_its_client_could_go_and_to_no_address_that_is_this_hosts_own() {
        use ClientPlace::{Elsewhere, Local};
        judge_of(&["1.1.1.1"], Local, Ok(&["1.1.1.1"]));
        judge_of(&["1.1.1.1", "10.0.0.1"], Elsewhere, Ok(&["1.1.1.1"]));
        judge_of(&["10.0.0.1"], Local, Ok(&["10.0.0.1"]));
        judge_of(&["10.0.0.1"], Elsewhere, Err(AddressClass::Private));
        judge_of(&["127.0.0.2"], Local, Err(AddressClass::Loopback));
        judge_of(&["::1"], Local, Err(AddressClass::Loopback));
        judge_of(&["169.254.169.254"], Local, Err(AddressClass::Metadata));
        judge_of(&["fe80::1"], Local, Err(AddressClass::LinkLocal));
        judge_of(&["0.0.0.0"], Local, Err(AddressClass::Unusable));
    }

    #[test]
    fn a_configured_endpoint_is_reached_wherever_it_is() {
        judge_of(&["127.0.0.1"], ClientPlace::Elsewhere, Ok(&["127.0.0.1"]));
        judge_of(
            &["::ffff:127.0.0.1"],
            ClientPlace::Local,
            Ok(&["::ffff:127.0.0.1"]),
        );
        let tunnels = tunnels(&["https://127.0.0.1:5000".to_owned()], &[], &[]);
        let other_port = tunnels.judged(
            "a.example",
            &["127.0.0.1".parse().unwrap()],
            5001,
            ClientPlace::Local,
        );
        assert!(other_port.is_err(), "{other_port:?}");
    }

    #[test]
    fn a_configured_name_may_lead_to_a_private_address_for_everybody() {
        let tunnels = tunnels(&["https://r.corp:5000".to_owned()], &[], &[]);
        let leads = |host: &str, port, address: &str| {
            let found = [address.parse().unwrap()];
            let judged = tunnels.judged(host, &found, port, ClientPlace::Elsewhere);
            judged.is_ok()
        };
        assert!(leads("r.corp", 5000, "10.0.0.1"));
        assert!(!leads("r.corp", 443, "10.0.0.1"));
        assert!(!leads("other.corp", 5000, "10.0.0.1"));
        assert!(!leads("r.corp", 5000, "127.0.0.1"));
    }

    #[tokio::test]
    async fn a_tunnel_is_opened_by_name_and_never_to_a_port_of_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = [format!("https://{address}")];
        let open = |own_ports: &[u16]| {
            let tunnels = tunnels(&endpoint, own_ports, &["127.0.0.1"]);
            async move {
                tunnels
                    .connect("a.example", address.port(), ClientPlace::Local)
                    .await
            }
        };
        let connected = open(&[]).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), address);
        let refused = open(&[address.port()]).await;
        assert!(matches!(refused, Err(TunnelError::Own(_))), "{refused:?}");
    }

    #[test]
    fn both_families_have_their_turn() {
        #[track_caller]
        fn check(found: &[&str], expect: &[&str]) {
            let at = |text: &&str| SocketAddr::new(text.parse().unwrap(), 443);
            let seen = in_turns(found.iter().map(at).collect());
            let expect: Vec<_> = expect.iter().map(at).collect();
            assert_eq!(seen, expect);
        }
        check(
            &["::2", "::3", "::4", "1.1.1.1", "1.1.1.2"],
            &["::2", "1.1.1.1", "::3", "1.1.1.2", "::4"],
        );
        check(
            &["1.1.1.1", "1.1.1.2", "::2"],
            &["1.1.1.1", "::2", "1.1.1.2"],
        );
        check(&["1.1.1.1"], &["1.1.1.1"]);
        check(&[], &[]);
    }

    #[tokio::test]
    async fn the_next_address_of_a_name_is_tried_where_one_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoints = ["127.0.0.1", "127.0.0.2"].map(|host| format!("https://{host}:{port}"));
        let tunnels = tunnels(&endpoints, &[], &["127.0.0.2", "127.0.0.1"]);
        let connected = tunnels.connect("a.example", port, ClientPlace::Local).await;
        let address = connected.unwrap().peer_addr().unwrap();
        assert_eq!(address, listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_closed_port_is_told_as_unreachable() {
        let address = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let tunnels = tunnels(&[format!("https://{address}")], &[], &[]);
        let refused = tunnels
            .connect("127.0.0.1", address.port(), ClientPlace::Local)
            .await;
        assert!(
            matches!(refused, Err(TunnelError::Unreachable { .. })),
            "{refused:?}"
        );
    }
}
