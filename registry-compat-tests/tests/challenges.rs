//! Private images through the mirror, by clients that name the registry in the path: they are sent to
//! this node for their tokens, and the registry's own token server gives them.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use registry_compat_tests::{
    can_run,
    darter::{Darter, Home},
    http::Request,
    image::Image,
    process,
    token_registry::{Caller, Door, Ping, Scheme, Settings, TokenRegistry, basic, text_of},
};
use tempfile::TempDir;

/// A registry with a private and a public image, and a mirror that knows it by two names.
struct Stage {
    registry: TokenRegistry,
    darter: Darter,
    home: Home,
    directory: TempDir,
}

const LIMIT: Duration = Duration::from_secs(120);

// === impl Stage ===

impl Stage {
    fn start(settings: Settings, more: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let registry = TokenRegistry::start(&directory.path().join("registry"), settings)?;
        registry.change(|rules| {
            rules.user("ann", "ann's password").user("bob", "bob's");
            rules.private("team/own", &["ann"]).public("team/open");
            rules.writer("team/own", "ann");
        });
        let image = Image::small(&directory.path().join("image"), "challenges")?;
        for repository in ["team/own", "team/open"] {
            registry.behind().push(&image, repository)?;
        }
        let (home, free) = (Home::new()?, "listen = \"127.0.0.1:0\"");
        let config = format!(
            "data_dir = {:?}\n[proxy]\n{free}\nallow = [\"*.pattern.test\"]\n{more}{}{}\
             [swarm]\n{free}\n[scheduler]\n{free}\n[admin]\n{free}\n",
            home.path().join("data"),
            registry.entry("registry.test"),
            registry.entry("second.test"),
        );
        let darter = Darter::run(&config, &home)?;
        Ok(Self {
            registry,
            darter,
            home,
            directory,
        })
    }

    /// What the explicit name of a repository is.
    fn name(&self, repository: &str) -> Result<String> {
        Ok(format!(
            "{}/registry.test/{repository}:latest",
            self.darter.proxy()?
        ))
    }

    /// `skopeo copy` of a repository, as `user:password` or as nobody.
    fn skopeo(&self, repository: &str, login: Option<&str>) -> Result<()> {
        let mut copy = process::command("skopeo");
        copy.args(["--insecure-policy", "copy", "--all", "--quiet"]);
        copy.arg("--src-tls-verify=false");
        match login {
            Some(login) => copy.args(["--src-creds", login]),
            None => copy.arg("--src-no-creds"),
        };
        let target = tempfile::tempdir_in(&self.directory)?;
        copy.arg(format!("docker://{}", self.name(repository)?));
        copy.arg(format!("dir:{}", target.path().display()));
        process::check(copy, LIMIT).map(drop)
    }

    /// `podman pull` or `buildah pull` by an explicit name.
    fn pull(&self, program: &str, repository: &str, login: &str) -> Result<()> {
        let name = self.name(repository)?;
        self.pull_with(program, login, &["--tls-verify=false", &name])
    }

    /// `podman pull` or `buildah pull`, with a store of its own and Darter as its proxy for HTTPS, which
    /// is not asked for what is on this host.
    fn pull_with(&self, program: &str, login: &str, words: &[&str]) -> Result<()> {
        let store = tempfile::tempdir_in(&self.directory)?;
        let at = |name: &str| store.path().join(name);
        let policy = at("policy.json");
        fs::write(
            &policy,
            "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}",
        )?;
        let mut pull = process::command(program);
        pull.env("HTTPS_PROXY", format!("http://{}", self.darter.proxy()?));
        pull.arg("--root").arg(at("store"));
        pull.arg("--runroot").arg(at("run"));
        pull.args(["--storage-driver", "vfs", "pull", "--quiet"]);
        pull.args(["--creds", login]);
        pull.arg("--signature-policy").arg(&policy);
        pull.args(words);
        process::check(pull, LIMIT).map(drop)
    }

    /// Whether somebody's own token or password has read a blob.
    fn was_read_by(&self, user: &str) -> bool {
        let heard = self.registry.heard();
        heard.iter().any(|heard| {
            heard.door == Door::Registry
                && heard.caller == Caller::User(user.to_owned())
                && heard.path.contains("/team/own/")
        })
    }
}

/// Fails unless `told` failed, and with these words of the client's.
fn fails(told: Result<()>, words: &str) -> Result<()> {
    let error = told.err().map(|error| format!("{error:#}"));
    let error = error.unwrap_or_default();
    ensure!(error.contains(words), "{error}, not {words:?}");
    Ok(())
}

