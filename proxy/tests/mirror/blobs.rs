//! Blobs: headers, ranges, who may read, and bodies that cannot be completed.

use std::sync::atomic::Ordering;

use protocol::Digest;
use swarm::source::{Access, Method, Redirects};

use crate::fixture::{FakeContent, Fixture, status, success};

const BODY: &[u8] = b"0123456789abcdefghij";

fn target(digest: Digest) -> String {
    format!("/v2/r/blobs/{digest}?ns=quay.io")
}

#[tokio::test]
async fn a_blob_comes_whole_with_the_headers_of_the_specification() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let digest = fixture.engine.put(FakeContent::public(BODY));
    let reply = fixture.get(&target(digest)).await?;
    assert_eq!((reply.status, reply.body.as_slice()), (200, BODY));
    for (name, expect) in [
        ("content-length", "20"),
        ("content-type", "application/octet-stream"),
        ("docker-content-digest", &digest.to_string()),
        ("etag", &format!("\"{digest}\"")),
        ("accept-ranges", "bytes"),
        ("oci-namespace", "quay.io"),
        ("docker-distribution-api-version", "registry/2.0"),
        ("transfer-encoding", ""),
        ("content-encoding", ""),
    ] {
        assert_eq!(reply.header(name), expect, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_range_comes_with_206_to_its_asked_end() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let digest = fixture.engine.put(FakeContent::public(BODY));
    for (range, status, content_range, body) in [
        ("bytes=0-", 206, "bytes 0-19/20", BODY),
        ("bytes=15-", 206, "bytes 15-19/20", &BODY[15..]),
        ("bytes=2-4", 206, "bytes 2-4/20", &BODY[2..5]),
        ("bytes=18-99", 206, "bytes 18-19/20", &BODY[18..]),
        ("bytes=-3", 206, "bytes 17-19/20", &BODY[17..]),
        ("lines=1-2", 200, "", BODY),
    ] {
        let reply = fixture
            .ask("GET", &target(digest), &format!("Range: {range}\r\n"))
            .await?;
        let seen = (
            reply.status,
            reply.header("content-range"),
            reply.body.as_slice(),
        );
        assert_eq!(seen, (status, content_range, body), "{range}");
        assert_eq!(
            reply.header("content-length"),
            body.len().to_string(),
            "{range}"
        );
    }
    for range in ["bytes=20-", "bytes=5-0", "bytes=-0"] {
        let reply = fixture
            .ask("GET", &target(digest), &format!("Range: {range}\r\n"))
            .await?;
        assert_eq!(
            (reply.status, reply.header("content-range")),
            (416, "bytes */20"),
            "{range}"
        );
    }
    Ok(())
}

/// [`BODY`] in these parts, as one body.
fn byteranges(digest: Digest, parts: &[std::ops::Range<usize>]) -> String {
    let boundary = digest.encoded();
    let part = |part: &std::ops::Range<usize>| {
        format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {}-{}/20\r\n\r\n{}\r\n",
            part.start,
            part.end - 1,
            String::from_utf8_lossy(&BODY[part.clone()])
        )
    };
    let parts: String = parts.iter().map(part).collect();
    format!("{parts}--{boundary}--\r\n")
}

#[tokio::test]
async fn several_ranges_come_part_by_part_in_the_order_in_which_they_were_asked_for()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let digest = fixture.engine.put(FakeContent::public(BODY));
    for (range, parts) in [
        ("bytes=0-1,4-5", vec![0..2, 4..6]),
        ("bytes=9-18,-1,0-0", vec![9..19, 19..20, 0..1]),
        ("bytes=1-1,1-1", vec![1..2, 1..2]),
        (
            "bytes=0-1,2-3,4-5,6-7,8-9,10-",
            vec![0..2, 2..4, 4..6, 6..8, 8..10, 10..20],
        ),
    ] {
        let opened = fixture.engine.opened.load(Ordering::SeqCst);
        let reply = fixture
            .ask("GET", &target(digest), &format!("Range: {range}\r\n"))
            .await?;
        let expect = byteranges(digest, &parts);
        assert_eq!(String::from_utf8_lossy(&reply.body), expect, "{range}");
        for (name, expect) in [
            ("content-length", expect.len().to_string()),
            ("content-range", String::new()),
            ("transfer-encoding", String::new()),
            ("etag", format!("\"{digest}\"")),
            (
                "content-type",
                format!("multipart/byteranges; boundary={}", digest.encoded()),
            ),
        ] {
            assert_eq!(reply.header(name), expect, "{name} of {range}");
        }
        assert_eq!(reply.status, 206);
        let opened = fixture.engine.opened.load(Ordering::SeqCst) - opened;
        assert_eq!(opened, parts.len(), "each part is opened once");
    }
    Ok(())
}

