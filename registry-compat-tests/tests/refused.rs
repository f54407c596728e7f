//! Who has no certificate of the cluster, or says of itself what its certificate does not, is
//! refused by scheduler and seed, each of which logs it; what it pulls it then gets from the
//! upstream by itself.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use protocol::{
    Host, Identity, Role, Scheduler as _,
    grpc::SchedulerClient,
    identity::Authority,
    scheduler::{Hello, SessionError},
};
use registry_compat_tests::{
    can_run,
    cluster::{CLUSTER, Cluster, Member, Papers},
    darter::{Darter, Home},
    process::wait_until,
    registry::Registry,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::pem::PemObject as _};

use crate::{
    pull::digest_through,
    stage::{Golden, golden},
    two_hosts::{FLOW_LIMIT, path},
};

/// What whoever refuses a host logs.
const REFUSED: &str = "a host was refused";

/// A scheduler, a seed and a proxy that trust each other, and hold the biggest layer.
struct Trusted {
    cluster: Cluster,
    scheduler: Member,
    seed: Member,
    _proxy: Member,
    registry: Registry,
    golden: Arc<Golden>,
}

// === impl Trusted ===

impl Trusted {
    /// `None` on a machine that cannot run it, which is told of.
    fn start() -> Result<Option<Self>> {
        if !can_run(&["docker-registry", "setpriv"])? {
            return Ok(None);
        }
        let golden = golden()?;
        let registry = Registry::start(&golden.registry_directory())?;
        let cluster = Cluster::new(registry.address(), "scheduler", "seed")?;
        let scheduler = cluster.start("scheduler", &[Role::Scheduler])?;
        let seed = cluster.start("seed", &[Role::Seed])?;
        let proxy = cluster.start("proxy", &[Role::Proxy])?;
        let trusted = Self {
            cluster,
            scheduler,
            seed,
            _proxy: proxy,
            registry,
            golden,
        };
        trusted.pull(&trusted._proxy, 1)?;
        Ok(Some(trusted))
    }

    /// `member` gets the biggest layer, at which the registry has been asked `fetches` times.
    fn pull(&self, member: &Member, fetches: usize) -> Result<()> {
        let blob = self.golden.image.biggest()?;
        let digest = digest_through(member.darter.proxy()?, &path(&blob))
            .with_context(|| member.darter.log().unwrap_or_default())?;
        ensure!(digest == blob.digest, "wrong bytes: {digest}");
        let fetched = || self.registry.fetches_of(&blob.digest).unwrap_or_default();
        wait_until("the registry's log", FLOW_LIMIT, || fetches <= fetched())?;
        let fetched = fetched();
        ensure!(
            fetched == fetches,
            "the registry was asked {fetched} times, not {fetches}"
        );
        Ok(())
    }

    /// A proxy with these papers is let in by nobody, and pulls all the same.
    fn refuses(&self, papers: Option<&Papers>) -> Result<()> {
        let stranger = self
            .cluster
            .start_stranger("stranger", &[Role::Proxy], papers)?;
        stranger.wait_for_word("no session")?;
        self.pull(&stranger, 2)?;
        self.scheduler.wait_for_word(REFUSED)?;
        self.seed.wait_for_word(REFUSED)?;
        counted(&self.scheduler, "scheduler", "certificate")?;
        counted(&self.seed, "swarm", "certificate")?;
        let log = stranger.darter.log()?;
        ensure!(!log.contains("session open"), "it was let in:\n{log}");
        Ok(())
    }

    fn greets(&self, identity: &Identity, hello: Hello) -> Result<(), SessionError> {
        greet(identity, self.cluster.scheduler(), hello)
    }

    /// A hello that `identity` may not say is refused, and the scheduler logs why.
    fn refuses_hello(&self, identity: &Identity, hello: Hello, why: &str) -> Result<()> {
        match self.greets(identity, hello) {
            Err(SessionError::Refused(told)) => ensure!(told.contains(why), "{told}"),
            other => bail!("not refused: {other:?}"),
        }
        let line = self.scheduler.wait_for_word(why)?;
        ensure!(line.contains(REFUSED), "{line}");
        counted(&self.scheduler, "scheduler", "session")
    }
}

/// A host that was refused is counted by `member`.
fn counted(member: &Member, listener: &str, reason: &str) -> Result<()> {
    let name = format!("darter_refused_hosts_total{{listener=\"{listener}\",reason=\"{reason}\"");
    let count = member.darter.metric(&name)?;
    ensure!(0.0 < count, "{} counts {name} {count}", member.id());
    Ok(())
}

/// A session as `identity` that opens with `hello`.
pub(crate) fn greet(
    identity: &Identity,
    scheduler: &Host,
    hello: Hello,
) -> Result<(), SessionError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| SessionError::Unreachable(error.to_string()))?;
    let client = SchedulerClient::new(identity.clone(), scheduler.clone());
    runtime.block_on(client.open(hello)).map(drop)
}

pub(crate) fn hello(id: &str, is_seed: bool) -> Result<Hello> {
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let id = id.parse()?;
    Ok(Hello {
        host: Host { id, address },
        is_seed,
        upload_slots: 1,
        idc: None,
        location: None,
    })
}