#[test]
fn a_private_image_by_its_explicit_name_is_its_owners() -> Result<()> {
    if !can_run(&["buildah", "docker-registry", "podman", "skopeo"])? {
        return Ok(());
    }
    let stage = Stage::start(Settings::default(), "")?;
    stage.skopeo("team/own", Some("ann:ann's password"))?;
    ensure!(stage.was_read_by("ann"), "as whom?");
    for program in ["podman", "buildah"] {
        stage.pull(program, "team/own", "ann:ann's password")?;
    }
    // It is held now, and whoever has no right to it is told so in the client's ordinary words.
    fails(stage.skopeo("team/own", None), "unauthorized")?;
    fails(stage.skopeo("team/own", Some("bob:bob's")), "denied")
        .or_else(|_| fails(stage.skopeo("team/own", Some("bob:bob's")), "unauthorized"))?;
    fails(stage.skopeo("team/own", Some("ann:wrong")), "unauthorized")?;
    // What is everybody's needs no word with the token server of anybody's.
    stage.skopeo("team/open", None)?;
    let secret = "ann's password";
    let log = stage.darter.log()?;
    ensure!(!log.contains(secret), "a password in the log");
    stage.darter.stop()?;
    Ok(())
}

#[test]
fn a_login_for_one_registry_of_the_mirror_is_for_that_one_alone() -> Result<()> {
    if !can_run(&["docker-registry", "podman", "skopeo"])? {
        return Ok(());
    }
    let stage = Stage::start(Settings::default(), "")?;
    let mirror = stage.darter.proxy()?;
    let place = stage.directory.path().join("auth.json");
    for (registry, words) in [
        ("registry.test", None),
        ("other.test", Some("unauthorized")),
    ] {
        let mut login = process::command("podman");
        login.args(["login", "--tls-verify=false", "--authfile"]);
        login.arg(&place);
        login.args(["--username", "ann", "--password", "ann's password"]);
        login.arg(format!("{mirror}/{registry}"));
        process::check(login, LIMIT)?;
        let kept = fs::read_to_string(&place)?;
        ensure!(kept.contains(&format!("{mirror}/{registry}")), "{kept}");
        let mut copy = process::command("skopeo");
        copy.args(["--insecure-policy", "copy", "--all", "--quiet"]);
        copy.args(["--src-tls-verify=false", "--src-authfile"]);
        copy.arg(&place);
        let target = tempfile::tempdir_in(&stage.directory)?;
        copy.arg(format!("docker://{}", stage.name("team/own")?));
        copy.arg(format!("dir:{}", target.path().display()));
        let told = process::check(copy, LIMIT).map(drop);
        match words {
            None => told?,
            Some(words) => fails(told, words)?,
        }
        fs::remove_file(&place)?;
    }
    stage.darter.stop()
}

#[test]
fn a_registry_that_takes_passwords_alone_is_read_by_vouchers() -> Result<()> {
    if !can_run(&["docker-registry", "skopeo"])? {
        return Ok(());
    }
    let settings = Settings {
        scheme: Scheme::Basic,
        ..Settings::default()
    };
    let stage = Stage::start(settings, "")?;
    stage.skopeo("team/own", Some("ann:ann's password"))?;
    fails(stage.skopeo("team/own", Some("bob:bob's")), "")?;
    fails(stage.skopeo("team/own", None), "unauthorized")?;
    // What stands for a password at one registry is shown to no other.
    let scope = "repository:registry.test/team/own:pull";
    let given = Request::get(&format!("/token?scope={scope}"))
        .header("Authorization", &basic("ann", "ann's password"))
        .fetch(stage.darter.proxy()?)?;
    let voucher = format!("Bearer {}", text_of(&given.body, "token")?);
    for (registry, status) in [("registry.test", 200), ("second.test", 401)] {
        let seen = Request::get(&format!("/v2/{registry}/team/own/manifests/latest"))
            .header("Authorization", &voucher)
            .fetch(stage.darter.proxy()?)?;
        ensure!(seen.status == status, "{registry}: {}", seen.status);
    }
    stage.darter.stop()
}

