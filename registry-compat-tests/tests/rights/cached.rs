//! Private contents that Darter holds, asked for by everybody who has no right to them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use registry_compat_tests::{can_run, process, token_registry::Door};

use super::{Content, Form, OTHER, OWNER, Stage, asked_since, is_refused, seen_since, view};

/// Somebody who asks for a content, and where.
struct Attack {
    what: &'static str,
    place: (&'static str, &'static str),
    authorization: Option<String>,
}

/// Where the owner's content really is.
const OWN: (&str, &str) = ("registry.test", "team/own");

/// Each request of an attacker is the first.
const UNREMEMBERED: &str = "allow_ttl = \"0s\"\ndeny_ttl = \"0s\"\npublic_ttl = \"0s\"";

/// Nothing here takes this long unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// Ways to ask.
const WAYS: [(&str, Option<&str>); 7] = [
    ("GET", None),
    ("HEAD", None),
    ("GET", Some("bytes=0-")),
    ("GET", Some("bytes=0-99")),
    ("GET", Some("bytes=100-299999")),
    ("GET", Some("bytes=-100")),
    ("GET", Some("bytes=0-99,100-299,5000-5999")),
];

/// Everybody without a right, once each.
fn attacks(stage: &Stage) -> Result<Vec<Attack>> {
    let revoked = stage.registry.token(OWNER.0, OWNER.1, "team/own")?;
    stage.registry.revoke(&revoked);
    let expired = stage.bearer(OWNER, "team/own")?;
    stage.registry.expire_tokens();
    let bearer = |user, repository| stage.bearer(user, repository).map(Some);
    let own = bearer(OWNER, "team/own")?;
    let open = ("registry.test", "team/open");
    let others = ("registry.test", "team/others");
    let evil = ("evil.test", "evil/x");
    let attack = |what, place, authorization| Attack {
        what,
        place,
        authorization,
    };
    Ok(vec![
        attack("nobody", OWN, None),
        attack("another user", OWN, bearer(OTHER, "team/own")?),
        attack(
            "a token for another repository",
            OWN,
            bearer(OWNER, "team/open")?,
        ),
        attack("a made-up token", OWN, Some("Bearer made-up".to_owned())),
        attack("a revoked token", OWN, Some(format!("Bearer {revoked}"))),
        attack("an expired token", OWN, Some(expired)),
        attack("nobody through a public repository", open, None),
        attack(
            "the owner through a public repository",
            open,
            bearer(OWNER, "team/open")?,
        ),
        attack(
            "another user through his own",
            others,
            bearer(OTHER, "team/others")?,
        ),
        attack("the owner through another's", others, own.clone()),
        attack("nobody through another registry", evil, None),
        attack("the owner's token at another registry", evil, own),
    ])
}

/// What the attacker and both registries see of one request.
fn seen(
    stage: &Stage,
    (form, attack): (Form, &Attack),
    (kind, (method, range)): (&str, (&str, Option<&str>)),
    content: &Content,
) -> Result<(String, Vec<String>)> {
    let digest = match kind {
        "blobs" => &content.digest,
        _ => &content.manifest_digest,
    };
    let before = [&stage.registry, &stage.evil].map(|registry| registry.heard().len());
    let rest = format!("{kind}/{digest}");
    let mut request = form.request(method, attack.place, &rest);
    if let Some(range) = range {
        request = request.header("Range", range);
    }
    if let Some(authorization) = &attack.authorization {
        request = request.header("Authorization", authorization);
    }
    let whole = request.fetch(stage.proxy)?;
    // What the other registry says of a content by HEAD is its own invention, and no secret.
    let is_claim = method == "HEAD" && attack.place.0 == "evil.test";
    if !is_claim {
        is_refused(&whole, content)?;
    }
    let mut heard = asked_since(&stage.registry, before[0]);
    heard.extend(seen_since(&stage.evil, before[1], content));
    Ok((view(&whole, content), heard))
}

/// Compares what is seen of a content that is held with what is seen of one that is not.
fn check(kind: &str, ways: &[(&str, Option<&str>)]) -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start(UNREMEMBERED)?;
    let (held, absent) = (stage.put("held")?, stage.put("absent")?);
    stage.warm(&held)?;
    let mut told = Vec::new();
    for attack in attacks(&stage)? {
        for form in Form::ALL {
            for way in ways {
                let ask = |content| seen(&stage, (form, &attack), (kind, *way), content);
                // The first question may have to learn where tokens are to be had.
                let asked = ask(&absent).and_then(|_| Ok((ask(&held)?, ask(&absent)?)));
                let what = || format!("{kind} {way:?} {form:?}: {}", attack.what);
                let (of_held, of_absent) = asked.with_context(what)?;
                if of_held != of_absent {
                    let what = what();
                    told.push(format!(
                        "{what}\nheld: {of_held:#?}\nabsent: {of_absent:#?}"
                    ));
                }
            }
        }
    }
    ensure!(
        told.is_empty(),
        "it shows what is held:\n{}",
        told.join("\n\n")
    );
    ensure!(stage.fetches(&held.digest) == 1, "fetched again");
    // The owner is served as before, from what is held.
    stage.warm(&held)?;
    ensure!(stage.fetches(&held.digest) == 1, "it was no longer held");
    stage.darter.stop()
}

#[test]
fn a_private_blob_that_is_held_is_given_to_nobody_else_and_shows_nowhere() -> Result<()> {
    check("blobs", &WAYS)
}

#[test]
fn a_private_manifest_that_is_held_is_given_to_nobody_else_and_shows_nowhere() -> Result<()> {
    check("manifests", &WAYS[..2])
}

