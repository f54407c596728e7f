//! Contents that docker-registry 2.8 and containerd 1.6 cannot carry, and ranges in all their forms,
//! by raw HTTP: empty blobs, sha512, `subject` and referrers.

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise, sha512_of},
    fault_registry::{Asked, Fault, Framing, On, Times},
    http::{Ending, Request, Whole},
    image::{INDEX_TYPE, MANIFEST_TYPE},
};
use serde_json::{Value, json};

use crate::faults::{Asker, Stage};

const SIZE: usize = 700_000;
const PIECE: usize = 256 << 10;

/// A `Range`, the status of its answer, and the bytes: none with 416, all with the 200 that ignores it.
const RANGES: [(&str, u16, std::ops::Range<usize>); 17] = [
    ("bytes=0-", 206, 0..SIZE),
    ("bytes=300000-", 206, 300_000..SIZE),
    ("bytes=699999-", 206, SIZE - 1..SIZE),
    ("bytes=0-0", 206, 0..1),
    ("bytes=100-199", 206, 100..200),
    ("bytes=262143-262144", 206, 262_143..262_145),
    ("bytes=0-699999", 206, 0..SIZE),
    ("bytes=699000-800000", 206, 699_000..SIZE),
    ("bytes=-100", 206, SIZE - 100..SIZE),
    ("bytes=-900000", 206, 0..SIZE),
    ("bytes=700000-", 416, SIZE..SIZE),
    ("bytes=700000-700001", 416, SIZE..SIZE),
    ("bytes=-0", 416, 0..0),
    ("bytes=5-2", 416, 0..0),
    ("bytes=a-b", 200, 0..SIZE),
    ("bytes", 200, 0..SIZE),
    ("items=0-1", 200, 0..SIZE),
];

fn header<'a>(whole: &'a Whole, name: &str) -> &'a str {
    whole.header(name).unwrap_or("-")
}

/// Whether `whole` is a success with these bytes of that digest.
fn is_content(whole: &Whole, bytes: &[u8], digest: &str) -> Result<()> {
    ensure!(
        matches!(whole.status, 200 | 206),
        "{}: {}",
        whole.status,
        whole.text()
    );
    ensure!(whole.ending == Ending::Complete, "{:?}", whole.ending);
    ensure!(whole.body == bytes, "{} wrong bytes", whole.body.len());
    let length = header(whole, "content-length");
    ensure!(length == bytes.len().to_string(), "{length}");
    let told = header(whole, "docker-content-digest");
    ensure!(told == digest, "{told}");
    let etag = header(whole, "etag");
    ensure!(etag == format!("\"{digest}\""), "{etag}");
    Ok(())
}

/// Whether `whole` is what a `Range` of [`RANGES`] gives of `bytes`.
fn is_part(
    whole: &Whole,
    (status, part): (u16, &std::ops::Range<usize>),
    bytes: &[u8],
) -> Result<()> {
    ensure!(whole.status == status, "{}: {}", whole.status, whole.text());
    let content_range = match status {
        206 => format!("bytes {}-{}/{SIZE}", part.start, part.end - 1),
        416 => format!("bytes */{SIZE}"),
        _ => "-".to_owned(),
    };
    let told = header(whole, "content-range");
    ensure!(told == content_range, "{told}");
    if status == 416 {
        let told: Value = serde_json::from_slice(&whole.body)?;
        ensure!(told["errors"][0]["code"] == "RANGE_INVALID", "{told}");
        return Ok(());
    }
    ensure!(header(whole, "accept-ranges") == "bytes", "Accept-Ranges");
    is_content(whole, &bytes[part.clone()], &digest_of(bytes))
}

/// A part of a cold blob costs the upstream nothing before its own piece, and one past the end no
/// byte.
fn is_asked_from_its_piece(asked: &[Asked], status: u16, start: usize) -> Result<()> {
    let mut gets = asked.iter().filter(|asked| asked.method == "GET");
    let first = gets.next();
    if status == 416 {
        // What is no range of any body waits for the head of the answer, at the body's beginning.
        ensure!(start == 0 || first.is_none(), "{first:?}");
        return Ok(());
    }
    let range = first.context("no GET")?.range.as_deref();
    let asked_from = range.and_then(|range| {
        let first = range.strip_prefix("bytes=")?.split('-').next()?;
        first.parse::<usize>().ok()
    });
    let is_from_piece = asked_from.unwrap_or(0) == start / PIECE * PIECE;
    ensure!(is_from_piece, "{start} is asked for by {range:?}");
    Ok(())
}