#[test]
fn a_registry_that_asks_nobody_at_first_still_asks_for_what_is_private() -> Result<()> {
    if !can_run(&["docker-registry", "skopeo"])? {
        return Ok(());
    }
    let settings = Settings {
        ping: Ping::Open,
        ..Settings::default()
    };
    let stage = Stage::start(settings, "")?;
    stage.skopeo("team/own", Some("ann:ann's password"))?;
    fails(stage.skopeo("team/own", Some("ann:wrong")), "unauthorized")?;
    stage.skopeo("team/open", None)?;
    stage.darter.stop()
}

#[test]
fn a_push_by_an_explicit_name_is_its_writers() -> Result<()> {
    if !can_run(&["docker-registry", "skopeo"])? {
        return Ok(());
    }
    let stage = Stage::start(Settings::default(), "")?;
    let push = |login: &str| {
        let mut copy = process::command("skopeo");
        copy.args(["--insecure-policy", "copy", "--all", "--quiet"]);
        copy.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
        copy.args(["--dest-creds", login]);
        let behind = stage.registry.behind().address();
        copy.arg(format!("docker://{behind}/team/open:latest"));
        copy.arg(format!(
            "docker://{}/registry.test/team/own:pushed",
            stage.darter.proxy()?
        ));
        process::check(copy, LIMIT).map(drop)
    };
    push("ann:ann's password")?;
    ensure!(push("bob:bob's").is_err(), "bob may not write");
    stage.darter.stop()
}

/// What `/v2/` is answered to `agent`.
fn ping(stage: &Stage, agent: &str) -> Result<(u16, String)> {
    let whole = Request::get("/v2/")
        .header("User-Agent", agent)
        .fetch(stage.darter.proxy()?)?;
    let challenge = whole.header("www-authenticate").unwrap_or_default();
    Ok((whole.status, challenge.to_owned()))
}

#[test]
fn each_family_is_answered_to_its_ping_as_the_configuration_says() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start(Settings::default(), "")?;
    let own = format!(
        "Bearer realm=\"http://{}/token\",service=\"darter\"",
        stage.darter.proxy()?
    );
    for (agent, status, challenge) in [
        ("skopeo/1.9.3", 401, own.as_str()),
        ("Go-http-client/1.1", 401, own.as_str()),
        ("docker/28.5.2 go/go1.27", 200, ""),
        ("containerd/v2.1.9", 200, ""),
        ("curl/8", 200, ""),
    ] {
        let seen = ping(&stage, agent)?;
        ensure!(seen == (status, challenge.to_owned()), "{agent}: {seen:?}");
    }
    stage.darter.stop()?;
    let more = "ping_challenge = {docker = \"hub\", containers_image = \"off\"}\n";
    let stage = Stage::start(Settings::default(), more)?;
    let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\"";
    let seen = ping(&stage, "docker/28.5.2 go/go1.27")?;
    ensure!(seen == (401, hub.to_owned()), "{seen:?}");
    ensure!(ping(&stage, "skopeo/1.9.3")?.0 == 200, "it is off");
    stage.darter.stop()
}

#[test]
fn what_is_no_question_for_a_token_is_refused() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start(Settings::default(), "")?;
    let proxy = stage.darter.proxy()?;
    let basic = "Basic YW5uOng=";
    for (method, target, status) in [
        ("GET", "/token", 200),
        (
            "GET",
            "/token?scope=repository:registry.test/team/own:pull",
            401,
        ),
        (
            "GET",
            "/token?scope=repository:stranger.test/team/own:pull",
            403,
        ),
        // A pattern may match what nobody thought of, so no login is shown to what it allows.
        (
            "GET",
            "/token?scope=repository:some.pattern.test/team/own:pull",
            200,
        ),
        ("GET", "/token?scope=registry:catalog:*", 400),
        (
            "GET",
            "/token?scope=repository:registry.test/a:pull&scope=repository:quay.io/a:pull",
            400,
        ),
        ("DELETE", "/token", 405),
    ] {
        let whole = Request::new(method, target)
            .header("Authorization", basic)
            .fetch(proxy)?;
        ensure!(
            whole.status == status,
            "{target}: {} {}",
            whole.status,
            whole.text()
        );
    }
    // A form as long as a disk.
    let mut endless = std::io::repeat(b'a');
    let length = 1_000_000;
    let long = Request::new("POST", "/token").send_with(
        proxy,
        &mut std::io::Read::take(&mut endless, length),
        length,
    )?;
    ensure!(long.status == 400, "{}", long.status);
    stage.darter.stop()
}