/// One way in, which stays shut for everybody else while it is used.
#[test]
fn a_download_under_way_is_shared_with_nobody_who_has_no_right() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start(UNREMEMBERED)?;
    let content = stage.put("under way")?;
    let own = stage.bearer(OWNER, "team/own")?;
    let rest = format!("blobs/{}", content.digest);
    let ask = |place| Form::Ns.request("GET", place, &rest);
    stage
        .registry
        .change(|rules| rules.storage_latency = Duration::from_secs(2));
    std::thread::scope(|scope| -> Result<()> {
        let owner = scope.spawn(|| {
            let request = ask(OWN).header("Authorization", &own);
            request.fetch(stage.proxy)
        });
        process::wait_until("the storage host", Duration::from_secs(20), || {
            !stage
                .registry
                .heard_of(Door::Storage, "GET", &content.digest)
                .is_empty()
        })?;
        let other = stage.bearer(OTHER, "team/own")?;
        let requests = [
            ask(OWN),
            ask(OWN).header("Authorization", &other),
            ask(("registry.test", "team/open")),
            ask(("evil.test", "evil/x")),
        ];
        for (index, request) in requests.iter().enumerate() {
            let whole = request.fetch(stage.proxy)?;
            is_refused(&whole, &content).with_context(|| format!("request {index}"))?;
        }
        let whole = owner
            .join()
            .map_err(|_| anyhow::anyhow!("the owner failed"))??;
        ensure!(
            whole.status == 200 && whole.body == content.bytes,
            "{}",
            whole.status
        );
        Ok(())
    })?;
    stage.darter.stop()
}

/// What another registry says of the same digest is none of this one's clients.
#[test]
fn a_download_of_another_registry_that_fails_fails_nobody_else() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("")?;
    let content = stage.put("claimed elsewhere")?;
    let rest = format!("blobs/{}", content.digest);
    let own = stage.bearer(OWNER, "team/own")?;
    stage
        .evil
        .change(|rules| rules.latency = Duration::from_secs(2));
    std::thread::scope(|scope| -> Result<()> {
        let evil = scope.spawn(|| {
            let request = Form::Ns.request("GET", ("evil.test", "evil/x"), &rest);
            request.fetch(stage.proxy)
        });
        let is_begun = || {
            stage
                .darter
                .metric("darter_swarm_tasks")
                .is_ok_and(|tasks| 0.0 < tasks)
        };
        process::wait_until("the other registry's download", LIMIT, is_begun)?;
        let request = Form::Ns.request("GET", OWN, &rest);
        let seen = request.header("Authorization", &own).fetch(stage.proxy)?;
        ensure!(
            seen.body == content.bytes,
            "{}: {}",
            seen.status,
            seen.text()
        );
        let evil = evil.join().map_err(|_| anyhow::anyhow!("it failed"))??;
        is_refused(&evil, &content)
    })?;
    stage.darter.stop()
}

/// What somebody may read no more is not given from what is held.
#[test]
fn a_right_that_is_taken_back_ends_with_its_time() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("allow_ttl = \"1s\"")?;
    let content = stage.put("taken back")?;
    stage.warm(&content)?;
    let token = stage.registry.token(OWNER.0, OWNER.1, "team/own")?;
    let ask = |form: Form| {
        let request = form.request("GET", OWN, &format!("blobs/{}", content.digest));
        let bearer = format!("Bearer {token}");
        request.header("Authorization", &bearer).fetch(stage.proxy)
    };
    for form in Form::ALL {
        ensure!(
            ask(form)?.body == content.bytes,
            "{form:?}: not given before"
        );
    }
    stage.registry.revoke(&token);
    process::wait_until("the end of allow_ttl", LIMIT, || {
        ask(Form::Ns).is_ok_and(|seen| seen.status != 200)
    })?;
    for form in Form::ALL {
        is_refused(&ask(form)?, &content).with_context(|| format!("{form:?}"))?;
    }
    ensure!(stage.fetches(&content.digest) == 1, "fetched again");
    stage.darter.stop()
}

/// A registry that has no HEAD for blobs still says who may read what is held.
#[test]
fn what_is_held_is_given_again_where_the_registry_has_no_head() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    for status in [405, 500, 501] {
        is_given_again(StatusCode::from_u16(status)?).with_context(|| format!("{status}"))?;
    }
    Ok(())
}

fn is_given_again(status: StatusCode) -> Result<()> {
    let stage = Stage::start("")?;
    let content = stage.put("no head")?;
    stage
        .registry
        .change(|rules| rules.refuses_head = Some(status));
    for _ in ["cold", "warm"] {
        stage.warm(&content)?;
        let ask = |method: &str| {
            let request = Form::Ns.request(method, OWN, &format!("blobs/{}", content.digest));
            let own = stage.bearer(OWNER, "team/own")?;
            request.header("Authorization", &own).fetch(stage.proxy)
        };
        let head = ask("HEAD")?;
        ensure!(head.status == 200, "HEAD: {}", head.status);
        let told = head.header("content-length").unwrap_or_default();
        ensure!(told == super::SIZE.to_string(), "{told}");
        let other = stage.bearer(OTHER, "team/own")?;
        for method in ["GET", "HEAD"] {
            let request = Form::Ns.request(method, OWN, &format!("blobs/{}", content.digest));
            let whole = request.header("Authorization", &other).fetch(stage.proxy)?;
            is_refused(&whole, &content).context(method)?;
        }
    }
    // The store was asked once for the bytes; a redirect that is not followed costs it nothing.
    ensure!(stage.fetches(&content.digest) == 1, "fetched again");
    stage.darter.stop()
}