#[test]
fn a_range_in_any_form_is_answered_cold_and_warm() -> Result<()> {
    let stage = Stage::start(&[])?;
    for (index, (range, status, part)) in RANGES.iter().enumerate() {
        let bytes = noise(range, SIZE)?;
        let digest = digest_of(&bytes);
        stage.registry.put_blob(&digest, bytes.clone());
        let asker = Asker::ALL[index % Asker::ALL.len()];
        let request = || asker.request("GET", &format!("blobs/{digest}"));
        let ask = |when: &str| -> Result<()> {
            let whole = request().header("Range", range).fetch(stage.proxy);
            whole
                .and_then(|whole| is_part(&whole, (*status, part), &bytes))
                .with_context(|| format!("{range} {when} as {asker:?}"))
        };
        ask("cold")?;
        is_asked_from_its_piece(&stage.registry.fetched(&digest), *status, part.start)
            .with_context(|| (*range).to_owned())?;
        is_content(&request().fetch(stage.proxy)?, &bytes, &digest)?;
        let before = stage.registry.asked("").len();
        ask("warm")?;
        let after = stage.registry.asked("").len();
        ensure!(before == after, "{range} warm: the registry was asked");
    }
    stage.darter.stop()
}

#[test]
fn every_range_of_one_warm_blob_is_answered() -> Result<()> {
    let stage = Stage::start(&[])?;
    let bytes = noise("one warm blob", SIZE)?;
    let digest = digest_of(&bytes);
    stage.registry.put_blob(&digest, bytes.clone());
    let request = |asker: Asker| asker.request("GET", &format!("blobs/{digest}"));
    is_content(
        &request(Asker::Stranger).fetch(stage.proxy)?,
        &bytes,
        &digest,
    )?;
    for asker in Asker::ALL {
        for (range, status, part) in &RANGES {
            let whole = request(asker).header("Range", range).fetch(stage.proxy)?;
            is_part(&whole, (*status, part), &bytes)
                .with_context(|| format!("{range} as {asker:?}"))?;
        }
        let twice = request(asker)
            .header("Range", "bytes=0-1")
            .header("Range", "bytes=5-6")
            .fetch(stage.proxy)?;
        is_part(&twice, (200, &(0..SIZE)), &bytes).context("two headers")?;
        let etag = |of: &str| format!("\"{of}\"");
        let conditional = |of: &str| {
            let request = request(asker).header("Range", "bytes=5-6");
            request.header("If-Range", &etag(of)).fetch(stage.proxy)
        };
        is_part(&conditional(&digest)?, (206, &(5..7)), &bytes).context("If-Range, this one")?;
        is_part(&conditional("other")?, (200, &(0..SIZE)), &bytes).context("If-Range, another")?;
        // What is there already is not asked of the upstream again.
        ensure!(stage.registry.fetched(&digest).len() == 1, "asked again");
    }
    stage.darter.stop()
}

#[test]
fn a_range_of_a_blob_whose_size_nobody_tells_is_the_whole() -> Result<()> {
    let stage = Stage::start(&[])?;
    for asker in Asker::ALL {
        let bytes = noise(&format!("no size {asker:?}"), SIZE)?;
        let path = format!("/blobs/{}", digest_of(&bytes));
        stage.registry.put_blob(&digest_of(&bytes), bytes.clone());
        let chunked = Fault::Framed(Framing::Chunked);
        stage.registry.fail(On::Any, &path, Times::Always, chunked);
        let whole = asker
            .request("GET", &path[1..])
            .header("Range", "bytes=0-")
            .fetch(stage.proxy)?;
        ensure!(
            whole.status == 200 && whole.ending == Ending::Complete && whole.body == bytes,
            "{asker:?}: {} of {} bytes",
            whole.status,
            whole.body.len()
        );
    }
    stage.darter.stop()
}