/// Opens TLS with an authority to believe and no certificate to show; `Err` tells of the alert.
fn handshake_without_certificate(ca: &str, host: &Host, alpn: &[u8]) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(
        ca.as_bytes(),
    )?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = format!("{}.{CLUSTER}.darter.internal", host.id).try_into()?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let mut socket = std::net::TcpStream::connect(host.address)?;
    socket.set_read_timeout(Some(FLOW_LIMIT))?;
    // In TLS 1.3 the client is done before the server has judged it; the verdict comes after.
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    while connection.wants_write() {
        connection.write_tls(&mut socket)?;
    }
    connection.read_tls(&mut socket)?;
    connection.process_new_packets()?;
    Ok(())
}

#[test]
fn a_host_without_a_certificate_is_refused_and_pulls_by_itself() -> Result<()> {
    let Some(trusted) = Trusted::start()? else {
        return Ok(());
    };
    trusted.refuses(None)
}

#[test]
fn a_host_of_another_authority_of_the_same_name_is_refused_and_pulls_by_itself() -> Result<()> {
    let Some(trusted) = Trusted::start()? else {
        return Ok(());
    };
    let foreign = Authority::new(CLUSTER)?;
    let roles = [Role::Proxy].into_iter().collect();
    // It believes the cluster, so that it is the cluster that does not believe it.
    let ca = [foreign.ca_pem(), trusted.cluster.authority.ca_pem()].concat();
    let issued = foreign.issue(&"stranger".parse()?, roles)?;
    trusted.refuses(Some(&Papers { ca, issued }))
}

#[test]
fn whoever_shows_no_certificate_gets_an_alert_and_not_a_word() -> Result<()> {
    let Some(trusted) = Trusted::start()? else {
        return Ok(());
    };
    let (scheduler, seed) = (trusted.cluster.scheduler(), trusted.cluster.seed());
    let ca = trusted.cluster.authority.ca_pem();
    let doors = [
        (scheduler, &b"h2"[..]),
        (seed, &b"h2"[..]),
        (seed, &b"http/1.1"[..]),
    ];
    for (host, alpn) in doors {
        let told = handshake_without_certificate(ca, host, alpn);
        let told = told.err().context("the handshake went through")?;
        let told = format!("{told:#}");
        ensure!(told.contains("CertificateRequired"), "{host}: {told}");
    }
    trusted.scheduler.wait_for_word(REFUSED)?;
    trusted.seed.wait_for_word(REFUSED)?;
    Ok(())
}

#[test]
fn a_host_that_gives_another_id_or_a_role_it_does_not_have_is_refused() -> Result<()> {
    let Some(trusted) = Trusted::start()? else {
        return Ok(());
    };
    let identity = trusted.cluster.identity("liar", &[Role::Proxy])?;
    trusted.greets(&identity, hello("liar", false)?)?;
    trusted.refuses_hello(
        &identity,
        hello("proxy", false)?,
        "the certificate names liar, the message proxy",
    )?;
    trusted.refuses_hello(
        &identity,
        hello("liar", true)?,
        "the certificate of liar lacks the seed role",
    )
}

#[test]
fn a_process_does_not_take_a_role_that_its_certificate_lacks() -> Result<()> {
    let Some(trusted) = Trusted::start()? else {
        return Ok(());
    };
    let papers = trusted.cluster.papers("liar", &[Role::Proxy])?;
    for role in [Role::Seed, Role::Scheduler] {
        let home = Home::new()?;
        let plan = trusted.cluster.plan("liar", &[role, Role::Proxy]);
        let config = trusted.cluster.config(&home, &plan, Some(&papers))?;
        let told = Darter::run(&config, &home).err().context("it runs")?;
        let told = format!("{told:#}");
        let why = format!("does not give this host the role {}", role.as_str());
        ensure!(told.contains(&why), "{told}");
    }
    Ok(())
}

/// The other way round: a host that finds another than it was told of does not speak to it.
#[test]
fn a_scheduler_under_another_id_is_not_spoken_to_and_pulls_go_on() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let golden = golden()?;
    let registry = Registry::start(&golden.registry_directory())?;
    let cluster = Cluster::new(registry.address(), "scheduler", "seed")?;
    let papers = cluster.papers("impostor", &[Role::Scheduler])?;
    let impostor = cluster.start_stranger("impostor", &[Role::Scheduler], Some(&papers))?;
    let papers = cluster.papers("second", &[Role::Proxy])?;
    let second = cluster.start_stranger("second", &[Role::Proxy], Some(&papers))?;
    let line = second.wait_for_word("no session")?;
    ensure!(line.contains("scheduler@"), "{line}");
    let blob = golden.image.biggest()?;
    let digest = digest_through(second.darter.proxy()?, &path(&blob))?;
    ensure!(digest == blob.digest, "wrong bytes: {digest}");
    let log = second.darter.log()?;
    ensure!(!log.contains("session open"), "it spoke to it:\n{log}");
    impostor.wait_for_word(REFUSED)?;
    Ok(())
}
