//! Clients that know of no proxy, whose connections the shipped rules of nftables redirect.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    clients::{Client, Naming, Own, Reference, Visit},
    darter::{Darter, Home},
    namespace::{DARTER_UID, Room},
    process,
    registry::Registry,
};
use tempfile::TempDir;

use super::{LIMIT, entry, papers::Papers};
use crate::stage::{Golden, PROGRAMS, golden, workspace};

/// The registry, where HTTPS is.
const REGISTRY: &str = "10.77.0.2:443";

/// The shipped rules, for the user that Darter is in a room.
const RULES: &str = "../deploy/nftables/darter.nft";

/// A room in which HTTPS is redirected to a Darter that answers for `registry.test`.
pub(super) struct Scene {
    pub(super) papers: Papers,
    pub(super) registry: Registry,
    pub(super) home: Home,
    pub(super) darter: Darter,
    pub(super) room: Room,
    pub(super) golden: std::sync::Arc<Golden>,
    _directory: TempDir,
}

// === impl Scene ===

impl Scene {
    pub(super) fn open(rules: &str) -> Result<Self> {
        let directory = workspace()?;
        let papers = Papers::of(&["registry.test", "other.test", "10.77.0.2", "fd77::2"])?;
        let room = Room::open(&directory.path().join("room"))?;
        let golden = golden()?;
        let content = golden.registry_directory();
        let start = |program: &str| room.registry(program);
        let both_families = "[::]:443".parse()?;
        let registry = Registry::start_with(&papers.tls(), &content, both_families, start)?;
        let home = Home::new()?;
        let config = format!(
            "[proxy]\nintercept = [\"registry.test\"]\ntransparent_listen = \"127.0.0.1:65443\"\n{}",
            entry("registry.test", REGISTRY, &papers),
        );
        let darter = Darter::in_room_with(&config, &room, &home)?;
        // Everybody has the way to the registry here, in both families; the rules turn it round.
        let (inside, outside) = (room.client("ip"), room.registry("ip"));
        let again = || room.client("ip");
        for (mut ip, arguments) in [
            (inside, "route add 10.77.0.2/32 dev up0"),
            (outside, "addr add fd77::2/64 dev down0 nodad"),
            (again(), "addr add fd77::1/64 dev up0 nodad"),
        ] {
            ip.args(arguments.split(' '));
            process::check(ip, LIMIT)?;
        }
        let file = home.write("darter.nft", rules)?;
        let mut load = room.client("nft");
        load.arg("-f").arg(file);
        process::check(load, LIMIT)?;
        Ok(Self {
            papers,
            registry,
            home,
            darter,
            room,
            golden,
            _directory: directory,
        })
    }

    /// The status that curl in the room has from `url` by trusting `authority`; else how it ended.
    pub(super) fn ask(&self, url: &str, authority: &PathBuf) -> Result<String> {
        let mut curl = self.room.client("curl");
        curl.args(["--silent", "--max-time", "50", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{http_code}", "--cacert"])
            .arg(authority);
        curl.args(["--resolve", "other.test:443:10.77.0.2", url]);
        let ended = process::run(curl, LIMIT)?;
        let code = ended.status.code().context("curl was killed")?;
        Ok(match code {
            0 => ended.output,
            code => format!("ended with {code}"),
        })
    }
}

/// The shipped rules with this in the place of the user that they leave out.
pub(super) fn rules(user: &str) -> Result<String> {
    let shipped = fs::read_to_string(RULES)?;
    let told = "define darter_user = darter\n";
    ensure!(shipped.contains(told), "the rules name no user");
    Ok(shipped.replace(told, &format!("define darter_user = {user}\n")))
}

pub(super) fn programs() -> Vec<&'static str> {
    [&PROGRAMS[..], &["curl", "nft"]].concat()
}

#[test]
fn a_client_that_knows_no_proxy_pulls_through_darter() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let scene = Scene::open(&rules(&DARTER_UID.to_string())?)?;
    for (client, runtime) in [(Client::Skopeo, "podman"), (Client::Ctr, "containerd")] {
        let visit = Visit {
            room: &scene.room,
            image: &scene.golden.image,
            naming: &Naming::Own(Own {
                name: "registry.test/team/sealed".to_owned(),
                files: scene.home.ca_install(runtime, "registry.test")?,
                variables: Vec::new(),
            }),
            reference: Reference::Tag,
            login: None,
        };
        let pulled = client.pull(&visit);
        pulled.with_context(|| scene.darter.log().unwrap_or_default())?;
    }
    scene.registry.asked_only_by("darter/")?;
    scene.darter.stop()
}

