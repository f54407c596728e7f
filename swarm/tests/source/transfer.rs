//! Bodies that break off, are refused for a while, or contradict what was told of them.

use std::sync::LazyLock;

use protocol::ContentKind;
use swarm::source::{Access, ByteRange, MANIFEST_LEN_MAX, Method, Redirects, SourceError};

use super::{
    Fetched, fetch, fetch_blob, fetch_range, fetch_request, manifest_request,
    registry::{Asked, Registry, Reply},
    upstreams,
};

const SIZE: usize = 100_000;
static BODY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..SIZE)
        .map(|index| (index * 7 + index / 251) as u8)
        .collect()
});

/// The outcome of a fetch of the whole from a registry that plays `script`, and the ranges that
/// it was asked for.
async fn play(
    script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> (Result<Fetched, SourceError>, Vec<String>) {
    let registry = Registry::start(script).await;
    let outcome = fetch_blob(&upstreams(registry.address, &[]), None).await;
    (outcome, registry.header_of_each("range"))
}

/// Plays `first` once and a healthy registry after: the whole body must come, by these ranges.
#[track_caller]
fn assert_recovered(played: (Result<Fetched, SourceError>, Vec<String>), ranges: &[&str]) {
    let (outcome, asked) = played;
    let fetched = outcome.expect("the fetch recovers");
    assert!(
        fetched.bytes == *BODY,
        "{} bytes, not the right ones",
        fetched.bytes.len()
    );
    assert_eq!(asked, ranges);
}

fn first_then_healthy(first: Reply) -> impl Fn(&Asked) -> Reply {
    move |asked| {
        if asked.earlier == 0 {
            first.clone()
        } else {
            Reply::serve(asked, &BODY)
        }
    }
}

#[tokio::test]
async fn a_whole_blob_comes_with_its_size() {
    let (outcome, asked) = play(|asked| Reply::serve(asked, &BODY)).await;
    let fetched = outcome.unwrap();
    assert!(fetched.bytes == *BODY);
    assert_eq!(
        (fetched.size, fetched.access),
        (Some(SIZE as u64), Access::Anonymous)
    );
    assert_eq!(asked, ["-"]);
}

#[tokio::test]
async fn an_empty_blob_is_empty() {
    let (outcome, _) = play(|_| Reply::new("200 OK", b"")).await;
    let fetched = outcome.unwrap();
    assert_eq!((fetched.size, fetched.bytes.len()), (Some(0), 0));
}

#[tokio::test]
async fn a_body_that_closes_early_is_resumed_where_it_ended() {
    let first = Reply::new("200 OK", &BODY).cut(60_000);
    assert_recovered(
        play(first_then_healthy(first)).await,
        &["-", "bytes=40000-99999"],
    );
}

#[tokio::test]
async fn a_body_that_stalls_is_resumed_where_it_ended() {
    let first = Reply::new("200 OK", &BODY).cut(60_000).then_stall();
    assert_recovered(
        play(first_then_healthy(first)).await,
        &["-", "bytes=40000-99999"],
    );
}

#[tokio::test]
async fn a_body_that_is_reset_is_resumed() {
    let first = Reply::new("200 OK", &BODY).cut(60_000).then_reset();
    let (outcome, asked) = play(first_then_healthy(first)).await;
    assert!(outcome.unwrap().bytes == *BODY);
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_again_and_skipped() {
    let first = Reply::new("200 OK", &BODY).cut(60_000);
    let played = play(move |asked| {
        if asked.earlier == 0 {
            first.clone()
        } else {
            Reply::new("200 OK", &BODY)
        }
    });
    assert_recovered(played.await, &["-", "bytes=40000-99999"]);
}

#[tokio::test]
async fn a_head_that_does_not_come_is_asked_for_again() {
    for first in [
        Reply::status("500 Internal Server Error"),
        Reply::status("503 Service Unavailable"),
        Reply::status("429 Too Many Requests\r\nRetry-After: 0"),
        Reply::new("200 OK", b"").cut(10),
        Reply::new("200 OK", b"").cut(10).then_reset(),
        Reply::new("200 OK", b"").cut(10).then_stall(),
    ] {
        assert_recovered(play(first_then_healthy(first)).await, &["-", "-"]);
    }
}

#[tokio::test]
async fn a_long_retry_after_is_told_and_not_waited_for() {
    let (outcome, asked) =
        play(|_| Reply::status("429 Too Many Requests\r\nRetry-After: 3600")).await;
    match outcome {
        Err(SourceError::RateLimited { retry_after, .. }) => {
            assert_eq!(retry_after.unwrap().as_secs(), 3600)
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(asked.len(), 1);
}

#[tokio::test]
async fn a_fetch_without_progress_ends() {
    let (outcome, asked) = play(|_| Reply::new("200 OK", &BODY).cut(SIZE)).await;
    assert!(
        matches!(outcome, Err(SourceError::Interrupted)),
        "{outcome:?}"
    );
    assert_eq!(asked.len(), 5);
    let (outcome, asked) = play(|_| Reply::status("503 Service Unavailable")).await;
    assert!(
        matches!(&outcome, Err(SourceError::Status(answer)) if answer.status == 503),
        "{outcome:?}"
    );
    assert_eq!(asked.len(), 5);
}

#[tokio::test]
async fn a_fetch_that_always_moves_a_little_ends_well() {
    let played = play(|asked| {
        let served = Reply::serve(asked, &BODY);
        let left = asked.range(SIZE).map_or(SIZE, |(start, end)| end - start);
        served.cut(left.saturating_sub(7_000))
    });
    let (outcome, asked) = played.await;
    assert!(outcome.unwrap().bytes == *BODY);
    assert_eq!(asked.len(), SIZE.div_ceil(7_000));
}

#[tokio::test]
async fn what_is_missing_is_not_asked_for_twice() {
    let (outcome, asked) = play(|_| Reply::new("404 Not Found", b"{\"errors\":[]}")).await;
    let Err(SourceError::Status(answer)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (404, &b"{\"errors\":[]}"[..])
    );
    assert_eq!(asked.len(), 1);
}

#[tokio::test]
async fn another_size_on_resuming_is_an_error() {
    let other_size = |asked: &Asked| match asked.earlier {
        0 => Reply::new("200 OK", &BODY).cut(60_000),
        _ => Reply::new(
            "206 Partial Content\r\nContent-Range: bytes 40000-99999/100001",
            &BODY[40_000..],
        ),
    };
    let other_start = |asked: &Asked| match asked.earlier {
        0 => Reply::new("200 OK", &BODY).cut(60_000),
        _ => Reply::new(
            "206 Partial Content\r\nContent-Range: bytes 39999-99998/100000",
            &BODY[39_999..99_999],
        ),
    };
    let other_whole = |asked: &Asked| match asked.earlier {
        0 => Reply::new("200 OK", &BODY).cut(60_000),
        _ => Reply::new("200 OK", &BODY[..99_999]),
    };
    for (outcome, asked) in [
        play(other_size).await,
        play(other_start).await,
        play(other_whole).await,
    ] {
        assert!(
            matches!(outcome, Err(SourceError::Malformed(_))),
            "{outcome:?}"
        );
        assert_eq!(asked.len(), 2);
    }
}

#[tokio::test]
async fn a_body_longer_than_told_is_an_error() {
    let registry = Registry::start(|_| {
        let chunked =
            "206 Partial Content\r\nContent-Range: bytes 4-9/10\r\nTransfer-Encoding: chunked";
        Reply::raw(chunked, b"8\r\n45678901\r\n0\r\n\r\n")
    });
    let registry = registry.await;
    let outcome = fetch_range(
        &upstreams(registry.address, &[]),
        ByteRange {
            start: 4,
            end: None,
        },
    )
    .await;
    assert!(
        matches!(outcome, Err(SourceError::Malformed(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_body_without_a_length_has_no_size_and_ends_where_it_ends() {
    let (outcome, _) = play(|_| {
        Reply::raw(
            "200 OK\r\nTransfer-Encoding: chunked",
            b"3\r\nabc\r\n0\r\n\r\n",
        )
    })
    .await;
    let fetched = outcome.unwrap();
    assert_eq!((fetched.size, &fetched.bytes[..]), (None, &b"abc"[..]));
}

#[tokio::test]
async fn a_body_without_a_length_that_breaks_off_is_resumed() {
    let played = play(|asked| match asked.earlier {
        0 => Reply::raw("200 OK\r\nTransfer-Encoding: chunked", b"3\r\nabc\r\n"),
        _ => Reply::serve(asked, b"abcdef"),
    });
    let (outcome, asked) = played.await;
    let fetched = outcome.unwrap();
    assert_eq!(fetched.bytes, b"abcdef");
    assert_eq!(asked, ["-", "bytes=3-"]);
}

#[tokio::test]
async fn a_range_gives_its_bytes_and_the_size_of_the_whole() {
    let registry = Registry::start(|asked| Reply::serve(asked, &BODY)).await;
    let upstreams = upstreams(registry.address, &[]);
    let fetched = fetch_range(
        &upstreams,
        ByteRange {
            start: 10,
            end: Some(20),
        },
    )
    .await
    .unwrap();
    assert_eq!(
        (fetched.size, &fetched.bytes[..]),
        (Some(SIZE as u64), &BODY[10..20])
    );
    assert_eq!(registry.header_of_each("range"), ["bytes=10-19"]);
}

#[tokio::test]
async fn a_range_from_a_registry_without_ranges_is_cut_out() {
    let registry = Registry::start(|_| Reply::new("200 OK", &BODY)).await;
    let upstreams = upstreams(registry.address, &[]);
    let fetched = fetch_range(
        &upstreams,
        ByteRange {
            start: 10,
            end: Some(20),
        },
    )
    .await
    .unwrap();
    assert_eq!(
        (fetched.size, &fetched.bytes[..]),
        (Some(SIZE as u64), &BODY[10..20])
    );
}

#[tokio::test]
async fn a_manifest_that_is_too_large_is_refused() {
    let told = format!("200 OK\r\nContent-Length: {}", MANIFEST_LEN_MAX + 1);
    let registry = Registry::start(move |_| Reply::raw(&told, b"")).await;
    let whole = ByteRange {
        start: 0,
        end: None,
    };
    let request = fetch_request(ContentKind::Manifest, whole, None);
    let outcome = fetch(&upstreams(registry.address, &[]), request).await;
    assert!(
        matches!(outcome, Err(SourceError::TooLong { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_manifest_is_resumed_by_reading_it_again() {
    let registry = Registry::start(|asked| match asked.earlier {
        0 => Reply::new("200 OK", b"{\"schemaVersion\":2}").cut(9),
        _ => Reply::new("200 OK", b"{\"schemaVersion\":2}"),
    });
    let registry = registry.await;
    let request = fetch_request(
        ContentKind::Manifest,
        ByteRange {
            start: 0,
            end: None,
        },
        None,
    );
    let fetched = fetch(&upstreams(registry.address, &[]), request)
        .await
        .unwrap();
    assert_eq!(fetched.bytes, b"{\"schemaVersion\":2}");
    assert_eq!(registry.header_of_each("range"), ["-", "-"]);
}

#[tokio::test]
async fn head_tells_the_length_and_has_no_body() {
    let head = "200 OK\r\nContent-Length: 1234\r\nDocker-Content-Digest: sha256:abc";
    let registry = Registry::start(move |_| Reply::raw(head, b"")).await;
    let upstreams = upstreams(registry.address, &[]);
    let response = upstreams
        .send(&manifest_request(Method::Head, Redirects::Follow))
        .await
        .unwrap();
    assert_eq!(response.content_length, Some(1234));
    assert_eq!(response.headers["docker-content-digest"], "sha256:abc");
    assert!(response.body.collect(10).await.unwrap().is_empty());
    let asked = &registry.asked()[0];
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("HEAD", "/v2/team/image/manifests/latest")
    );
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
    let accept = asked.header("accept").unwrap();
    for kind in [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ] {
        assert!(accept.contains(kind), "{kind} is not asked for");
    }
    assert!(asked.header("user-agent").unwrap().starts_with("darter/"));
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let address = {
        let registry = Registry::start(|_| Reply::status("200 OK")).await;
        registry.address
    };
    let outcome = fetch_blob(&upstreams(address, &[]), None).await;
    assert!(
        matches!(outcome, Err(SourceError::Unreachable { .. })),
        "{outcome:?}"
    );
}
