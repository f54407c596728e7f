//! Where an upstream may send Darter, and what goes along.

use anyhow::{Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise},
    fault_registry::{End, Fault, FaultRegistry, Framing, Guard, On, Times},
    http::{Ending, Whole},
    image::MANIFEST_TYPE,
};

use super::{Asker, Stage};

const SIZE: usize = 700_000;

/// A blob that only `store` has, and that the registry of `stage` redirects to.
fn redirected(stage: &Stage, store: &FaultRegistry, seed: &str) -> Result<(Vec<u8>, String)> {
    let bytes = noise(seed, SIZE)?;
    let digest = digest_of(&bytes);
    // The registry knows it too, so that it can refuse before it redirects.
    stage.registry.put_blob(&digest, bytes.clone());
    store.put_blob(&digest, bytes.clone());
    let target = format!(
        "http://{}/v2/store/blobs/{digest}?signature=secret",
        store.address()
    );
    let rest = format!("/blobs/{digest}");
    let redirect = Fault::RedirectTo(target);
    stage.registry.fail(On::Any, &rest, Times::Always, redirect);
    Ok((bytes, digest))
}

fn is_right(whole: &Whole, bytes: &[u8]) -> Result<()> {
    ensure!(whole.status == 200, "{}: {}", whole.status, whole.text());
    ensure!(
        whole.ending == Ending::Complete && whole.body == bytes,
        "wrong bytes"
    );
    Ok(())
}

/// Nothing that was sent to the store of a registry may carry a credential.
fn no_credential_went_to(store: &FaultRegistry) -> Result<()> {
    let asked = store.asked("");
    ensure!(!asked.is_empty(), "the store was not asked");
    ensure!(
        asked.iter().all(|asked| !asked.is_authorized),
        "a credential went along: {asked:?}"
    );
    Ok(())
}

#[test]
fn a_redirect_to_a_trusted_store_is_followed_without_the_callers_credential() -> Result<()> {
    let store = FaultRegistry::start()?;
    let stage = Stage::start(&[store.address()])?;
    stage.registry.guard(Guard::Basic);
    for asker in Asker::ALL {
        let (bytes, digest) = redirected(&stage, &store, &format!("basic {asker:?}"))?;
        let whole = asker
            .request("GET", &format!("blobs/{digest}"))
            .header("Authorization", "Basic bWU6c2VjcmV0")
            .fetch(stage.proxy)?;
        is_right(&whole, &bytes)?;
        let asked = stage.registry.asked(&format!("/blobs/{digest}"));
        ensure!(
            asked.iter().any(|asked| asked.is_authorized),
            "the registry never saw the credential: {asked:?}"
        );
    }
    no_credential_went_to(&store)?;
    let log = stage.darter.log()?;
    ensure!(
        !log.contains("signature=secret"),
        "a signed address in the log"
    );
    ensure!(!log.contains("bWU6c2VjcmV0"), "a credential in the log");
    stage.darter.stop()
}

#[test]
fn a_manifest_behind_a_redirect_is_followed_like_a_blob() -> Result<()> {
    let store = FaultRegistry::start()?;
    let stage = Stage::start(&[store.address()])?;
    for asker in Asker::ALL {
        let bytes = format!("{{\"schemaVersion\":2,\"annotations\":{{\"for\":\"{asker:?}\"}}}}");
        let digest = digest_of(bytes.as_bytes());
        store.put_manifest(&digest, MANIFEST_TYPE, bytes.clone());
        let target = format!("http://{}/v2/store/manifests/{digest}", store.address());
        let rest = format!("/manifests/{digest}");
        let redirect = Fault::RedirectTo(target);
        stage.registry.fail(On::Any, &rest, Times::Always, redirect);
        for method in ["HEAD", "GET"] {
            let whole = asker.request(method, &rest[1..]).fetch(stage.proxy)?;
            ensure!(whole.status == 200, "{}: {}", whole.status, whole.text());
            let told = whole.header("content-type");
            ensure!(told == Some(MANIFEST_TYPE), "{told:?}");
            ensure!(
                method == "HEAD" || whole.body == bytes.as_bytes(),
                "wrong bytes"
            );
        }
    }
    stage.darter.stop()
}