#[tokio::test]
async fn several_ranges_that_no_parts_can_answer_give_the_whole_or_nothing() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let digest = fixture.engine.put(FakeContent::public(BODY));
    let too_many = vec!["0-0"; 1025].join(",");
    for (range, status, content_range) in [
        ("0-1,20-", 200, ""),
        ("20-,0-1", 200, ""),
        ("0-,1-1", 200, ""),
        (too_many.as_str(), 200, ""),
        ("20-,-0,5-4", 416, "bytes */20"),
    ] {
        let reply = fixture
            .ask("GET", &target(digest), &format!("Range: bytes={range}\r\n"))
            .await?;
        let seen = (reply.status, reply.header("content-range"));
        assert_eq!(seen, (status, content_range), "{range}");
        assert!(status == 416 || reply.body == BODY, "{range}");
    }
    let untold = fixture.engine.put(FakeContent {
        tells_size: false,
        ..FakeContent::public(b"abcdef")
    });
    let reply = fixture
        .ask("GET", &target(untold), "Range: bytes=0-1,3-3\r\n")
        .await?;
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, b"6\r\nabcdef\r\n0\r\n\r\n".as_slice())
    );
    Ok(())
}

#[tokio::test]
async fn a_part_that_breaks_off_or_cannot_be_opened_ends_the_body_there() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    for (breaks_at, opens_max, last) in [
        (Some(9), 9, "bytes 5-12/20\r\n\r\n5678"),
        (None, 2, "bytes 5-12/20\r\n\r\n56789abc"),
    ] {
        let fixture = Fixture::new(directory.path()).await?;
        fixture.engine.opens_max.store(opens_max, Ordering::SeqCst);
        let digest = fixture.engine.put(FakeContent {
            breaks_at,
            ..FakeContent::public(BODY)
        });
        let ranges = "Range: bytes=0-1,5-12,0-0\r\n";
        let reply = fixture.ask("GET", &target(digest), ranges).await?;
        let promised = byteranges(digest, &[0..2, 5..13, 0..1]);
        assert_eq!(reply.status, 206);
        assert_eq!(reply.header("content-length"), promised.len().to_string());
        let sent = String::from_utf8_lossy(&reply.body);
        assert!(promised.starts_with(&*sent), "{sent}");
        assert!(sent.ends_with(last), "{sent}");
    }
    Ok(())
}

/// A blob that is held, and that its registry lets nobody see without a credential.
fn has_a_private_blob(fixture: &Fixture) -> anyhow::Result<Digest> {
    let digest = fixture.engine.put(FakeContent {
        private_to: Some("quay.io".parse()?),
        is_held: true,
        ..FakeContent::public(BODY)
    });
    fixture
        .upstream
        .answers(|request| match &request.credential {
            Some(_) => Ok(success(Access::Caller, &[], b"")),
            None => Err(status(401)),
        });
    Ok(digest)
}

#[tokio::test]
async fn several_ranges_are_given_to_whom_its_registry_lets_read_alone() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let digest = has_a_private_blob(&fixture)?;
    let ranges = "Range: bytes=0-1,5-6,10-11,15-16,18-18\r\n";
    let reply = fixture.ask("GET", &target(digest), ranges).await?;
    assert_eq!(
        (reply.status, fixture.engine.opened.load(Ordering::SeqCst)),
        (401, 0)
    );
    let asked = fixture.upstream.asked();
    let mine = format!("Authorization: Bearer abc\r\n{ranges}");
    let reply = fixture.ask("GET", &target(digest), &mine).await?;
    assert_eq!(reply.status, 206);
    let expect = byteranges(digest, &[0..2, 5..7, 10..12, 15..17, 18..19]);
    assert_eq!(String::from_utf8_lossy(&reply.body), expect);
    assert_eq!(
        fixture.upstream.asked() - asked,
        1,
        "the registry is asked once"
    );
    Ok(())
}

#[tokio::test]
async fn head_opens_no_task() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let held = FakeContent {
        is_held: true,
        ..FakeContent::public(BODY)
    };
    let held = fixture.engine.put(held);
    let reply = fixture.ask("HEAD", &target(held), "").await?;
    assert_eq!((reply.status, reply.header("content-length")), (200, "20"));
    assert!(reply.body.is_empty());
    assert_eq!(fixture.upstream.asked(), 0);

    fixture.upstream.answers(|request| match request.method {
        Method::Head => Err(status(405)),
        Method::Get => Ok(success(Access::Anonymous, &[], b"1234567")),
    });
    let reply = fixture
        .ask("HEAD", &target(Digest::sha256_of(b"elsewhere")), "")
        .await?;
    assert_eq!((reply.status, reply.header("content-length")), (200, "7"));
    assert_eq!(fixture.engine.opened.load(Ordering::SeqCst), 0);
    Ok(())
}

