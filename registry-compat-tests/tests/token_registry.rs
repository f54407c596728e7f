//! The token registry itself, proven by real clients that ask it without Darter between, and by raw
//! HTTP where they would say too little.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use registry_compat_tests::{
    can_run,
    clients::{Client, Naming, Reference, Secured, Visit},
    content::{digest_of, noise},
    http::{Request, Whole},
    image::{INDEX_TYPE, Image},
    namespace::Room,
    process,
    token_registry::{
        Blobs, Caller, Door, Forbidden, Heard, Ping, Scheme, Settings, TokenForm, TokenRegistry,
        Transport, basic, text_of,
    },
};

use crate::stage::{PROGRAMS, workspace};

const USER: (&str, &str) = ("ann", "her-password");
const OTHER: (&str, &str) = ("bob", "his-password");
const LIMIT: Duration = Duration::from_secs(60);

/// All in the clear, for raw HTTP.
fn plain() -> Settings {
    Settings {
        transport: Transport::Plain,
        realm_transport: Transport::Plain,
        ..Settings::default()
    }
}

/// Two users; `team/open` is everybody's, `team/own` is the first one's to read and the other's to
/// write.
fn furnish(registry: &TokenRegistry) {
    registry.change(|rules| {
        rules.user(USER.0, USER.1).user(OTHER.0, OTHER.1);
        rules.public("team/open").private("team/own", &[USER.0]);
        rules.writer("team/own", OTHER.0);
    });
}

/// A plain one with a blob in `team/own`, and the blob.
fn with_blob(directory: &std::path::Path, settings: Settings) -> Result<(TokenRegistry, String)> {
    let registry = TokenRegistry::start(directory, settings)?;
    furnish(&registry);
    let bytes = noise("token registry", 100_000)?;
    let digest = digest_of(&bytes);
    let file = directory.join("blob");
    fs::write(&file, &bytes)?;
    registry.behind().push_blob("team/own", &digest, &file)?;
    Ok((registry, digest))
}

fn ask(address: SocketAddr, method: &str, target: &str, authorization: &str) -> Result<Whole> {
    let request = Request::new(method, target);
    match authorization.is_empty() {
        true => request.fetch(address),
        false => request
            .header("Authorization", authorization)
            .fetch(address),
    }
}

fn header<'a>(whole: &'a Whole, name: &str) -> &'a str {
    whole.header(name).unwrap_or("-")
}

/// Path and query of a URL.
fn target_of(url: &str) -> Result<&str> {
    let (_, rest) = url.split_once("//").context("no URL")?;
    Ok(&rest[rest.find('/').context("no path")?..])
}

#[test]
fn clients_pull_what_is_public_as_nobody_and_what_is_private_as_themselves() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let directory = workspace()?;
    let image = Image::small(&directory.path().join("image"), "token registry")?;
    let room = Room::open(&directory.path().join("room"))?;
    let registry = TokenRegistry::start_with(directory.path(), Settings::default(), |place| {
        room.listen(place)
    })?;
    furnish(&registry);
    for repository in ["team/open", "team/own"] {
        registry.behind().push(&image, repository)?;
    }
    let ca = fs::read_to_string(registry.papers().join("ca.crt"))?;
    let pull = |client: Client, repository: &str, login: Option<(&str, &str)>| {
        let naming = Naming::Secured(Secured {
            registry: registry.address(Door::Registry).to_string(),
            repository: repository.to_owned(),
            ca: ca.clone(),
        });
        client.pull(&Visit {
            room: &room,
            image: &image,
            naming: &naming,
            reference: Reference::Tag,
            login,
        })
    };
    for client in [Client::Dockerd, Client::Ctr, Client::Podman, Client::Skopeo] {
        let before = registry.heard().len();
        pull(client, "team/open", None)?;
        pull(client, "team/own", Some(USER))?;
        is_all_by_token(&registry.heard()[before..]).with_context(|| format!("{client:?}"))?;
        for login in [None, Some((USER.0, "wrong"))] {
            let refused = pull(client, "team/own", login);
            ensure!(refused.is_err(), "{client:?} pulled as {login:?}");
        }
    }
    ensure!(!registry.heard_with(&basic(USER.0, USER.1)).is_empty());
    Ok(())
}