#[test]
fn an_empty_blob_is_empty_for_get_and_head_and_has_no_range() -> Result<()> {
    let stage = Stage::start(&[])?;
    let digest = digest_of(b"");
    stage.registry.put_blob(&digest, Vec::new());
    for when in ["cold", "warm"] {
        for asker in Asker::ALL {
            let told = || format!("{when} as {asker:?}");
            let request = |method| asker.request(method, &format!("blobs/{digest}"));
            for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
                let whole = request("GET").header("Range", range).fetch(stage.proxy)?;
                let content_range = header(&whole, "content-range");
                ensure!(
                    whole.status == 416 && content_range == "bytes */0",
                    "{range} {}: {} {content_range}",
                    told(),
                    whole.status
                );
            }
            is_content(&request("HEAD").fetch(stage.proxy)?, b"", &digest).with_context(told)?;
            is_content(&request("GET").fetch(stage.proxy)?, b"", &digest).with_context(told)?;
        }
    }
    stage.darter.stop()
}

#[test]
fn contents_named_by_sha512_are_verified_by_it() -> Result<()> {
    let stage = Stage::start(&[])?;
    for asker in Asker::ALL {
        let bytes = noise(&format!("sha512 {asker:?}"), SIZE)?;
        let digest = sha512_of(&bytes);
        let ask = |rest: &str| asker.request("GET", rest);
        stage.registry.put_blob(&digest, bytes.clone());
        let blob = format!("blobs/{digest}");
        let whole = ask(&blob).header("Range", "bytes=9-").fetch(stage.proxy)?;
        is_content(&whole, &bytes[9..], &digest).context("a part")?;
        is_content(&ask(&blob).fetch(stage.proxy)?, &bytes, &digest).context("the whole")?;
        let head = asker.request("HEAD", &blob).fetch(stage.proxy)?;
        ensure!(
            head.status == 200 && header(&head, "content-length") == SIZE.to_string(),
            "HEAD: {}",
            head.status
        );
        let wrong = noise(&format!("wrong {asker:?}"), SIZE)?;
        let promised = sha512_of(&bytes[1..]);
        stage.registry.put_blob(&promised, wrong);
        let whole = ask(&format!("blobs/{promised}")).fetch(stage.proxy)?;
        ensure!(whole.ending == Ending::Short, "wrong: {:?}", whole.ending);
        let manifest = format!("{{\"schemaVersion\":2,\"asker\":\"{asker:?}\"}}");
        let digest = sha512_of(manifest.as_bytes());
        stage
            .registry
            .put_manifest(&digest, MANIFEST_TYPE, manifest.clone());
        for _ in ["cold", "warm"] {
            let whole = ask(&format!("manifests/{digest}")).fetch(stage.proxy)?;
            is_content(&whole, manifest.as_bytes(), &digest).context("a manifest")?;
            ensure!(header(&whole, "content-type") == MANIFEST_TYPE);
        }
    }
    stage.darter.stop()
}

/// A manifest that refers to `subject`, as an artifact of that type.
fn referrer(subject: &str, artifact_type: &str, number: usize) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": digest_of(b"{}"),
            "size": 2,
        },
        "layers": [],
        "subject": {"mediaType": MANIFEST_TYPE, "digest": subject, "size": 7},
        "annotations": {"number": number.to_string()},
    })
    .to_string()
}

/// The digests of a page of referrers, and the target of the link to the next one.
fn page(whole: &Whole) -> Result<(Vec<String>, Option<String>)> {
    ensure!(whole.status == 200, "{}: {}", whole.status, whole.text());
    ensure!(header(whole, "content-type") == INDEX_TYPE, "Content-Type");
    let index: Value = serde_json::from_slice(&whole.body)?;
    let listed = index["manifests"].as_array().context("no manifests")?;
    let digests = listed
        .iter()
        .filter_map(|descriptor| descriptor["digest"].as_str())
        .map(str::to_owned)
        .collect();
    let next = whole.header("link").and_then(|link| {
        let (target, _) = link.strip_prefix('<')?.split_once('>')?;
        Some(target.to_owned())
    });
    Ok((digests, next))
}

