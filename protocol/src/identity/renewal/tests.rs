//! What may take the place of a certificate, and what a host shows after that.

use std::time::Duration;

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection,
    pki_types::CertificateDer,
};

use super::*;
use crate::{
    host::{HostId, Role},
    identity::{Authority, LIFETIME, Signed},
};

const CLUSTER: &str = "main";
const ROLES: [Role; 2] = [Role::Seed, Role::Proxy];

fn issue(authority: &Authority, id: &str, roles: &[Role], lifetime: Duration) -> Identity {
    let id: HostId = id.parse().unwrap();
    let roles = roles.iter().copied().collect();
    let issued = authority.issue_for(&id, roles, lifetime).unwrap();
    Identity::from_pem(authority.ca_pem(), &issued.certificate, &issued.key).unwrap()
}

fn node(authority: &Authority) -> Identity {
    issue(authority, "node-1", &ROLES, LIFETIME)
}

/// What is said to a host that is to go on with what `make` makes, the host's authority given.
#[track_caller]
fn check(make: impl FnOnce(&Authority) -> Identity, expect: Result<(), &str>) {
    let authority = Authority::new(CLUSTER).unwrap();
    let running = node(&authority);
    let before = running.certificate();
    let renewal = running.renewal(&make(&authority));
    assert_eq!(running.certificate(), before, "nothing is taken over yet");
    let told = renewal.map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(told, expect.map_err(str::to_owned));
}

#[test]
fn only_the_same_host_of_the_same_authority_takes_its_own_place() {
    check(node, Ok(()));
    check(
        |_| node(&Authority::new(CLUSTER).unwrap()),
        Err(
            "the certificate does not hold under the CA of this cluster: another authority has issued it",
        ),
    );
    check(
        |authority| issue(authority, "node-2", &ROLES, LIFETIME),
        Err("the certificate has the id `node-2`, and this host has `node-1`"),
    );
    check(
        |authority| issue(authority, "node-1", &[Role::Proxy], LIFETIME),
        Err("the certificate has the roles `proxy`, and this host has `proxy+seed`"),
    );
}

#[test]
fn another_cluster_of_the_same_authority_is_another_host() {
    let authority = Authority::new(CLUSTER).unwrap();
    let elsewhere = authority
        .issue_names(
            &["node-1.other.darter.internal"],
            &["darter:roles:seed+proxy"],
            rcgen::KeyPair::generate().unwrap(),
            (authority::wall_time(), LIFETIME),
        )
        .unwrap();
    let elsewhere =
        Identity::from_pem(authority.ca_pem(), &elsewhere.certificate, &elsewhere.key).unwrap();
    let refused = node(&authority).renewal(&elsewhere).unwrap_err();
    let told = "the certificate has the cluster `other`, and this host has `main`";
    assert_eq!(refused.to_string(), told);
}

#[test]
fn every_clone_shows_and_signs_with_the_newer_certificate() {
    let authority = Authority::new(CLUSTER).unwrap();
    let (running, reader) = (node(&authority), issue(&authority, "node-2", &[], LIFETIME));
    let (clone, before) = (running.clone(), running.sign(b"word"));
    let wanted = issue(&authority, "node-1", &ROLES, LIFETIME * 2);
    running.renew(running.renewal(&wanted).unwrap());
    assert!(clone.shows(&wanted.certificate()) && !clone.shows(&before.certificate));
    assert_eq!(clone.validity(), wanted.validity());
    let after = clone.sign(b"word");
    assert_ne!(after.certificate, before.certificate);
    // What the earlier one signed holds as long as it does.
    for Signed {
        certificate,
        signature,
    } in [before, after]
    {
        let now = authority::wall_time();
        let signer = reader.verify(&certificate, b"word", &signature, now);
        assert_eq!(signer.unwrap().id, *running.id());
    }
}

#[test]
fn who_trusts_another_authority_is_told_apart() {
    let (ours, theirs) = (
        Authority::new(CLUSTER).unwrap(),
        Authority::new(CLUSTER).unwrap(),
    );
    assert!(node(&ours).trusts_as(&node(&ours)));
    assert!(!node(&ours).trusts_as(&node(&theirs)));
}

/// The certificates that the two ends of one handshake have seen: the server's, then the client's.
fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> [CertificateDer<'static>; 2] {
    let name = "node-1.main.darter.internal".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    // Once more than it takes, so that tickets would arrive.
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
    let shown = |chain: Option<&[CertificateDer<'static>]>| chain.unwrap()[0].clone();
    [
        shown(client.peer_certificates()),
        shown(server.peer_certificates()),
    ]
}

#[test]
fn handshakes_of_configurations_made_before_show_the_newer_certificate_at_both_ends() {
    let authority = Authority::new(CLUSTER).unwrap();
    let running = node(&authority);
    let client = Arc::new(running.client_config(&[]).unwrap());
    let server = running.server_config(&[]).unwrap();
    let before = running.certificate();
    assert_eq!(
        shake(&client, &server),
        [before.clone(), before].map(Into::into)
    );
    let wanted = node(&authority);
    running.renew(running.renewal(&wanted).unwrap());
    let after = wanted.certificate();
    assert_eq!(
        shake(&client, &server),
        [after.clone(), after].map(Into::into)
    );
}