/// Each blob came from the storage host once and without a credential, after a redirect.
fn is_all_by_token(heard: &[Heard]) -> Result<()> {
    let of = |door: Door| heard.iter().filter(move |heard| heard.door == door);
    let is_blob = |heard: &&Heard| heard.path.contains("/blobs/") && heard.method == "GET";
    let served = of(Door::Registry).filter(is_blob);
    let redirected = served.clone().filter(|heard| heard.status == 307).count();
    ensure!(redirected > 0, "no blob was redirected");
    ensure!(served.map(|heard| heard.sent).sum::<u64>() < 10_000);
    ensure!(of(Door::Storage).count() == redirected, "{heard:#?}");
    ensure!(of(Door::Storage).all(|heard| heard.caller == Caller::Nobody && heard.status == 200));
    let ann = Caller::User(USER.0.to_owned());
    for caller in [Caller::Anonymous, ann] {
        let by = of(Door::Registry).filter(|heard| heard.caller == caller);
        ensure!(by.clone().count() > 1, "nothing by {caller:?}");
        ensure!(by.clone().all(|heard| heard.status < 400), "{caller:?}");
    }
    Ok(())
}

#[test]
fn a_writer_pushes_through_it_and_a_reader_does_not() -> Result<()> {
    if !can_run(&["docker-registry", "skopeo", "setpriv"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let image = Image::small(&directory.path().join("image"), "pushed")?;
    let registry = TokenRegistry::start(directory.path(), Settings::default())?;
    furnish(&registry);
    let name = format!("{}/team/own:latest", registry.address(Door::Registry));
    let source = directory.path().join("copied");
    registry.behind().push(&image, "team/source")?;
    let copy = |arguments: &[&str], from: &str, to: &str| {
        let mut copy = process::command("skopeo");
        copy.args([
            "--insecure-policy",
            "copy",
            "--all",
            "--quiet",
            "--preserve-digests",
        ]);
        copy.args(arguments).args([from, to]);
        process::run(copy, LIMIT)
    };
    let plain = format!(
        "docker://{}/team/source:latest",
        registry.behind().address()
    );
    let held = format!("dir:{}", source.display());
    copy(&["--src-tls-verify=false"], &plain, &held)?.success()?;
    let papers = format!("--dest-cert-dir={}", registry.papers().display());
    let push = |(user, password): (&str, &str)| {
        let login = format!("--dest-creds={user}:{password}");
        copy(&[&papers, &login], &held, &format!("docker://{name}"))
    };
    ensure!(!push(USER)?.status.success(), "a reader has pushed");
    push(OTHER)?.success()?;
    let pushed = Request::get("/v2/team/own/manifests/latest").header("Accept", INDEX_TYPE);
    let pushed = pushed.fetch(registry.behind().address())?;
    ensure!(digest_of(&pushed.body) == image.index.digest);
    Ok(())
}

#[test]
fn a_token_ends_with_its_time_its_user_and_its_right() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    for token_form in [TokenForm::Opaque, TokenForm::Jwt] {
        let directory = workspace()?;
        let settings = Settings {
            token_form,
            ..plain()
        };
        let (registry, digest) = with_blob(directory.path(), settings)?;
        let target = format!("/v2/team/own/blobs/{digest}");
        let address = registry.address(Door::Registry);
        let told = |token: &str| -> Result<(u16, String)> {
            let whole = ask(address, "HEAD", &target, &format!("Bearer {token}"))?;
            let error = header(&whole, "www-authenticate").rsplit_once("error=");
            let error = error.map_or("", |(_, error)| error.trim_matches('"'));
            Ok((whole.status, error.to_owned()))
        };
        let expect = |token: &str, status: u16, error: &str| -> Result<()> {
            let told = told(token)?;
            ensure!(
                told == (status, error.to_owned()),
                "{token_form:?}: {told:?}"
            );
            Ok(())
        };
        let token = || registry.token(USER.0, USER.1, "team/own");
        let (first, second, third) = (token()?, token()?, token()?);
        expect(&first, 200, "")?;
        registry.revoke(&first);
        expect(&first, 401, "invalid_token")?;
        expect(&second, 200, "")?;
        registry.revoke_all_of(USER.0);
        expect(&third, 401, "invalid_token")?;
        let fourth = token()?;
        expect(&fourth, 200, "")?;
        registry.expire_tokens();
        expect(&fourth, 401, "invalid_token")?;
        expect("made-up", 401, "invalid_token")?;
        let elsewhere = registry.token(USER.0, USER.1, "team/open")?;
        expect(&elsewhere, 401, "insufficient_scope")?;
        let fifth = token()?;
        registry.change(|rules| {
            rules.private("team/own", &[]);
        });
        expect(&fifth, 401, "insufficient_scope")?;
        registry.change(|rules| rules.forbidden = Forbidden::Denied);
        expect(&fifth, 403, "")?;
        registry.change(|rules| rules.forbidden = Forbidden::Hidden);
        expect(&fifth, 404, "")?;
        ensure!(registry.heard_with(&format!("Bearer {fifth}")).len() == 3);
    }
    Ok(())
}

#[test]
fn the_token_server_takes_passwords_and_refresh_tokens_by_get_and_by_post() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let (registry, digest) = with_blob(directory.path(), plain())?;
    let realm = registry.address(Door::Realm);
    let scopes = "service=registry.test&scope=repository:team/own:pull&scope=repository:x:pull";
    let get = |query: &str, login: &str| ask(realm, "GET", &format!("/token?{query}"), login);
    let post = |form: &str| {
        let request = Request::new("POST", "/token");
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        let body = &mut form.as_bytes();
        request.send_with(realm, body, form.len() as u64)?.whole()
    };
    let opens = |body: &[u8]| -> Result<u16> {
        let bearer = format!("Bearer {}", text_of(body, "token")?);
        let target = format!("/v2/team/own/blobs/{digest}");
        Ok(ask(registry.address(Door::Registry), "HEAD", &target, &bearer)?.status)
    };
    let nobody = get(scopes, "")?;
    ensure!(opens(&nobody.body)? == 401, "an anonymous token opens it");
    let login = basic(USER.0, USER.1);
    let own = get(&format!("{scopes}&account=ann&offline_token=true"), &login)?;
    ensure!(opens(&own.body)? == 200, "{}", own.text());
    let refresh = text_of(&own.body, "refresh_token")?;
    let again = post(&format!(
        "grant_type=refresh_token&refresh_token={refresh}&{scopes}&client_id=test"
    ))?;
    ensure!(opens(&again.body)? == 200, "{}", again.text());
    let form = format!(
        "grant_type=password&username=ann&password={}&{scopes}",
        USER.1
    );
    let by_form = post(&form)?;
    ensure!(opens(&by_form.body)? == 200, "{}", by_form.text());
    ensure!(get(scopes, &basic(USER.0, "wrong"))?.status == 401);
    ensure!(post(&form.replace("her-", "my-"))?.status == 401);
    ensure!(post("grant_type=magic")?.status == 400);
    registry.revoke(&refresh);
    let revoked = format!("grant_type=refresh_token&refresh_token={refresh}&{scopes}");
    ensure!(post(&revoked)?.status == 401);
    registry.change(|rules| rules.refuses_post = true);
    ensure!(post(&form)?.status == 404);
    let heard = format!("{:?}", registry.heard());
    for secret in [&refresh, USER.1, "wrong", &login] {
        ensure!(!heard.contains(secret), "{secret} was noted");
    }
    Ok(())
}

