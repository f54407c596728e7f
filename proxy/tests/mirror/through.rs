//! What is no pull, passed on: which headers of the caller its registry sees, and the other way.

use crate::fixture::Fixture;

/// What a client may send beside what a registry needs.
const HEADERS: &str = "Content-Type: application/json\r\nUser-Agent: podman\r\nCookie: session=1\r\n\
    Baggage: trigger=api\r\nX-Meta-A: b\r\nX-Forwarded-For: 10.0.0.1\r\n";

/// Sends `method` of `target`; tells what the registry saw of [`HEADERS`], and the caller of its cookie.
async fn passed(method: &str, target: &str) -> anyhow::Result<(Vec<String>, String)> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let reply = fixture.ask(method, target, HEADERS).await?;
    assert_eq!(reply.status, 200, "{target}");
    let passed = fixture
        .upstream
        .passed
        .lock()
        .map_err(|_| anyhow::anyhow!("poisoned"))?;
    let mut names: Vec<_> = passed.keys().map(ToString::to_string).collect();
    names.sort_unstable();
    Ok((names, reply.header("set-cookie").to_owned()))
}

#[tokio::test]
async fn no_cookie_passes_between_registries_that_are_asked_by_the_name_of_the_mirror()
-> anyhow::Result<()> {
    for (method, target) in [
        ("POST", "/v2/quay.io/a/blobs/uploads/"),
        ("PUT", "/v2/quay.io/a/manifests/v1"),
        ("GET", "/v2/quay.io/_catalog"),
        ("GET", "/v2/_catalog?ns=quay.io"),
        ("GET", "/v2/_catalog"),
    ] {
        let (seen, cookie) = passed(method, target).await?;
        assert_eq!(seen, ["content-type", "user-agent"], "{target}");
        assert_eq!(cookie, "", "{target}");
    }
    Ok(())
}

#[tokio::test]
async fn a_forward_proxy_passes_on_what_is_not_of_one_connection() -> anyhow::Result<()> {
    let (seen, cookie) = passed("POST", "http://quay.io/v2/a/blobs/uploads/").await?;
    let expect = [
        "baggage",
        "content-type",
        "cookie",
        "user-agent",
        "x-forwarded-for",
        "x-meta-a",
    ];
    assert_eq!(seen, expect);
    assert_eq!(cookie, "session=of-the-registry");
    Ok(())
}
