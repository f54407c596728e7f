//! Private images by daemons that were given a login: dockerd, its BuildKit, and containerd, with
//! Darter as their proxy for HTTPS and as their mirror.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    clients::{Client, MIRROR, Naming, Own, Reference, Visit},
    darter::{Darter, Home},
    image::Image,
    namespace::Room,
    process,
    token_registry::{Caller, Door, Heard, Settings, TokenRegistry},
};
use tempfile::TempDir;

use crate::stage::{PROGRAMS, workspace};

type Login = Option<(&'static str, &'static str)>;

/// Who is refused, and what the client says then.
type Refusal = (Login, &'static str);

const ANN: Login = Some(("ann", "ann's password"));
const WRONG: Login = Some(("ann", "a wrong one"));

const BY_DOCKERD: [Refusal; 2] = [
    (None, "Error response from daemon: pull access denied for "),
    (WRONG, "unauthorized: says the token registry"),
];
const BY_CONTAINERD: [Refusal; 2] = [
    (
        None,
        "pull access denied, repository does not exist or may require authorization",
    ),
    (
        WRONG,
        "failed to fetch oauth token: unexpected status: 401 Unauthorized",
    ),
];

const LIMIT: Duration = Duration::from_secs(60);

/// Where clients find the authorities that they trust.
const TRUST: &str = "/root/trust";

/// Docker Hub, as image names call it and as clients find it.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// Docker Hub's token server, and where it is for everybody in the room.
const REALM: (&str, ([u8; 4], u16)) = ("auth.docker.io", ([127, 0, 0, 2], 443));
/// Where the registry is, if it is in the room.
const REGISTRY: ([u8; 4], u16) = ([127, 0, 0, 3], 443);

/// Where the registry and its token server stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind the room, where Darter alone can go.
    Behind,
    /// In the room, where clients can go without Darter, and are seen to.
    Inside,
}

/// A room with a registry that has a private image and a public one, and a Darter that knows it.
struct Scene {
    darter: Darter,
    home: Home,
    registry: TokenRegistry,
    room: Room,
    image: Image,
    _directory: TempDir,
}

// === impl Scene ===

impl Scene {
    /// Clients find the registry by the name `host`; Darter calls it `name`, and its `[proxy]` begins
    /// with `more`.
    fn open(place: Place, (name, host): (&str, &str), more: &str) -> Result<Self> {
        let directory = workspace()?;
        let room = Room::open(&directory.path().join("room"))?;
        let registry = registry(place, host, (&room, directory.path()))?;
        let image = Image::small(&directory.path().join("image"), "private")?;
        for repository in ["library/own", "library/open"] {
            registry.behind().push(&image, repository)?;
        }
        let home = Home::new()?;
        let authority = fs::read_to_string(registry.papers().join("ca.crt"))?;
        let config = format!(
            "[proxy]\ntunnel_ports = [443, {}]\n{more}\n[[proxy.registry]]\nname = \"{name}\"\n\
             endpoint = \"{}\"\nca = {:?}\nalso_trust = {:?}\n",
            registry.address(Door::Realm).port(),
            registry.endpoint(),
            home.write("registry.crt", &authority)?,
            registry.also_trust(),
        );
        let darter = Darter::in_room_with(&config, &room, &home)?;
        Ok(Self {
            darter,
            home,
            registry,
            room,
            image,
            _directory: directory,
        })
    }

    /// The image as `name`, for a client that has these files and variables, and trusts the authority
    /// of the registry and of its token server as if it were the system's.
    fn own(
        &self,
        name: &str,
        mut files: Vec<(String, String)>,
        mut variables: Vec<(String, String)>,
    ) -> Result<Own> {
        let authority = fs::read_to_string(self.registry.papers().join("ca.crt"))?;
        files.push((format!("{TRUST}/ca.pem"), authority));
        variables.push(("SSL_CERT_DIR".to_owned(), TRUST.to_owned()));
        let name = name.to_owned();
        Ok(Own {
            name,
            files,
            variables,
        })
    }

    fn pull(&self, client: Client, own: &Own, login: Login) -> Result<()> {
        client.pull(&Visit {
            room: &self.room,
            image: &self.image,
            naming: &Naming::Own(own.clone()),
            reference: Reference::Tag,
            login,
        })
    }

