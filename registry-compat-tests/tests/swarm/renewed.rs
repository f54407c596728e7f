//! A cluster whose certificates end in the middle of a transfer: every host has been given a newer one
//! by then, and nobody notices. What is no newer certificate of the same host is refused.

use std::{net::TcpStream, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use protocol::{
    Host, Identity, Role,
    identity::{Authority, LIFETIME},
};
use registry_compat_tests::{
    cluster::{CLUSTER, Cluster, Member, Papers},
    content::{digest_of, noise},
    http::Request,
    image::Blob,
    process::wait_until,
    registry::free_address,
};
use rustls::ClientConnection;

use super::{HERD_LIMIT, Herd, Shape, can_herd, pull, pull_while, source::Source};
use crate::{
    refused::{greet, hello},
    reload::{hang_up, reload},
};

const SIZE: usize = 16 << 20;

/// What every client has before anything happens.
const BEGUN: u64 = 4 << 20;

/// How long the certificates hold that the hosts begin with: longer than it takes to start them, and
/// shorter than a source may stand still.
const SHORT: Duration = Duration::from_secs(20);

const SHAPE: Shape = Shape {
    schedulers: &["scheduler"],
    seeds: &["seed"],
    hosts: 2,
};

const EXPIRES: &str = "darter_identity_expires_seconds";

/// The certificate that `host` shows to `client` at its port for `alpn`.
fn shown_by(host: &Host, client: &Identity, alpn: &[u8]) -> Result<Vec<u8>> {
    let config = Arc::new(client.client_config(&[alpn])?);
    let mut connection = ClientConnection::new(config, client.server_name(&host.id))?;
    let mut socket = TcpStream::connect(host.address)?;
    socket.set_read_timeout(Some(HERD_LIMIT))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    let chain = connection.peer_certificates().context("it shows none")?;
    Ok(chain.first().context("it shows none")?.to_vec())
}

/// Gives `member` papers that hold for long, and waits until it has taken them over.
fn renew(cluster: &Cluster, member: &Member, role: Role) -> Result<Papers> {
    let papers = cluster.papers(member.id(), &[role])?;
    papers.write(&member.home)?;
    hang_up(&member.darter, "applied")?;
    let until = papers.identity()?.validity();
    ensure!(
        member.darter.metric(EXPIRES)? == *until.end() as f64,
        "{} tells another end",
        member.id()
    );
    Ok(papers)
}

/// Every host of the herd is given papers that hold for long, and shows them; what it began with has
/// ended after that.
fn renew_all(herd: &mut Herd) -> Result<()> {
    let cluster = &mut herd.cluster;
    // Issued last: once it has ended, all that the hosts began with have.
    let probe = cluster.identity("probe", &[Role::Proxy])?;
    cluster.lifetime = LIFETIME;
    let (scheduler, seed) = (cluster.scheduler().clone(), cluster.seed().clone());
    greet(&probe, &scheduler, hello("probe", false)?)?;
    let at_scheduler = renew(cluster, &herd.schedulers[0], Role::Scheduler)?;
    let at_seed = renew(cluster, &herd.seeds[0], Role::Seed)?;
    for host in &herd.hosts {
        renew(cluster, host, Role::Proxy)?;
    }
    let client = cluster.identity("looks", &[Role::Proxy])?;
    for (host, papers, alpn) in [
        (&scheduler, &at_scheduler, &b"h2"[..]),
        (&seed, &at_seed, &b"h2"[..]),
        (&seed, &at_seed, &b"http/1.1"[..]),
    ] {
        let shown = shown_by(host, &client, alpn)?;
        ensure!(papers.identity()?.shows(&shown), "{host} shows another");
    }
    wait_until("the old certificates have ended", HERD_LIMIT, || {
        let hello = hello("probe", false).ok();
        hello.is_some_and(|hello| greet(&probe, &scheduler, hello).is_err())
    })
}

/// Starts one more host.
fn newcomer(herd: &mut Herd, id: &str) -> Result<()> {
    let member = herd.cluster.start(id, &[Role::Proxy])?;
    herd.hosts.push(member);
    Ok(())
}

/// Everybody who talks to the scheduler and the seed has to show a certificate anew.
fn restart(herd: &mut Herd) -> Result<()> {
    for members in [&mut herd.schedulers, &mut herd.seeds] {
        let remains = members.remove(0).kill()?;
        members.push(remains.start()?);
    }
    herd.seeds[0].wait_for_sessions(1)?;
    for host in &herd.hosts {
        host.wait_for_sessions(2)?;
    }
    Ok(())
}

#[test]
fn a_cluster_whose_certificates_end_goes_on_with_those_that_it_was_given() -> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let source = Source::held_at("renewed", SIZE, SIZE / 2)?;
    let mut cluster = Cluster::of(source.address(), SHAPE.schedulers, SHAPE.seeds)?;
    cluster.lifetime = SHORT;
    let mut herd = Herd::start_in(cluster, SHAPE, |plan| plan)?;
    herd.seeds[0].wait_for_word("the certificate of this host ends soon")?;
    let proxies = herd.proxies()?;
    let pulled = pull_while(&proxies, &source.blob, |taken| {
        let acted = taken.wait_beyond(BEGUN).and_then(|()| {
            renew_all(&mut herd)?;
            newcomer(&mut herd, "in-the-middle")?;
            let proxy = herd.hosts[SHAPE.hosts].darter.proxy()?;
            // What was signed before is signed anew for it.
            pull_while(&[proxy], &source.blob, |taken| {
                let begun = taken.wait_beyond(BEGUN);
                source.open();
                begun
            })
        });
        source.open();
        acted
    });
    let held = pulled.and_then(|()| {
        source.fetched_once()?;
        newcomer(&mut herd, "after-it")?;
        let after = herd.hosts[SHAPE.hosts + 1].darter.proxy()?;
        pull(&[after], &source.blob)?;
        restart(&mut herd)?;
        newcomer(&mut herd, "at-last")?;
        let last = herd.hosts[SHAPE.hosts + 2].darter.proxy()?;
        pull(&[last], &source.blob)?;
        source.fetched_once()?;
        let bytes = noise("renewed-other", SIZE)?;
        let other = Blob {
            digest: digest_of(&bytes),
            size: bytes.len() as u64,
        };
        source.registry.put_blob(&other.digest, bytes);
        pull(&herd.proxies()?, &other)?;
        let fetches = source.registry.fetched(&other.digest);
        ensure!(fetches.len() == 1, "asked {fetches:?}");
        let banned = herd.schedulers[0]
            .darter
            .metric("darter_scheduler_banned_total")?;
        ensure!(banned == 0.0, "{banned} hosts were banned");
        Ok(())
    });
    herd.told(held)
}