#[test]
fn a_redirect_to_a_trusted_store_is_followed_without_the_token_of_the_registry() -> Result<()> {
    let store = FaultRegistry::start()?;
    let stage = Stage::start(&[store.address()])?;
    stage.registry.guard(Guard::Token);
    for asker in Asker::ALL {
        let (bytes, digest) = redirected(&stage, &store, &format!("token {asker:?}"))?;
        let path = format!("/blobs/{digest}");
        let broken = Fault::Breaks {
            framing: Framing::Length,
            after: 400_000,
            end: End::Close,
        };
        store.fail(On::Get, &path, Times::First(1), broken);
        let whole = asker.request("GET", &path[1..]).fetch(stage.proxy)?;
        is_right(&whole, &bytes)?;
        // The rest is asked of the registry again: the signed address may have run out.
        let ranges: Vec<_> = store
            .asked(&path)
            .into_iter()
            .map(|asked| asked.range)
            .collect();
        let expect = [None, Some("bytes=400000-699999".to_owned())];
        ensure!(ranges == expect, "{ranges:?}");
    }
    no_credential_went_to(&store)?;
    let tokens = stage.registry.asked("/token");
    ensure!(tokens.len() == 1, "{} tokens were fetched", tokens.len());
    stage.darter.stop()
}

#[test]
fn a_redirect_to_a_private_address_is_refused_and_nobody_there_is_asked() -> Result<()> {
    let (inner, stage) = (FaultRegistry::start()?, Stage::start(&[])?);
    let port = inner.address().port();
    let places = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        "10.0.0.1".to_owned(),
        "169.254.169.254".to_owned(),
        "[fd00:ec2::254]".to_owned(),
        "0.0.0.0:80".to_owned(),
    ];
    for place in &places {
        for asker in Asker::ALL {
            let bytes = noise(&format!("{place} {asker:?}"), 10_000)?;
            let digest = digest_of(&bytes);
            let path = format!("/blobs/{digest}");
            inner.put_blob(&digest, bytes.clone());
            stage.registry.put_blob(&digest, bytes.clone());
            let away = Fault::RedirectTo(format!("http://{place}/v2/x{path}"));
            stage.registry.fail(On::Any, &path, Times::Always, away);
            let whole = asker.request("GET", &path[1..]).fetch(stage.proxy)?;
            let promise = asker.promised("not-allowed")?;
            let told: serde_json::Value = serde_json::from_slice(&whole.body)?;
            ensure!(
                whole.status == promise.status && told["errors"][0]["code"] == *promise.code,
                "{place} as {asker:?}: {} {told}",
                whole.status
            );
            let asked = stage.registry.fetched(&path);
            ensure!(asked.len() == 1, "{place}: asked {} times", asked.len());
            stage.registry.heal(&path);
            let whole = asker.request("GET", &path[1..]).fetch(stage.proxy)?;
            is_right(&whole, &bytes)?;
        }
    }
    ensure!(inner.asked("").is_empty(), "{:?}", inner.asked(""));
    stage.darter.stop()
}

/// Redirects to nowhere, to another scheme, or with a user in them.
#[test]
fn a_redirect_that_is_none_is_a_failing_upstream() -> Result<()> {
    let stage = Stage::start(&[])?;
    for location in ["", "ftp://store.example/x", "http://me:secret@127.0.0.1/x"] {
        for asker in Asker::ALL {
            let bytes = noise(&format!("{location} {asker:?}"), 1_000)?;
            let path = format!("/blobs/{}", digest_of(&bytes));
            stage.registry.put_blob(&digest_of(&bytes), bytes);
            let away = Fault::RedirectTo(location.to_owned());
            stage.registry.fail(On::Any, &path, Times::Always, away);
            let whole = asker.request("GET", &path[1..]).fetch(stage.proxy)?;
            let promise = asker.promised("failing")?;
            ensure!(
                whole.status == promise.status,
                "{location:?}: {} {}",
                whole.status,
                whole.text()
            );
        }
    }
    stage.darter.stop()
}
