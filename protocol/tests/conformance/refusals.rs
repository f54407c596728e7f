//! What only gRPC can get wrong: certificates, versions, garbage and silence.

use std::sync::Arc;

use protocol::{
    Host, Identity, Role, Scheduler as _,
    availability::Availability as _,
    grpc,
    identity::{Authority, PeerIdentity},
    scheduler::{Hello, SessionError},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::mpsc};

use crate::{
    harness::{
        Server, authority, hello, id, identity, remote_parent, remote_scheduler, serve_scheduler,
        services, within,
    },
    raw::{self, field, frame},
};

/// Opens a session as `client` with a scheduler of `authority`, and says how that failed.
async fn refused(authority: &Authority, client: Identity, hello: Hello) -> SessionError {
    let under_test = remote_scheduler(authority).await;
    let address = under_test.server.as_ref().unwrap().address;
    let host = Host {
        id: id("scheduler-1"),
        address,
    };
    within(grpc::SchedulerClient::new(client, host).open(hello))
        .await
        .unwrap_err()
}

fn node(authority: &Authority) -> Identity {
    identity(authority, "node-1", &[Role::Proxy])
}

#[tokio::test]
async fn a_host_speaks_for_itself_alone() {
    let authority = authority();
    let other = Hello {
        host: "node-2@10.0.0.6:1".parse().unwrap(),
        ..hello()
    };
    let error = refused(&authority, node(&authority), other).await;
    let told = "the certificate names node-1, the message node-2";
    assert_eq!(error, SessionError::Refused(told.to_owned()));
}

#[tokio::test]
async fn no_host_is_a_seed_by_its_own_word() {
    let authority = authority();
    let seed = Hello {
        is_seed: true,
        ..hello()
    };
    let error = refused(&authority, node(&authority), seed).await;
    let told = "the certificate of node-1 lacks the seed role";
    assert_eq!(error, SessionError::Refused(told.to_owned()));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_at_either_end() {
    let (ours, theirs) = (authority(), authority());
    let error = refused(&ours, node(&theirs), hello()).await.to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    // This one trusts our scheduler, so it is the scheduler that must refuse.
    let issued = theirs
        .issue(&id("node-1"), [Role::Proxy].into_iter().collect())
        .unwrap();
    let both = format!("{}{}", theirs.ca_pem(), ours.ca_pem());
    let trusting = Identity::from_pem(&both, &issued.certificate, &issued.key).unwrap();
    let error = refused(&ours, trusting, hello()).await;
    assert!(matches!(error, SessionError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let authority = authority();
    let Server { address, .. } = &remote_scheduler(&authority).await.server.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connected = raw::connect(config, &node(&authority), "scheduler-1", *address).await;
    // The refusal is told by an alert, after the client's half of the handshake.
    let error = within(connected.unwrap().read_to_end(&mut Vec::new()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn no_host_can_stand_in_for_another() {
    let authority = authority();
    let under_test = remote_scheduler(&authority).await;
    let address = under_test.server.as_ref().unwrap().address;
    let other = Host {
        id: id("scheduler-2"),
        address,
    };
    let client = grpc::SchedulerClient::new(node(&authority), other.clone());
    let error = within(client.open(hello())).await.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    let client = grpc::AvailabilityClient::new(node(&authority));
    let error = within(client.open(&other)).await.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_host_without_the_role_is_no_scheduler() {
    let authority = authority();
    let (sender, _sessions) = mpsc::channel(1);
    let server = serve_scheduler(identity(&authority, "node-2", &[Role::Proxy]), sender).await;
    let host = Host {
        id: id("node-2"),
        address: server.address,
    };
    let client = grpc::SchedulerClient::new(node(&authority), host);
    let error = within(client.open(hello())).await.unwrap_err().to_string();
    assert!(error.contains("lacks the scheduler role"), "{error}");
}

/// Posts `body` to the scheduler and to a parent, and expects both to refuse it alike.
async fn check(body: Vec<u8>, code: u32, message: &str) {
    let authority = authority();
    let scheduler = remote_scheduler(&authority).await;
    let parent = remote_parent(&authority).await;
    let client = node(&authority);
    let servers = [
        (
            "scheduler-1",
            scheduler.server.unwrap(),
            "/darter.v1.Scheduler/Open",
        ),
        (
            "seed-1",
            parent.server.unwrap(),
            "/darter.v1.Availability/Open",
        ),
    ];
    for (name, server, path) in servers {
        let target = (name, server.address);
        let sent = raw::post(&client, target, path, body.clone());
        let (seen, told) = within(sent).await.unwrap();
        assert_eq!(seen, code, "{told}");
        assert!(told.contains(message), "{told}");
    }
}

const INVALID_ARGUMENT: u32 = 3;
const FAILED_PRECONDITION: u32 = 9;
const OUT_OF_RANGE: u32 = 11;

#[tokio::test]
async fn what_is_no_first_message_is_refused() {
    let hello_of_version_9 = frame(&field(1, &[1 << 3, 9]));
    let versions = "speaks version 9 of the protocol, this one version 1";
    check(hello_of_version_9, FAILED_PRECONDITION, versions).await;
    check(
        Vec::new(),
        INVALID_ARGUMENT,
        "ended before its first message",
    )
    .await;
    check(frame(&[]), INVALID_ARGUMENT, "no hello").await;
    check(frame(&[0xff; 9]), INVALID_ARGUMENT, "").await;
    check(frame(&field(2, &[])), INVALID_ARGUMENT, "no hello").await;
    check(vec![7; 40], INVALID_ARGUMENT, "").await;
    let mut too_long = vec![0];
    too_long.extend_from_slice(&(5u32 << 20).to_be_bytes());
    check(too_long, OUT_OF_RANGE, "").await;
}

#[tokio::test]
async fn garbage_in_an_open_session_ends_it_with_a_reason() {
    let authority = authority();
    let mut under_test = remote_scheduler(&authority).await;
    let address = under_test.server.as_ref().unwrap().address;
    let host = [field(1, b"node-1"), field(2, b"10.0.0.5:65002")].concat();
    let hello = [vec![1 << 3, 1], field(2, &host), vec![4 << 3, 8]].concat();
    let task_of_31_bytes = field(2, &field(1, &[7; 31]));
    let body = [frame(&field(1, &hello)), frame(&task_of_31_bytes)].concat();
    let node = node(&authority);
    let target = ("scheduler-1", address);
    let sent = raw::post(&node, target, "/darter.v1.Scheduler/Open", body);
    let (code, told) = within(sent).await.unwrap();
    assert_eq!(
        (code, told.as_str()),
        (3, "malformed message: a task is 32 or 64 bytes long")
    );
    let mut end = within(under_test.sessions.recv()).await.unwrap();
    assert_eq!(within(end.up.recv()).await, None);
    within(end.down.closed()).await;
}

#[tokio::test]
async fn whoever_connects_and_is_silent_is_given_up() {
    let authority = authority();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = Host {
        id: id("scheduler-1"),
        address: silent.local_addr().unwrap(),
    };
    let client = grpc::SchedulerClient::new(node(&authority), host);
    let (_silent_client, io) = tokio::io::duplex(1024);
    let peer = PeerIdentity {
        id: id("node-1"),
        roles: [Role::Proxy].into_iter().collect(),
    };
    let (sender, _sessions) = mpsc::channel(1);
    let served = grpc::serve_scheduler(io, peer, services(sender), std::future::pending());
    let (opened, served) = within(async { tokio::join!(client.open(hello()), served) }).await;
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("did not answer within 3s"), "{error}");
    assert_eq!(served, Err(grpc::ServeError::Silent));
}
