//! Registries behind TLS: whose authority is believed, for which name, and for whose registry.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use protocol::{ContentKind, RegistryName};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use swarm::source::{
    Access, AddressClass, Authority, ByteRange, ClientIdentity, Config, Outside, Papers,
    ProxyTexts, RegistryConfig, SourceError, SourceMetrics, SystemNames, Timeouts, UpstreamProxy,
    Upstreams,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::{
    Fetched, REGISTRY, credential, fetch, fetch_blob, fetch_request,
    places::Everywhere,
    registry::{Registry, Reply},
    upstreams_of,
};

const BODY: &[u8] = b"content";

/// Nobody who is believed vouches for it. All authorities here have the same name, so that it is
/// the signature that counts.
const NOT_BELIEVED: &str = "invalid peer certificate";

/// The authority of one operator's registries.
struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A registry that is reached by TLS alone.
struct TlsRegistry {
    plain: Registry,
    address: SocketAddr,
    /// For each client let in, whether it showed a certificate.
    shown: Arc<Mutex<Vec<bool>>>,
    _serving: JoinSet<()>,
}

// === impl Ca ===

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no name that could be wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate of its own"))
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// What a server of this name shows.
    fn issue(&self, name: &str) -> ServerConfig {
        let (leaf, key) = self.leaf(name);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut trusted = RootCertStore::empty();
        trusted.add(self.certificate()).expect("an authority");
        let verifier =
            WebPkiClientVerifier::builder_with_provider(trusted.into(), provider.clone())
                .allow_unauthenticated()
                .build()
                .expect("one authority");
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![leaf], key)
            .expect("the key is that of the certificate")
    }

    fn leaf(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (leaf.der().clone(), key)
    }

    fn client(&self) -> ClientIdentity {
        let (leaf, key) = self.leaf("client");
        ClientIdentity::new(vec![leaf], key).expect("the key of the certificate")
    }
}

// === impl TlsRegistry ===

impl TlsRegistry {
    /// Unwraps TLS before `plain`, with a certificate of `ca` for `name`.
    async fn start(plain: Registry, ca: &Ca, name: &str) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(ca.issue(name)));
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound listener");
        let behind = plain.address;
        let shown = Arc::<Mutex<Vec<bool>>>::default();
        let log = Arc::clone(&shown);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                connections.spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else {
                        return;
                    };
                    let is_shown = client.get_ref().1.peer_certificates().is_some();
                    log.lock().expect("nobody panicked").push(is_shown);
                    if let Ok(mut server) = TcpStream::connect(behind).await {
                        let _broken = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self {
            plain,
            address,
            shown,
            _serving: serving,
        }
    }

    /// One that has [`BODY`], with a certificate for the address that it is asked at.
    async fn healthy(ca: &Ca) -> Self {
        let plain = Registry::start(|asked| Reply::serve(asked, BODY)).await;
        Self::start(plain, ca, "127.0.0.1").await
    }

    fn url(&self) -> Url {
        Url::parse(&format!("https://{}/", self.address)).expect("an address makes a URL")
    }

    fn config(&self, ca: &[&Ca]) -> RegistryConfig {
        RegistryConfig {
            endpoints: vec![self.url()],
            also_trust: Vec::new(),
            ca: ca.iter().map(|ca| ca.certificate()).collect(),
            client: None,
            docker_config: None,
        }
    }

    /// Nobody was let through to what it has.
    fn was_not_asked(&self) -> bool {
        self.plain.asked().is_empty()
    }
}

