//! Manifests by tag and by digest; tags that are shared, kept, stale, or for one caller alone.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use protocol::Digest;
use proxy::{
    RawConfig,
    image::{ImageName, Platforms},
};
use swarm::source::{Access, Method, Reference, Resource, SourceError};

use crate::fixture::{DEADLINE, FakeContent, Fixture, pass, status, success};

const BODY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TAG: &str = "/v2/a/b/manifests/v1?ns=quay.io";

fn manifest() -> FakeContent {
    FakeContent {
        media_type: Some(format!("{INDEX}; charset=utf-8")),
        ..FakeContent::public(BODY)
    }
}

/// An upstream that has the manifest under the tag, and says so by HEAD.
fn has_the_tag(fixture: &Fixture, access: Access) -> Digest {
    let digest = fixture.engine.put(manifest());
    fixture.upstream.answers(move |request| {
        if access == Access::Caller && request.credential.is_none() {
            return Err(status(401));
        }
        let headers = [
            ("docker-content-digest", digest.to_string()),
            ("content-type", format!("{INDEX}; charset=utf-8")),
        ];
        Ok(success(access, &headers, BODY))
    });
    digest
}

async fn with_ttl(directory: &std::path::Path, seconds: u64) -> anyhow::Result<Fixture> {
    let tag_ttl = Duration::from_secs(seconds);
    Fixture::with(
        directory,
        RawConfig {
            tag_ttl,
            ..RawConfig::default()
        },
    )
    .await
}

#[tokio::test]
async fn head_and_get_have_the_same_headers() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let digest = has_the_tag(&fixture, Access::Anonymous);
    let by_digest = format!("/v2/a/b/manifests/{digest}?ns=quay.io");
    for target in [TAG, &by_digest] {
        let get = fixture.get(target).await?;
        let head = fixture.ask("HEAD", target, "").await?;
        assert_eq!((get.status, get.body.as_slice()), (200, BODY));
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(get.header("content-type"), INDEX);
        assert_eq!(get.header("docker-content-digest"), digest.to_string());
        assert_eq!(get.header("content-length"), BODY.len().to_string());
        let without_date = |mut headers: std::collections::BTreeMap<String, String>| {
            headers.remove("date");
            headers
        };
        assert_eq!(without_date(get.headers), without_date(head.headers));
        let condition = format!("If-None-Match: \"{digest}\"\r\n");
        let reply = fixture.ask("GET", target, &condition).await?;
        assert_eq!((reply.status, reply.body.len()), (304, 0));
        let reply = fixture.ask("GET", target, "Range: bytes=0-\r\n").await?;
        assert_eq!((reply.status, reply.body.as_slice()), (200, BODY));
    }
    Ok(())
}

#[tokio::test]
async fn a_tag_is_asked_once_within_its_time_and_once_for_all_at_once() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Arc::new(with_ttl(directory.path(), 60).await?);
    has_the_tag(&fixture, Access::Anonymous);
    fixture
        .upstream
        .gate
        .forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let fixture = Arc::clone(&fixture);
        callers.spawn(async move { fixture.get(TAG).await.map(|reply| reply.status) });
    }
    let waiting = async {
        while fixture.upstream.asked() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await?;
    fixture.upstream.gate.add_permits(100);
    while let Some(caller) = callers.join_next().await {
        assert_eq!(caller??, 200);
    }
    assert_eq!(fixture.upstream.asked(), 1);
    assert_eq!(fixture.get(TAG).await?.status, 200);
    assert_eq!(fixture.upstream.asked(), 1);
    Ok(())
}