#[test]
fn a_manifest_with_a_subject_comes_as_it_is_and_its_referrers_are_listed() -> Result<()> {
    let stage = Stage::start(&[])?;
    let subject = digest_of(b"the image");
    let mut expect = Vec::new();
    for (number, kind) in ["a/sbom", "a/signature", "a/sbom", "a/sbom", "a/sbom"]
        .into_iter()
        .enumerate()
    {
        let manifest = referrer(&subject, kind, number);
        let digest = digest_of(manifest.as_bytes());
        stage
            .registry
            .put_manifest(&digest, MANIFEST_TYPE, manifest.clone());
        expect.push((digest, kind, manifest));
    }
    expect.sort();
    for asker in Asker::ALL {
        for (digest, _, manifest) in &expect {
            let whole = asker
                .request("GET", &format!("manifests/{digest}"))
                .fetch(stage.proxy)?;
            is_content(&whole, manifest.as_bytes(), digest)?;
        }
        let mut found = Vec::new();
        let first = asker.request("GET", &format!("referrers/{subject}"));
        let (digests, mut next) = page(&first.fetch(stage.proxy)?)?;
        found.extend(digests);
        while let Some(target) = next {
            ensure!(found.len() <= expect.len(), "pages without end");
            let (digests, following) = page(&Request::get(&target).fetch(stage.proxy)?)?;
            found.extend(digests);
            next = following;
        }
        let all: Vec<_> = expect.iter().map(|(digest, ..)| digest.clone()).collect();
        ensure!(found == all, "{asker:?}: {found:?}");
    }
    stage.darter.stop()
}

#[test]
fn referrers_are_filtered_by_the_upstream_and_none_is_an_empty_index() -> Result<()> {
    let stage = Stage::start(&[])?;
    let (subject, lonely) = (digest_of(b"the image"), digest_of(b"another"));
    for (number, kind) in ["a/sbom", "a/signature"].into_iter().enumerate() {
        let manifest = referrer(&subject, kind, number);
        let digest = digest_of(manifest.as_bytes());
        stage
            .registry
            .put_manifest(&digest, MANIFEST_TYPE, manifest);
    }
    let signature = digest_of(referrer(&subject, "a/signature", 1).as_bytes());
    let filtered =
        format!("/v2/registry.test/team/app/referrers/{subject}?artifactType=a/signature");
    let whole = Request::get(&filtered).fetch(stage.proxy)?;
    ensure!(header(&whole, "oci-filters-applied") == "artifactType");
    ensure!(page(&whole)?.0 == [signature], "{}", whole.text());
    let none = format!("/v2/team/app/referrers/{lonely}?ns=registry.test");
    let whole = Request::get(&none).fetch(stage.proxy)?;
    ensure!(page(&whole)?.0.is_empty(), "{}", whole.text());
    stage.registry.fail(
        On::Get,
        &format!("/referrers/{lonely}"),
        Times::Always,
        Fault::Status(404),
    );
    for asker in Asker::ALL {
        let rest = format!("referrers/{lonely}");
        let whole = asker.request("GET", &rest).fetch(stage.proxy)?;
        let promise = asker.promised("manifest-unknown")?;
        ensure!(whole.status == promise.status, "an index was invented");
    }
    stage.darter.stop()
}

/// Descriptors are the client's to check: a blob is what its digest says.
#[test]
fn a_blob_larger_than_its_manifest_says_comes_whole() -> Result<()> {
    let stage = Stage::start(&[])?;
    let bytes = noise("larger than announced", SIZE)?;
    let digest = digest_of(&bytes);
    stage.registry.put_blob(&digest, bytes.clone());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "layers": [{"mediaType": "application/octet-stream", "digest": digest, "size": 10}],
    });
    stage
        .registry
        .put_manifest("latest", MANIFEST_TYPE, manifest.to_string());
    for asker in Asker::ALL {
        let get = |rest: &str| asker.request("GET", rest).fetch(stage.proxy);
        ensure!(get("manifests/latest")?.status == 200, "the manifest");
        is_content(&get(&format!("blobs/{digest}"))?, &bytes, &digest)?;
    }
    stage.darter.stop()
}