/// A form that asks for a token to read the private repository.
fn post(stage: &Stage, form: &str) -> Result<(u16, String)> {
    let scope = "repository:registry.test/team/own:pull";
    let body = format!("{form}&service=darter&client_id=test&scope={scope}");
    let whole = Request::new("POST", "/token")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .send_with(
            stage.darter.proxy()?,
            &mut body.as_bytes(),
            body.len() as u64,
        )?
        .whole()?;
    Ok((whole.status, whole.text()))
}

#[test]
fn a_form_is_answered_as_the_token_server_answers_it() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start(Settings::default(), "")?;
    let own = "grant_type=password&username=ann&password=ann%27s+password";
    let (status, answer) = post(&stage, own)?;
    ensure!(status == 200, "{status}: {answer}");
    let token = text_of(answer.as_bytes(), "access_token")?;
    let read = Request::get("/v2/registry.test/team/own/manifests/latest")
        .header("Authorization", &format!("Bearer {token}"))
        .fetch(stage.darter.proxy()?)?;
    ensure!(read.status == 200, "{}: {}", read.status, read.text());
    let refresh = stage.registry.refresh_token("ann")?;
    let (status, answer) = post(
        &stage,
        &format!("grant_type=refresh_token&refresh_token={refresh}"),
    )?;
    ensure!(status == 200, "{status}: {answer}");
    let (status, _) = post(&stage, "grant_type=password&username=ann&password=wrong")?;
    ensure!(status == 401, "{status}");
    // Clients ask by GET then.
    stage.registry.change(|rules| rules.refuses_post = true);
    let (status, _) = post(&stage, own)?;
    ensure!(status == 404 || status == 405, "{status}");
    stage.darter.stop()
}

/// A directory with the authorities that an intercepted client trusts: Darter's for this registry, and
/// that of its token server.
fn trusted(stage: &Stage) -> Result<TempDir> {
    let trusted = tempfile::tempdir_in(&stage.directory)?;
    let at = |name: &str| trusted.path().join(name);
    fs::write(at("darter.crt"), stage.home.ca_of("registry.test")?)?;
    fs::copy(stage.registry.papers().join("ca.crt"), at("realm.crt"))?;
    Ok(trusted)
}

/// `skopeo copy` by the registry's own name, through Darter as a proxy for HTTPS; a push where `words` say so.
fn copy_by_its_own_name(stage: &Stage, words: &[&str]) -> Result<()> {
    let trusted = trusted(stage)?;
    let mut copy = process::command("skopeo");
    copy.env("HTTPS_PROXY", format!("http://{}", stage.darter.proxy()?));
    copy.args(["--insecure-policy", "copy", "--all", "--quiet"]);
    copy.arg("--src-cert-dir").arg(trusted.path());
    copy.arg("--dest-cert-dir").arg(trusted.path());
    copy.args(words);
    process::check(copy, LIMIT).map(drop)
}

#[test]
fn an_intercepted_client_meets_the_registrys_own_challenges() -> Result<()> {
    if !can_run(&["buildah", "docker-registry", "podman", "skopeo"])? {
        return Ok(());
    }
    let stage = Stage::start(Settings::default(), "intercept = [\"registry.test\"]\n")?;
    let target = stage.directory.path().join("copied");
    let target = format!("dir:{}", target.display());
    let own = "docker://registry.test/team/own:latest";
    copy_by_its_own_name(&stage, &["--src-creds", "ann:ann's password", own, &target])?;
    ensure!(stage.was_read_by("ann"), "as whom?");
    let open = "docker://registry.test/team/open:latest";
    copy_by_its_own_name(&stage, &["--src-no-creds", open, &target])?;
    let bobs = copy_by_its_own_name(&stage, &["--src-creds", "bob:bob's", own, &target]);
    ensure!(bobs.is_err(), "it is not bob's");
    let trusted = trusted(&stage)?;
    let certificates = format!("--cert-dir={}", trusted.path().display());
    for program in ["podman", "buildah"] {
        let name = "registry.test/team/own:latest";
        stage.pull_with(program, "ann:ann's password", &[&certificates, name])?;
    }
    // A push goes through as it is.
    let pushed = "docker://registry.test/team/own:pushed";
    let ann = "ann:ann's password";
    copy_by_its_own_name(
        &stage,
        &["--src-no-creds", "--dest-creds", ann, open, pushed],
    )?;
    let bytes = stage.darter.metric("darter_proxy_bytes_total")?;
    ensure!(bytes > 1.0, "nothing went through Darter");
    stage.darter.stop()
}
