//! What the registry has said of a caller's right, and for how long it is believed.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use registry_compat_tests::{
    can_run,
    content::digest_of,
    http::Whole,
    process,
    token_registry::{ClaimedManifest, Door},
};
use serde_json::json;

use super::{Content, Form, OWNER, Stage, is_refused};

/// The owner's content, asked for by the owner with `authorization`.
fn ask(stage: &Stage, content: &Content, authorization: &str) -> Result<Whole> {
    let place = ("registry.test", "team/own");
    let request = Form::Ns.request("GET", place, &format!("blobs/{}", content.digest));
    request
        .header("Authorization", authorization)
        .fetch(stage.proxy)
}

/// Requests at the registry and its token server.
fn asked(stage: &Stage) -> usize {
    let heard = stage.registry.heard();
    heard
        .iter()
        .filter(|heard| heard.door != Door::Storage)
        .count()
}

#[test]
fn a_manifest_vouches_for_its_blobs_and_its_caller_alone() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("")?;
    let content = stage.put("vouched for")?;
    stage.warm(&content)?;
    let heads = || {
        stage
            .registry
            .heard_of(Door::Registry, "HEAD", &content.digest)
    };
    ensure!(heads().is_empty(), "the manifest had vouched for the blob");
    // Another token is another caller, who is asked about once.
    let own = stage.bearer(OWNER, "team/own")?;
    let mut before = 0;
    for round in 0..3 {
        let seen = ask(&stage, &content, &own)?;
        ensure!(seen.body == content.bytes, "{}", seen.status);
        ensure!(!heads().is_empty(), "nobody was asked about another caller");
        let now = asked(&stage);
        ensure!(round == 0 || now == before, "asked again in round {round}");
        before = now;
    }
    ensure!(stage.fetches(&content.digest) == 1, "fetched again");
    stage.stop()?;
    Ok(())
}

#[test]
fn many_who_ask_at_once_are_one_question() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("")?;
    let content = stage.put("at once")?;
    stage.warm(&content)?;
    let own = stage.bearer(OWNER, "team/own")?;
    let latency = Duration::from_millis(300);
    stage.registry.change(|rules| rules.latency = latency);
    thread::scope(|scope| {
        let asking: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| ask(&stage, &content, &own)))
            .collect();
        for asked in asking {
            let seen = asked.join().expect("an asker does not fall")?;
            ensure!(seen.body == content.bytes, "{}", seen.status);
        }
        anyhow::Ok(())
    })?;
    let told = |heard: &registry_compat_tests::token_registry::Heard| {
        heard.status == 307 || heard.status == 200
    };
    let heads = stage
        .registry
        .heard_of(Door::Registry, "HEAD", &content.digest);
    let let_in = heads.iter().filter(|heard| told(heard)).count();
    ensure!(let_in == 1, "{heads:?}");
    stage.stop()?;
    Ok(())
}

/// The registry and its token server are away.
fn cut_off(stage: &Stage) {
    stage.registry.change(|rules| {
        rules.down.insert(Door::Registry);
        rules.down.insert(Door::Realm);
    });
}

#[test]
fn what_is_private_is_given_while_its_registry_is_away_as_long_as_its_word_stands() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    for (more, outlives) in [
        ("allow_ttl = \"2s\"", false),
        ("allow_ttl = \"2s\"\ngrace = \"1h\"", true),
    ] {
        let more = format!(
            "{more}\nupstream_connect_timeout = \"1s\"\nupstream_fallback_timeout = \"1s\""
        );
        let stage = Stage::start(&more)?;
        let content = stage.put("cut off")?;
        stage.warm(&content)?;
        let own = stage.bearer(OWNER, "team/own")?;
        let seen = ask(&stage, &content, &own)?;
        ensure!(seen.body == content.bytes, "{}", seen.status);
        cut_off(&stage);
        let seen = ask(&stage, &content, &own)?;
        ensure!(
            seen.body == content.bytes,
            "within its time: {}",
            seen.status
        );
        let is_over = || ask(&stage, &content, &own).is_ok_and(|seen| seen.status != 200);
        match outlives {
            false => process::wait_until("the end of allow_ttl", Duration::from_secs(40), is_over)?,
            true => {
                // Longer than the decision stands, which is what is measured here.
                thread::sleep(Duration::from_secs(3));
                ensure!(!is_over(), "the grace is not given");
            }
        }
        stage.stop()?;
    }
    Ok(())
}