#[test]
fn a_name_is_known_in_either_family_of_addresses() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let scene = Scene::open(&rules(&DARTER_UID.to_string())?)?;
    let authority = scene.home.path().join("local.pem");
    fs::write(&authority, scene.home.ca_of("registry.test")?)?;
    for address in ["10.77.0.2", "[fd77::2]"] {
        let mut curl = scene.room.client("curl");
        curl.args(["--silent", "--show-error", "--max-time", "50", "--cacert"])
            .arg(&authority);
        curl.args(["--resolve", &format!("registry.test:443:{address}")]);
        curl.arg("https://registry.test/v2/");
        let told = process::check(curl, LIMIT);
        ensure!(told? == "{}", "{address}");
    }
    scene.darter.stop()
}

#[test]
fn what_is_not_intercepted_goes_where_it_was_going() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let scene = Scene::open(&rules(&DARTER_UID.to_string())?)?;
    let its_own = scene.papers.ca();
    for url in [
        "https://other.test/v2/",
        "https://10.77.0.2/v2/",
        "https://[fd77::2]/v2/",
    ] {
        let seen = scene.ask(url, &its_own)?;
        ensure!(seen == "200", "{url}: {seen}\n{}", scene.darter.log()?);
    }
    scene.registry.asked_only_by("curl/")?;
    let metric = "darter_proxy_connects_total{way=\"tunnelled\"";
    let in_room = |name: &str| -> Result<String> {
        let mut curl = scene.room.client("curl");
        curl.args(["--silent", "http://127.0.0.1:65009/metrics"]);
        let told = process::check(curl, LIMIT)?;
        let line = told.lines().find(|line| line.starts_with(name));
        Ok(line.unwrap_or_default().to_owned())
    };
    ensure!(in_room(metric)?.ends_with(" 3"), "{}", in_room(metric)?);
    // Who does not trust us is passed on the next time.
    let untrusting = "https://registry.test/v2/";
    let first = scene.ask(untrusting, &its_own)?;
    let second = scene.ask(untrusting, &its_own)?;
    ensure!(
        (first.as_str(), second.as_str()) == ("ended with 60", "200"),
        "{first} {second}"
    );
    scene.darter.stop()
}

#[test]
fn rules_that_redirect_darter_itself_make_no_circle() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let scene = Scene::open(&rules("4242")?)?;
    let seen = scene.ask("https://other.test/v2/", &scene.papers.ca())?;
    ensure!(seen.starts_with("ended with"), "{seen}");
    let log = scene.darter.log()?;
    ensure!(log.contains("leads back to this process"), "{log}");
    ensure!(scene.registry.accesses()?.is_empty());
    scene.darter.stop()
}

/// All programs of this host have one address here, and none tells what it is called.
#[test]
fn a_program_that_does_not_trust_us_speaks_for_itself_alone() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let scene = Scene::open(&rules(&DARTER_UID.to_string())?)?;
    let its_own = scene.papers.ca();
    let asked = || scene.ask("https://registry.test/v2/", &its_own);
    let (first, second) = (asked()?, asked()?);
    ensure!(
        (first.as_str(), second.as_str()) == ("ended with 60", "200"),
        "{first} {second}"
    );
    let visit = Visit {
        room: &scene.room,
        image: &scene.golden.image,
        naming: &Naming::Own(Own {
            name: "registry.test/team/sealed".to_owned(),
            files: scene.home.ca_install("podman", "registry.test")?,
            variables: Vec::new(),
        }),
        reference: Reference::Tag,
        login: None,
    };
    let pulled = Client::Skopeo.pull(&visit);
    pulled.with_context(|| scene.darter.log().unwrap_or_default())?;
    for access in scene.registry.accesses()? {
        let is_ours = access.agent.starts_with("darter/");
        // A ping is passed on as it is.
        let is_passed_on = access.path == "/v2/";
        ensure!(is_ours || is_passed_on, "{access:?}");
    }
    scene.darter.stop()
}

/// Whoever asks the port itself was going nowhere else.
#[test]
fn a_connection_that_was_not_redirected_is_not_served() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let scene = Scene::open(&rules(&DARTER_UID.to_string())?)?;
    let mut curl = scene.room.client("curl");
    curl.args(["--silent", "--insecure", "--max-time", "50"]);
    curl.args(["--resolve", "registry.test:65443:127.0.0.1"]);
    curl.arg("https://registry.test:65443/v2/");
    let ended = process::run(curl, LIMIT)?;
    ensure!(!ended.status.success(), "{}", ended.output);
    scene.darter.stop()
}