/// A host by itself that has its papers from `cluster`, and is given others.
struct Stand {
    cluster: Cluster,
    member: Member,
    began_with: Vec<u8>,
}

const NODE: &str = "node";
const ROLES: [Role; 2] = [Role::Seed, Role::Proxy];

// === impl Stand ===

impl Stand {
    fn start() -> Result<Self> {
        let cluster = Cluster::of(free_address()?, &[], &[NODE])?;
        let member = cluster.start_as(&cluster.plan(NODE, &ROLES))?;
        let began_with = shown(&cluster)?;
        Ok(Self {
            cluster,
            member,
            began_with,
        })
    }

    /// With `papers` and one more registry it is as it was, and says why.
    fn refuses(&self, papers: &Papers, why: &str) -> Result<()> {
        papers.write(&self.member.home)?;
        let Member { darter, home, .. } = &self.member;
        reload(darter, home, &self.more(), "refused")?;
        let line = self.member.wait_for_word(why)?;
        ensure!(line.contains("the configuration stays as it was"), "{line}");
        ensure!(
            shown(&self.cluster)? == self.began_with,
            "{why}: it shows another"
        );
        ensure!(self.status()? == 403, "{why}: the rest was taken over");
        Ok(())
    }

    /// The configuration that it was started with, and one more registry.
    fn more(&self) -> String {
        let entry =
            "[[proxy.registry]]\nname = \"other.test\"\nendpoint = \"http://127.0.0.1:9\"\n";
        let config = &self.member.config;
        config.replace("[swarm]", &format!("{entry}[swarm]"))
    }