fn upstreams(registries: impl IntoIterator<Item = (&'static str, RegistryConfig)>) -> Upstreams {
    let name = |name: &str| -> RegistryName { name.parse().expect("a registry name") };
    let registries: HashMap<_, _> = registries
        .into_iter()
        .map(|(registry, config)| (name(registry), config))
        .collect();
    // A handshake takes its time on a busy machine.
    let patient = Timeouts {
        connect: Duration::from_secs(10),
        response: Duration::from_secs(10),
        stall: Duration::from_secs(10),
        backoff: Duration::from_millis(1),
        fallback: Duration::from_secs(10),
        fallback_memory: Duration::ZERO,
        ..Timeouts::default()
    };
    upstreams_of(registries, patient, Arc::new(SystemNames))
}

#[track_caller]
fn assert_unreachable(outcome: Result<Fetched, SourceError>, why: &str) {
    match outcome {
        Err(SourceError::Unreachable { reason, .. }) => {
            assert!(reason.contains(why), "{reason:?} does not tell of {why}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_registry_is_believed_by_the_authority_that_is_written_for_it() {
    let ca = Ca::new();
    let registry = TlsRegistry::healthy(&ca).await;
    let upstreams = upstreams([(REGISTRY, registry.config(&[&ca]))]);
    assert_eq!(fetch_blob(&upstreams, None).await.unwrap().bytes, BODY);
}

#[tokio::test]
async fn without_its_authority_a_registry_is_not_spoken_to() {
    let (ca, other) = (Ca::new(), Ca::new());
    let registry = TlsRegistry::healthy(&ca).await;
    for believed in [&[][..], &[&other]] {
        let upstreams = upstreams([(REGISTRY, registry.config(believed))]);
        // Its first word would carry the credential.
        let outcome = fetch_blob(&upstreams, credential("Bearer mine")).await;
        assert_unreachable(outcome, NOT_BELIEVED);
    }
    assert!(registry.was_not_asked());
}

#[tokio::test]
async fn the_authority_of_one_registry_is_none_for_another() {
    let ca = Ca::new();
    let registry = TlsRegistry::healthy(&ca).await;
    let other = TlsRegistry::healthy(&ca).await;
    let upstreams = upstreams([
        (REGISTRY, registry.config(&[])),
        ("other.example", other.config(&[&ca])),
    ]);
    assert_unreachable(fetch_blob(&upstreams, None).await, NOT_BELIEVED);
    assert!(registry.was_not_asked());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let ca = Ca::new();
    for name in ["localhost", "127.0.0.2"] {
        let plain = Registry::start(|asked| Reply::serve(asked, BODY)).await;
        let registry = TlsRegistry::start(plain, &ca, name).await;
        let upstreams = upstreams([(REGISTRY, registry.config(&[&ca]))]);
        assert_unreachable(fetch_blob(&upstreams, None).await, "not valid for name");
        assert!(registry.was_not_asked());
    }
}

#[tokio::test]
async fn the_authority_holds_where_the_registry_redirects_to_and_nowhere_else() {
    let (ca, other) = (Ca::new(), Ca::new());
    for (issuer, is_believed) in [(&ca, true), (&other, false)] {
        let store = TlsRegistry::healthy(issuer).await;
        let location = format!("307 Temporary Redirect\r\nLocation: {}signed", store.url());
        let plain = Registry::start(move |_| Reply::status(&location)).await;
        let registry = TlsRegistry::start(plain, &ca, "127.0.0.1").await;
        let also_trust = Authority::of(&store.url()).into_iter().collect();
        let config = RegistryConfig {
            also_trust,
            ..registry.config(&[&ca])
        };
        let outcome = fetch_blob(&upstreams([(REGISTRY, config)]), None).await;
        if is_believed {
            assert_eq!(outcome.unwrap().bytes, BODY);
        } else {
            assert_unreachable(outcome, NOT_BELIEVED);
            assert!(store.was_not_asked());
        }
    }
}

#[tokio::test]
async fn the_certificate_for_a_registry_is_shown_to_it_and_to_what_is_also_trusted() {
    let ca = Ca::new();
    let store = TlsRegistry::healthy(&ca).await;
    let location = format!("307 Temporary Redirect\r\nLocation: {}signed", store.url());
    let plain = Registry::start(move |_| Reply::status(&location)).await;
    let registry = TlsRegistry::start(plain, &ca, "127.0.0.1").await;
    for client in [Some(ca.client()), None] {
        let is_shown = client.is_some();
        let config = RegistryConfig {
            also_trust: Authority::of(&store.url()).into_iter().collect(),
            client,
            ..registry.config(&[&ca])
        };
        let outcome = fetch_blob(&upstreams([(REGISTRY, config)]), None).await;
        let fetched = outcome.unwrap();
        assert_eq!(fetched.bytes, BODY);
        // What the certificate opens is no more public than what a credential does.
        let expect = match is_shown {
            true => Access::Caller,
            false => Access::Anonymous,
        };
        assert_eq!(fetched.access, expect);
        for to in [&registry, &store] {
            let shown = std::mem::take(&mut *to.shown.lock().expect("nobody panicked"));
            assert_eq!(shown, [is_shown]);
        }
    }
}

/// The store to which a registry redirects that no entry speaks of.
const STORE: &str = "store.invalid";

/// A proxy that knows of two hosts, on whatever port: the registry and the store.
async fn tunnels_to(registry: SocketAddr, store: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("the loopback has a free port");
    let address = listener.local_addr().expect("a bound listener");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.expect("a whole head"));
                }
                let is_store = head.starts_with(format!("CONNECT {STORE}:").as_bytes());
                let place = if is_store { store } else { registry };
                let mut far = TcpStream::connect(place).await.expect("it listens");
                let connected = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                connected.expect("the client waits");
                let _broken = copy_bidirectional(&mut client, &mut far).await;
            });
        }
    });
    (address, serving)
}