#[tokio::test]
async fn an_upstream_with_few_answers_left_is_not_asked_what_is_known() -> anyhow::Result<()> {
    for (access, asked) in [(Access::Anonymous, 1), (Access::Caller, 3)] {
        let directory = tempfile::tempdir()?;
        let fixture = with_ttl(directory.path(), 0).await?;
        has_the_tag(&fixture, access);
        fixture.upstream.is_scarce.store(true, Ordering::SeqCst);
        let told = "Authorization: Bearer own\r\n";
        for warned in [false, true, true] {
            let reply = fixture.ask("HEAD", TAG, told).await?;
            assert_eq!(reply.status, 200);
            let is_warned = reply.header("warning").contains("few questions");
            assert_eq!(is_warned, warned && access == Access::Anonymous);
        }
        // What is somebody's own is asked for, since his right may have ended.
        assert_eq!(fixture.upstream.asked(), asked, "{access:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_order_means_what_the_tag_stands_for_now() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = with_ttl(directory.path(), 0).await?;
    has_the_tag(&fixture, Access::Anonymous);
    fixture.upstream.is_scarce.store(true, Ordering::SeqCst);
    fixture.get(TAG).await?;
    let asked = fixture.upstream.asked();
    let name: ImageName = "quay.io/a/b:v1".parse()?;
    let _image = fixture.proxy.image(&name, &Platforms::All).await;
    assert_eq!(fixture.upstream.asked(), asked + 1);
    Ok(())
}

#[tokio::test]
async fn a_tag_outlives_its_upstream_and_a_restart() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = with_ttl(directory.path(), 0).await?;
    has_the_tag(&fixture, Access::Anonymous);
    let reply = fixture.get(TAG).await?;
    assert_eq!((reply.status, reply.header("warning")), (200, ""));

    let outages: [fn() -> SourceError; 4] = [
        || SourceError::Unreachable {
            host: "quay.io".to_owned(),
            reason: "refused".to_owned(),
        },
        || status(503),
        || status(429),
        || SourceError::Interrupted,
    ];
    for outage in outages {
        let fixture = with_ttl(directory.path(), 0).await?;
        fixture.engine.put(FakeContent {
            is_held: true,
            ..manifest()
        });
        fixture.upstream.answers(move |_| Err(outage()));
        for method in ["HEAD", "GET"] {
            let reply = fixture.ask(method, TAG, "").await?;
            assert_eq!(reply.status, 200);
            assert!(reply.header("warning").starts_with("299 - \""), "{reply:?}");
        }
        assert_eq!(
            fixture.upstream.asked(),
            1,
            "a failing upstream is left alone for a moment"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_tag_that_is_gone_or_closed_is_not_given_from_memory() -> anyhow::Result<()> {
    for (upstream_status, expect) in [(404, 404), (401, 401), (403, 404)] {
        let directory = tempfile::tempdir()?;
        let fixture = with_ttl(directory.path(), 0).await?;
        has_the_tag(&fixture, Access::Anonymous);
        assert_eq!(fixture.get(TAG).await?.status, 200);
        fixture
            .upstream
            .answers(move |_| Err(status(upstream_status)));
        assert_eq!(fixture.get(TAG).await?.status, expect, "{upstream_status}");
    }
    Ok(())
}

/// Who looks for a signature asks for a tag that is made of the digest, and mostly there is none.
#[tokio::test]
async fn a_tag_of_a_signature_that_is_missing_is_asked_for_once_in_a_while() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    fixture.upstream.answers(|_| Err(status(404)));
    let of = Digest::sha256_of(BODY).encoded();
    for (asked, ending) in [(1, ".sig"), (2, ".att"), (3, "")] {
        let target = format!("/v2/a/b/manifests/sha256-{of}{ending}?ns=quay.io");
        for _ in 0..2 {
            let reply = fixture.get(&target).await?;
            let seen = (reply.status, reply.code());
            assert_eq!(seen, (404, "MANIFEST_UNKNOWN".to_owned()), "{ending}");
            assert_eq!(fixture.upstream.asked(), asked, "{ending}");
        }
    }
    // It may have come meanwhile.
    for (seconds, asked) in [(4, 3), (1, 4)] {
        pass(seconds);
        let target = format!("/v2/a/b/manifests/sha256-{of}?ns=quay.io");
        assert_eq!(fixture.get(&target).await?.status, 404);
        assert_eq!(fixture.upstream.asked(), asked, "{seconds} s later");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_took_a_credential_is_for_that_credential_alone() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = with_ttl(directory.path(), 60).await?;
    has_the_tag(&fixture, Access::Caller);
    let mine = "Authorization: Bearer mine\r\n";
    assert_eq!(fixture.ask("GET", TAG, mine).await?.status, 200);
    assert_eq!(fixture.ask("GET", TAG, mine).await?.status, 200);
    assert_eq!(fixture.upstream.asked(), 1);
    assert_eq!(fixture.get(TAG).await?.status, 401);
    fixture.upstream.answers(|_| Err(status(403)));
    assert_eq!(
        fixture
            .ask("GET", TAG, "Authorization: Bearer other\r\n")
            .await?
            .status,
        404
    );
    assert_eq!(
        std::fs::read_dir(directory.path().join("tags"))?.count(),
        0,
        "never on disk"
    );
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_tells_no_usable_digest_is_asked_for_the_body() -> anyhow::Result<()> {
    for told in ["", "sha384:00", "nonsense"] {
        let directory = tempfile::tempdir()?;
        let fixture = Fixture::new(directory.path()).await?;
        let digest = fixture.engine.put(FakeContent::public(BODY));
        fixture.upstream.answers(move |request| {
            assert!(matches!(
                request.resource,
                Resource::Manifest(Reference::Tag(_))
            ));
            let headers = match request.method {
                Method::Head => vec![("docker-content-digest", told.to_owned())],
                Method::Get => Vec::new(),
            };
            Ok(success(Access::Anonymous, &headers, BODY))
        });
        let reply = fixture.get(TAG).await?;
        assert_eq!(
            (reply.status, reply.header("docker-content-digest")),
            (200, digest.to_string().as_str())
        );
        assert_eq!(
            reply.header("content-type"),
            INDEX,
            "the document says what it is"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_manifest_that_is_too_large_is_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let manifest_size_max = "1KiB".parse().map_err(anyhow::Error::msg)?;
    let raw = RawConfig {
        manifest_size_max,
        ..RawConfig::default()
    };
    let fixture = Fixture::with(directory.path(), raw).await?;
    for tells_size in [true, false] {
        let content = FakeContent {
            tells_size,
            ..FakeContent::public(&[b' '; 1025])
        };
        let digest = fixture.engine.put(content);
        let reply = fixture
            .get(&format!("/v2/quay.io/a/manifests/{digest}"))
            .await?;
        assert_eq!(
            (reply.status, reply.code()),
            (502, "SIZE_INVALID".to_owned())
        );
    }
    Ok(())
}
