//! What the registry has said of a caller's right, and for how long it is believed.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use registry_compat_tests::{can_run, http::Whole, process, token_registry::Door};

use super::{Content, Form, OWNER, Stage};

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