    /// The owner pulls cold and again, when the registry gives no more than its word; then the image
    /// is held, and whoever is not the owner fails with these words and is given nothing of it.
    fn is_the_owners(&self, client: Client, own: &Own, refusals: [Refusal; 2]) -> Result<()> {
        let told = || self.darter.log().unwrap_or_default();
        self.pull(client, own, ANN).with_context(told)?;
        let ann = Caller::User("ann".to_owned());
        let heard = self.registry.heard();
        ensure!(heard.iter().any(|heard| heard.caller == ann), "as whom?");
        let fetched = self.fetched();
        ensure!(fetched > 0, "nothing was fetched");
        self.pull(client, own, ANN).with_context(told)?;
        ensure!(self.fetched() == fetched, "it was fetched again");
        let others = self.asked_without_darter();
        ensure!(others.is_empty(), "{others:#?}");
        for (login, words) in refusals {
            let before = self.given()?;
            self.is_refused(client, own, (login, words))?;
            let after = self.given()?;
            ensure!(after == before, "{login:?}: {before:?}, then {after:?}");
        }
        Ok(())
    }

    /// Fails unless the pull fails, and with these words of the client's.
    fn is_refused(&self, client: Client, own: &Own, (login, words): Refusal) -> Result<()> {
        let error = self.pull(client, own, login).err();
        let error = error.map(|error| format!("{error:#}"));
        let error = error.with_context(|| format!("{login:?} has pulled it"))?;
        ensure!(error.contains(words), "{login:?}: {error}, not {words:?}");
        Ok(())
    }

    /// How often the bytes of a blob were asked for.
    fn fetched(&self) -> usize {
        self.registry.heard_of(Door::Storage, "GET", "").len()
    }

    /// What Darter counts of the manifests and blobs that it gave to its clients.
    fn given(&self) -> Result<Vec<String>> {
        let mut curl = self.room.client("curl");
        curl.args(["--silent", "--show-error", "--max-time", "50"]);
        curl.arg("http://127.0.0.1:65009/metrics");
        let told = process::check(curl, LIMIT)?;
        let is_given = |line: &&str| {
            let kinds = ["kind=\"blob\"", "kind=\"manifest\""];
            line.starts_with("darter_proxy_requests_total{")
                && line.contains("status=\"20")
                && kinds.iter().any(|kind| line.contains(kind))
        };
        let given: Vec<_> = told.lines().filter(is_given).map(str::to_owned).collect();
        ensure!(!given.is_empty(), "nothing was given to anybody: {told}");
        Ok(given)
    }

    /// What clients have asked the registry for without Darter, pings aside.
    fn asked_without_darter(&self) -> Vec<Heard> {
        let mut heard = self.registry.heard();
        heard.retain(|heard| {
            let is_client = !heard.agent.starts_with("darter/");
            heard.door != Door::Realm && is_client && heard.path != "/v2/"
        });
        heard
    }
}

fn programs() -> Vec<&'static str> {
    [&PROGRAMS[..], &["curl"]].concat()
}

/// A registry in `directory`, whose `library/own` is ann's, and whose `library/open` everybody's.
fn registry(
    place: Place,
    host: &str,
    (room, directory): (&Room, &std::path::Path),
) -> Result<TokenRegistry> {
    let behind = SocketAddr::new(room.registry_address().ip(), 0);
    let places = match place {
        Place::Behind => Door::ALL.map(|door| (door, behind)),
        Place::Inside => [
            (Door::Registry, REGISTRY.into()),
            (Door::Realm, REALM.1.into()),
            (Door::Storage, (REGISTRY.0, 0).into()),
        ],
    };
    let settings = Settings {
        service: "registry.docker.io".to_owned(),
        places: BTreeMap::from(places),
        names: vec![host.to_owned(), REALM.0.to_owned()],
        ..Settings::default()
    };
    if place == Place::Inside {
        room.call(&[(host, REGISTRY.0.into()), (REALM.0, REALM.1.0.into())])?;
    }
    let registry = TokenRegistry::start_with(directory, settings, |address| match place {
        Place::Behind => room.listen_outside(address),
        Place::Inside => room.listen(address),
    })?;
    registry.change(|rules| {
        rules.user("ann", "ann's password");
        rules
            .private("library/own", &["ann"])
            .public("library/open");
    });
    Ok(registry)
}

#[test]
fn a_private_image_through_interception_is_its_owners_for_daemons_too() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let name = "registry.test";
    for (client, runtime, refusals) in [
        (Client::Dockerd, "docker", BY_DOCKERD),
        (Client::Buildkit, "docker", BY_CONTAINERD),
        (Client::Ctr, "containerd", BY_CONTAINERD),
        (Client::Cri, "containerd", BY_CONTAINERD),
    ] {
        let intercept = format!("intercept = [\"{name}\"]");
        let scene = Scene::open(Place::Behind, (name, name), &intercept)?;
        let proxy = ("HTTPS_PROXY".to_owned(), format!("http://{MIRROR}"));
        let files = scene.home.ca_install(runtime, name)?;
        // The token server is not intercepted: it shows the certificate of its own authority.
        let own = scene.own(&format!("{name}/library/own"), files, vec![proxy])?;
        scene.is_the_owners(client, &own, refusals)?;
        scene.darter.stop()?;
    }
    Ok(())
}