#[test]
fn the_storage_host_gives_bytes_for_a_good_address_and_for_nothing_else() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let settings = Settings {
        places: BTreeMap::from([(Door::Storage, ([127, 0, 0, 2], 0).into())]),
        ..plain()
    };
    let (registry, digest) = with_blob(directory.path(), settings)?;
    let bytes = noise("token registry", 100_000)?;
    let own = format!("Bearer {}", registry.token(USER.0, USER.1, "team/own")?);
    let blob = format!("/v2/team/own/blobs/{digest}");
    let address = || -> Result<String> {
        let whole = ask(registry.address(Door::Registry), "GET", &blob, &own)?;
        ensure!(whole.status == 307, "{}: {}", whole.status, whole.text());
        let location = header(&whole, "location");
        ensure!(location.starts_with("http://127.0.0.2:"), "{location}");
        Ok(target_of(location)?.to_owned())
    };
    let store = registry.address(Door::Storage);
    let target = address()?;
    ensure!(ask(store, "GET", &target, "")?.body == bytes);
    let part = Request::get(&target)
        .header("Range", "bytes=10-19")
        .fetch(store)?;
    ensure!(
        part.status == 206 && part.body == bytes[10..20],
        "{}",
        part.status
    );
    ensure!(ask(store, "GET", &target, &own)?.status == 400);
    ensure!(ask(store, "HEAD", &target, "")?.status == 403);
    ensure!(ask(store, "GET", &target.replace("own", "open"), "")?.status == 403);
    ensure!(ask(store, "GET", &target.replace("expires=1", "expires=2"), "")?.status == 403);
    ensure!(
        ask(
            store,
            "GET",
            target.split('?').next().unwrap_or_default(),
            ""
        )?
        .status
            == 403
    );
    registry.change(|rules| rules.signature_life = Duration::ZERO);
    ensure!(ask(store, "GET", &address()?, "")?.status == 403);
    let stored = registry.heard_of(Door::Storage, "GET", &digest);
    let sent: Vec<u64> = stored.iter().map(|heard| heard.sent).collect();
    ensure!(sent[..2] == [100_000, 10], "{sent:?}");
    Ok(())
}