/// [`REGISTRY`] is allowed without an entry, and `of` has papers.
fn allowed_with(
    of: &str,
    papers: Papers,
    proxy: Option<SocketAddr>,
    outside: Outside,
) -> Upstreams {
    let proxy = proxy.map(|proxy| ProxyTexts {
        https: format!("http://{proxy}"),
        ..ProxyTexts::default()
    });
    let proxy = proxy.and_then(|texts| UpstreamProxy::new(&texts).expect("a proxy"));
    let config = Config {
        papers: HashMap::from([(of.parse().expect("a name"), papers)]),
        allow: [REGISTRY, of]
            .map(|name| name.parse().expect("a pattern"))
            .into(),
        proxy,
        ..Config::default()
    };
    let metrics = SourceMetrics::register(&prometheus::Registry::new()).expect("a fresh registry");
    Upstreams::with_outside(config, metrics, outside).expect("good papers")
}

#[tokio::test]
async fn the_papers_of_a_registry_without_an_entry_are_its_own() {
    let ca = Ca::new();
    let plain = Registry::start(|asked| Reply::serve(asked, BODY)).await;
    let store = TlsRegistry::start(plain, &ca, STORE).await;
    let location = format!("307 Temporary Redirect\r\nLocation: https://{STORE}/signed");
    let plain = Registry::start(move |_| Reply::status(&location)).await;
    let registry = TlsRegistry::start(plain, &ca, REGISTRY).await;
    let (proxy, _tunnels) = tunnels_to(registry.address, store.address).await;
    let papers = Papers {
        ca: vec![ca.certificate()],
        client: Some(ca.client()),
    };
    let other = allowed_with("quay.io", papers.clone(), Some(proxy), Outside::default());
    assert_unreachable(fetch_blob(&other, None).await, NOT_BELIEVED);
    assert!(registry.was_not_asked());

    let own = allowed_with(REGISTRY, papers, Some(proxy), Outside::default());
    let fetched = fetch_blob(&own, None).await.unwrap();
    assert_eq!((&fetched.bytes[..], fetched.access), (BODY, Access::Caller));
    // The store is believed as the registry is, and is not shown who this host is.
    for (to, is_shown) in [(&registry, true), (&store, false)] {
        let shown = to.shown.lock().expect("nobody panicked").clone();
        assert_eq!(shown, [is_shown]);
    }
}

#[tokio::test]
async fn papers_without_an_entry_lead_to_no_address_that_is_not_everybodys() {
    for (address, class) in [
        ("127.0.0.1", AddressClass::Loopback),
        ("10.0.0.7", AddressClass::Private),
    ] {
        let outside = Outside {
            names: Arc::new(Everywhere(address.parse().expect("an address"))),
            ..Outside::default()
        };
        let upstreams = allowed_with(REGISTRY, Papers::default(), None, outside);
        match fetch_blob(&upstreams, None).await {
            Err(SourceError::Forbidden { class: seen, .. }) => assert_eq!(seen, class),
            other => panic!("{other:?}"),
        }
    }
    // One that is named by its address is not resolved, and is judged all the same.
    let address = "10.0.0.7";
    let upstreams = allowed_with(address, Papers::default(), None, Outside::default());
    let (start, end) = (0, None);
    let mut request = fetch_request(ContentKind::Blob, ByteRange { start, end }, None);
    request.origin.registry = address.parse().expect("a name");
    let outcome = fetch(&upstreams, request).await;
    assert!(
        matches!(outcome, Err(SourceError::Forbidden { .. })),
        "{outcome:?}"
    );
}