#[tokio::test]
async fn a_blob_that_the_caller_holds_is_not_sent_to_who_may_read_it() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let digest = has_a_private_blob(&fixture)?;
    let bearer = "Authorization: Bearer abc\r\n";
    for method in ["GET", "HEAD"] {
        let known = format!("If-None-Match: \"other\", \"{digest}\"\r\nRange: bytes=2-4\r\n");
        let mine = format!("{bearer}{known}");
        let reply = fixture.ask(method, &target(digest), &mine).await?;
        assert_eq!((reply.status, reply.body.len()), (304, 0));
        assert_eq!(reply.header("etag"), format!("\"{digest}\""));
        assert_eq!(reply.header("content-length"), "");
        assert_eq!(fixture.engine.opened.load(Ordering::SeqCst), 0);
        let reply = fixture.ask(method, &target(digest), &known).await?;
        assert_eq!(reply.status, 401);
    }
    let another = format!("{bearer}If-None-Match: \"other\"\r\n");
    let reply = fixture.ask("GET", &target(digest), &another).await?;
    assert_eq!((reply.status, reply.body.as_slice()), (200, BODY));
    Ok(())
}

#[tokio::test]
async fn a_blob_of_no_bytes_is_given_only_when_it_holds() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let digest = fixture.engine.put(FakeContent::public(b""));
    let reply = fixture.get(&target(digest)).await?;
    assert_eq!((reply.status, reply.header("content-length")), (200, "0"));
    fixture.engine.put(FakeContent {
        breaks_at: Some(0),
        ..FakeContent::public(b"")
    });
    assert_eq!(fixture.get(&target(digest)).await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_ended_as_if_it_were_whole() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let broken = FakeContent {
        breaks_at: Some(9),
        ..FakeContent::public(BODY)
    };
    let digest = fixture.engine.put(broken.clone());
    let reply = fixture.get(&target(digest)).await?;
    assert_eq!((reply.status, reply.header("content-length")), (200, "20"));
    assert_eq!(reply.body, &BODY[..9], "all that was good has left");

    fixture.engine.put(FakeContent {
        tells_size: false,
        ..broken
    });
    let reply = fixture.get(&target(digest)).await?;
    assert_eq!(reply.header("transfer-encoding"), "chunked");
    assert_eq!(reply.body, b"7\r\n0123456\r\n2\r\n78\r\n", "no last chunk");
    Ok(())
}

#[tokio::test]
async fn without_a_size_a_range_gets_the_whole() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let content = FakeContent {
        tells_size: false,
        ..FakeContent::public(b"abc")
    };
    let digest = fixture.engine.put(content);
    let reply = fixture
        .ask("GET", &target(digest), "Range: bytes=1-\r\n")
        .await?;
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, b"3\r\nabc\r\n0\r\n\r\n".as_slice())
    );
    Ok(())
}

#[tokio::test]
async fn private_content_needs_the_word_of_its_own_registry() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let private_to = Some("quay.io".parse()?);
    let content = FakeContent {
        private_to,
        is_held: true,
        ..FakeContent::public(BODY)
    };
    let digest = fixture.engine.put(content);
    fixture.upstream.answers(|request| {
        assert_eq!(request.redirects, Redirects::Stop);
        match &request.credential {
            Some(_) => Ok(success(Access::Caller, &[], b"")),
            None => Err(status(401)),
        }
    });
    let elsewhere = format!("/v2/r/blobs/{digest}?ns=ghcr.io");
    let bearer = "Authorization: Bearer abc\r\n";
    for method in ["GET", "HEAD"] {
        let reply = fixture.ask(method, &target(digest), "").await?;
        assert_eq!(reply.status, 401);
        assert!(
            reply
                .header("www-authenticate")
                .starts_with("Bearer realm=\"https://auth.example")
        );
        assert_eq!(
            fixture.ask(method, &target(digest), bearer).await?.status,
            200
        );
    }
    assert_eq!(
        fixture.ask("GET", &elsewhere, bearer).await?.status,
        404,
        "not its origin"
    );
    let reply = fixture
        .ask("GET", &target(digest), "Authorization: Basic Og==\r\n")
        .await?;
    assert_eq!(reply.status, 401, "nobody is nobody");
    Ok(())
}