/// What a tag stood for a while ago says nothing of who may read it now.
#[test]
fn a_tag_that_is_remembered_renews_no_right() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start(
        "allow_ttl = \"2s\"\ntag_ttl = \"1s\"\nupstream_connect_timeout = \"1s\"\n\
         upstream_fallback_timeout = \"1s\"",
    )?;
    let content = stage.put("by its tag")?;
    stage.tag(&content, "latest")?;
    let own = stage.bearer(OWNER, "team/own")?;
    let by_tag = |method: &str| {
        let request = Form::Ns.request(method, ("registry.test", "team/own"), "manifests/latest");
        request.header("Authorization", &own).fetch(stage.proxy)
    };
    let seen = by_tag("GET")?;
    ensure!(seen.body == content.manifest, "{}", seen.status);
    ensure!(ask(&stage, &content, &own)?.status == 200);
    cut_off(&stage);
    for method in ["GET", "HEAD"] {
        let is_over = || by_tag(method).is_ok_and(|seen| seen.status != 200);
        process::wait_until("the end of allow_ttl", Duration::from_secs(30), is_over)
            .context(method)?;
        is_refused(&ask(&stage, &content, &own)?, &content).context(method)?;
    }
    stage.darter.stop()
}

#[test]
fn a_manifest_that_is_in_use_goes_on_vouching() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("allow_ttl = \"2s\"\ntag_ttl = \"0s\"")?;
    let content = stage.put("in use")?;
    stage.tag(&content, "latest")?;
    let own = stage.bearer(OWNER, "team/own")?;
    let place = ("registry.test", "team/own");
    for _ in 0..10 {
        let request = Form::Ns.request("GET", place, "manifests/latest");
        let seen = request.header("Authorization", &own).fetch(stage.proxy)?;
        ensure!(seen.body == content.manifest, "{}", seen.status);
        ensure!(ask(&stage, &content, &own)?.status == 200);
        // Two decisions lapse in this time, which is what is measured here.
        thread::sleep(Duration::from_millis(500));
    }
    let heads = stage
        .registry
        .heard_of(Door::Registry, "HEAD", &content.digest);
    ensure!(heads.is_empty(), "the blob was asked for: {heads:?}");
    stage.darter.stop()
}

/// A registry that takes sparse indexes has not looked whether their writer may read what they list.
#[test]
fn an_index_vouches_for_no_manifest() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("")?;
    let content = stage.put("listed by a stranger")?;
    stage.warm(&content)?;
    let media_type = "application/vnd.oci.image.index.v1+json";
    let size = content.manifest.len();
    let listed = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": content.manifest_digest,
        "size": size,
    });
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [listed]});
    let bytes = Bytes::from(index.to_string());
    let digest = digest_of(&bytes);
    let claimed = ClaimedManifest {
        media_type: media_type.to_owned(),
        digest: digest.clone(),
        bytes: bytes.clone(),
    };
    stage.registry.change(|rules| {
        rules.claimed_manifests.insert(digest.clone(), claimed);
    });
    for form in Form::ALL {
        let open = ("registry.test", "team/open");
        let ask = |digest: &str| {
            let request = form.request("GET", open, &format!("manifests/{digest}"));
            request.fetch(stage.proxy)
        };
        ensure!(ask(&digest)?.body == bytes, "the index is not given");
        is_refused(&ask(&content.manifest_digest)?, &content)
            .with_context(|| format!("{form:?}"))?;
    }
    stage.darter.stop()
}