#[test]
fn containerd_gives_its_login_to_the_mirror_that_is_asked_for_a_namespace() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let name = "registry.test";
    for client in [Client::Ctr, Client::Cri] {
        let scene = Scene::open(Place::Inside, (name, name), "")?;
        let path = format!("/etc/containerd/certs.d/{name}/hosts.toml");
        let hosts = format!(
            "server = \"https://{name}\"\n[host.\"http://{MIRROR}\"]\n\
             capabilities = [\"pull\", \"resolve\"]\n",
        );
        let own = format!("{name}/library/own");
        let own = scene.own(&own, vec![(path, hosts)], Vec::new())?;
        scene.is_the_owners(client, &own, BY_CONTAINERD)?;
        scene.darter.stop()?;
    }
    Ok(())
}

/// The token server of explicit names is Darter's own, and asks the registry's.
#[test]
fn containerd_gives_its_login_by_an_explicit_name() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let name = "registry.test";
    for client in [Client::Ctr, Client::Cri] {
        let scene = Scene::open(Place::Behind, (name, name), "")?;
        let own = scene.own(
            &format!("{MIRROR}/{name}/library/own"),
            Vec::new(),
            Vec::new(),
        )?;
        scene.is_the_owners(client, &own, BY_CONTAINERD)?;
        scene.darter.stop()?;
    }
    Ok(())
}

fn is_dockers(heard: &Heard) -> bool {
    heard.agent.starts_with("docker/")
}

/// dockerd with Darter as its mirror of a Docker Hub that stands in the room.
fn with_mirror_of_hub(scene: &Scene, name: &str) -> Result<Own> {
    let mirrors = format!("{{\"registry-mirrors\": [\"http://{MIRROR}\"]}}\n");
    let file = ("/etc/docker/daemon.json".to_owned(), mirrors);
    scene.own(name, vec![file], Vec::new())
}

/// dockerd pulls from Docker Hub through its mirror, with a login what is private, and without one
/// what is public.
fn pulls_by_mirror_of_hub(more: &str) -> Result<()> {
    let scene = Scene::open(Place::Inside, HUB, more)?;
    let own = with_mirror_of_hub(&scene, "own")?;
    scene.is_the_owners(Client::Dockerd, &own, BY_DOCKERD)?;
    scene.pull(Client::Dockerd, &with_mirror_of_hub(&scene, "open")?, None)?;
    let blobs = scene.registry.heard_of(Door::Storage, "GET", "");
    ensure!(!blobs.iter().any(is_dockers), "{blobs:#?}");
    scene.darter.stop()
}

#[test]
fn dockerd_gives_its_login_for_docker_hub_to_a_mirror_that_challenges_as_docker_hub() -> Result<()>
{
    if !can_run(&programs())? {
        return Ok(());
    }
    pulls_by_mirror_of_hub("ping_challenge = {docker = \"hub\"}")
}

#[test]
fn dockerd_goes_to_docker_hub_itself_where_the_mirror_does_not_challenge() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let scene = Scene::open(Place::Inside, HUB, "")?;
    let own = with_mirror_of_hub(&scene, "own")?;
    scene.pull(Client::Dockerd, &own, ANN)?;
    let ann = Caller::User("ann".to_owned());
    let heard = scene.registry.heard();
    let mut hers = heard.iter().filter(|heard| heard.caller == ann);
    ensure!(hers.all(is_dockers), "{heard:#?}");
    let blobs = scene.registry.heard_of(Door::Storage, "GET", "");
    ensure!(
        !blobs.is_empty() && blobs.iter().all(is_dockers),
        "{blobs:#?}"
    );
    for refusal in BY_DOCKERD {
        scene.is_refused(Client::Dockerd, &own, refusal)?;
    }
    scene.darter.stop()
}

/// Tokens are Darter's own then, also for explicit names, and it asks the registry's token server.
#[test]
fn dockerd_gives_its_login_to_a_mirror_with_challenges_of_its_own() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let more = "ping_challenge = {docker = \"own\"}";
    pulls_by_mirror_of_hub(more)?;
    let name = "registry.test";
    let scene = Scene::open(Place::Behind, (name, name), more)?;
    let own = scene.own(
        &format!("{MIRROR}/{name}/library/own"),
        Vec::new(),
        Vec::new(),
    )?;
    scene.is_the_owners(Client::Dockerd, &own, BY_DOCKERD)?;
    scene.darter.stop()
}