#[test]
fn a_registry_takes_passwords_or_refuses_head_or_is_down_as_it_is_told() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let settings = Settings {
        scheme: Scheme::Basic,
        ping: Ping::Open,
        blobs: Blobs::Served,
        ..plain()
    };
    let (registry, digest) = with_blob(directory.path(), settings)?;
    let address = registry.address(Door::Registry);
    let blob = format!("/v2/team/own/blobs/{digest}");
    let nobody = ask(address, "GET", &blob, "")?;
    let told = header(&nobody, "www-authenticate");
    ensure!(nobody.status == 401 && told.starts_with("Basic "), "{told}");
    ensure!(ask(address, "GET", "/v2/", "")?.status == 200);
    let own = basic(USER.0, USER.1);
    ensure!(ask(address, "GET", &blob, &own)?.body.len() == 100_000);
    let head = ask(address, "HEAD", &blob, &own)?;
    ensure!(header(&head, "content-length") == "100000", "{head:?}");
    ensure!(ask(address, "GET", &blob, &basic(USER.0, "wrong"))?.status == 401);
    ensure!(ask(registry.address(Door::Realm), "GET", "/token", "")?.status == 404);
    registry.change(|rules| rules.refuses_head = Some(StatusCode::METHOD_NOT_ALLOWED));
    ensure!(ask(address, "HEAD", &blob, &own)?.status == 405);
    registry.change(|rules| {
        rules.down.insert(Door::Registry);
    });
    ensure!(ask(address, "GET", &blob, &own).is_err(), "it is not down");
    registry.change(|rules| rules.down.clear());
    registry.change(|rules| rules.latency = Duration::from_millis(50));
    let watch = process::Stopwatch::start();
    ensure!(ask(address, "GET", &blob, &own)?.status == 200);
    ensure!(Duration::from_millis(50) <= watch.elapsed());
    Ok(())
}

#[test]
fn garbage_ends_a_connection_and_no_more() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let (registry, digest) = with_blob(directory.path(), plain())?;
    for door in Door::ALL {
        let address = registry.address(door);
        for target in [
            "/",
            "*",
            "/v2/..//blobs/",
            "/token?scope=%ff%00:::&scope=",
            "/x?expires=-1",
        ] {
            for authorization in ["Basic !", "Basic Og==", "Bearer", "Bearer \u{7f}", "x"] {
                // What is no HTTP is not answered, or is a bad request.
                let status = ask(address, "GET", target, authorization).map(|whole| whole.status);
                ensure!(
                    status.unwrap_or(400) != 500,
                    "{door:?} {target} {authorization}"
                );
            }
        }
    }
    let bearer = format!("Bearer {}", registry.token(USER.0, USER.1, "team/own")?);
    let blob = format!("/v2/team/own/blobs/{digest}");
    let after = ask(registry.address(Door::Registry), "HEAD", &blob, &bearer)?;
    ensure!(after.status == 200);
    Ok(())
}