    /// How it answers for what the other registry has.
    fn status(&self) -> Result<u16> {
        let path = format!("/v2/other.test/app/blobs/{}", digest_of(b""));
        Ok(Request::get(&path)
            .fetch(self.member.darter.proxy()?)?
            .status)
    }
}

/// What the host of a [`Stand`] shows now.
fn shown(cluster: &Cluster) -> Result<Vec<u8>> {
    let client = cluster.identity("looks", &[Role::Proxy])?;
    shown_by(cluster.seed(), &client, b"http/1.1")
}

/// Papers of `authority` that have ended.
fn ended(authority: &Authority) -> Result<Papers> {
    let roles = ROLES.into_iter().collect();
    let ca = authority.ca_pem().to_owned();
    let issued = authority.issue_for(&NODE.parse()?, roles, Duration::ZERO)?;
    let papers = Papers { ca, issued };
    wait_until("it has ended", HERD_LIMIT, || papers.identity().is_err())?;
    Ok(papers)
}

#[test]
fn what_is_no_newer_certificate_of_the_same_host_is_refused_with_all_that_comes_with_it()
-> Result<()> {
    if !can_herd()? {
        return Ok(());
    }
    let stand = Stand::start()?;
    let cluster = &stand.cluster;
    let ours = |id: &str, roles: &[Role]| cluster.papers(id, roles);
    let good = || ours(NODE, &ROLES);

    let mut torn = good()?;
    torn.issued.certificate.truncate(100);
    stand.refuses(&torn, "the certificate is not PEM")?;
    let mut mixed = good()?;
    mixed.issued.key = good()?.issued.key;
    stand.refuses(&mixed, "the key does not belong to the certificate")?;
    stand.refuses(&ended(&cluster.authority)?, "it has expired")?;
    let renamed = ours("other", &ROLES)?;
    stand.refuses(&renamed, "the id `other`, and this host has `node`")?;
    let risen = ours(NODE, &[Role::Scheduler, Role::Seed, Role::Proxy])?;
    stand.refuses(&risen, "the roles `proxy+seed+scheduler`, and")?;
    let fallen = ours(NODE, &[Role::Proxy])?;
    stand.refuses(&fallen, "does not give this host the role seed")?;
    // Without the CA that issued them, and with it.
    let foreign = Authority::new(CLUSTER)?;
    let issued = foreign.issue(&NODE.parse()?, ROLES.into_iter().collect())?;
    for (ca, why) in [
        (
            cluster.authority.ca_pem(),
            "another authority has issued it",
        ),
        (
            foreign.ca_pem(),
            "a restart to be taken over: the certificate does not hold",
        ),
    ] {
        let (ca, issued) = (ca.to_owned(), issued.clone());
        stand.refuses(&Papers { ca, issued }, why)?;
    }

    // Another CA beside the one that issued it is for the next start.
    let mut both = good()?;
    both.ca = [both.ca.as_str(), foreign.ca_pem()].concat();
    both.write(&stand.member.home)?;
    let Member { darter, home, .. } = &stand.member;
    reload(darter, home, &stand.more(), "applied")?;
    stand.member.wait_for_word("\"keys\":\"identity.ca\"")?;
    ensure!(both.identity()?.shows(&shown(cluster)?), "it shows another");
    ensure!(stand.status()? != 403, "the rest was not taken over");
    ensure!(!darter.log()?.contains("ends soon"), "{}", darter.log()?);
    Ok(())
}
