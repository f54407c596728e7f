//! What each family of clients gets when it cannot have what it wants.

use proxy::RawConfig;
use swarm::source::{Access, SourceError};

use crate::fixture::{Fixture, status, success};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const DOCKER: &str = "User-Agent: docker/28.5.2 go/go1.27\r\n";
const PODMAN: &str = "User-Agent: containers/5.36 (github.com/containers/image)\r\n";

#[tokio::test]
async fn each_family_gets_what_the_table_says() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    for (upstream_status, namespace, mirror, direct) in [
        (404, 404, 404, 404),
        (401, 401, 404, 401),
        (403, 404, 404, 403),
        (429, 404, 404, 429),
        (500, 404, 404, 500),
        (503, 404, 404, 503),
    ] {
        let fixture = Fixture::new(directory.path()).await?;
        fixture
            .upstream
            .answers(move |_| Err(status(upstream_status)));
        let ns = fixture.get("/v2/a/b/manifests/v1?ns=quay.io").await?;
        let bare = fixture.ask("GET", "/v2/a/b/manifests/v1", DOCKER).await?;
        let prefix = fixture
            .ask("GET", "/v2/quay.io/c/d/manifests/v1", PODMAN)
            .await?;
        let head = fixture
            .ask("HEAD", "/v2/quay.io/c/d/manifests/v2", PODMAN)
            .await?;
        let seen = (ns.status, bare.status, prefix.status);
        assert_eq!(seen, (namespace, mirror, direct), "{upstream_status}");
        assert_eq!((head.status, head.body.len()), (direct, 0));
        assert_eq!(prefix.header("content-type"), "application/json");
        assert!(!prefix.code().is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_told_to_those_who_cannot_fall_back()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    fixture.upstream.answers(|_| {
        Err(SourceError::Unreachable {
            host: "quay.io".to_owned(),
            reason: "refused".to_owned(),
        })
    });
    let target = "/v2/quay.io/a/tags/list";
    assert_eq!(fixture.ask("GET", target, PODMAN).await?.status, 502);
    assert_eq!(fixture.get("/v2/a/tags/list?ns=quay.io").await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn the_proxy_is_no_open_relay() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    let denied = fixture.get("/v2/evil.example/a/manifests/v1").await?;
    assert_eq!((denied.status, denied.code()), (403, "DENIED".to_owned()));
    assert!(String::from_utf8_lossy(&denied.body).contains("[[proxy.registry]]"));
    assert_eq!(
        fixture
            .get("/v2/a/manifests/v1?ns=evil.example")
            .await?
            .status,
        404
    );
    assert_eq!(
        fixture
            .get("http://evil.example/v2/a/manifests/v1")
            .await?
            .status,
        403
    );
    assert_eq!(
        fixture
            .get("/v2/localhost:65001/a/manifests/v1")
            .await?
            .status,
        403
    );
    let via = fixture
        .ask("GET", "/v2/a/manifests/v1", "Via: 1.1 darter-test\r\n")
        .await?;
    assert_eq!(via.status, 403);
    assert_eq!(fixture.upstream.asked(), 0);
    Ok(())
}

#[tokio::test]
async fn what_no_client_means_is_answered_at_once() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    for (method, target, status, code) in [
        ("GET", "/v2/", 200, ""),
        ("GET", "/v2", 200, ""),
        ("HEAD", "/v2/", 200, ""),
        ("GET", "/", 404, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/sha256:12", 400, "DIGEST_INVALID"),
        ("GET", "/v2/A/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/b/_catalog", 404, "UNSUPPORTED"),
        ("POST", "/v2/a/blobs/uploads/", 405, "UNSUPPORTED"),
        ("PUT", "/v2/a/manifests/v1", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/a/manifests/v1", 405, "UNSUPPORTED"),
    ] {
        let reply = fixture.ask(method, target, "").await?;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{method} {target}"
        );
        assert_eq!(
            reply.header("docker-distribution-api-version"),
            "registry/2.0"
        );
    }
    assert_eq!(fixture.get("/v2/").await?.body, b"{}");
    assert_eq!(fixture.upstream.asked(), 0);
    Ok(())
}

#[tokio::test]
async fn lists_are_passed_through() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fixture = Fixture::new(directory.path()).await?;
    fixture.upstream.answers(|_| {
        let headers = [
            ("content-type", "application/json".to_owned()),
            (
                "link",
                "</v2/a/b/tags/list?last=v1&n=1>; rel=\"next\"".to_owned(),
            ),
            ("oci-filters-applied", "artifactType".to_owned()),
            ("set-cookie", "secret".to_owned()),
        ];
        Ok(success(Access::Anonymous, &headers, b"{\"tags\":[\"v1\"]}"))
    });
    let reply = fixture.get("/v2/a/b/tags/list?n=1&ns=quay.io").await?;
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, b"{\"tags\":[\"v1\"]}".as_slice())
    );
    let next = "</v2/a/b/tags/list?last=v1&n=1&ns=quay.io>; rel=\"next\"";
    assert_eq!(
        (reply.header("link"), reply.header("set-cookie")),
        (next, "")
    );
    let reply = fixture
        .get(&format!("/v2/quay.io/a/b/referrers/{DIGEST}"))
        .await?;
    assert_eq!(
        (reply.status, reply.header("oci-filters-applied")),
        (200, "artifactType")
    );
    Ok(())
}

/// A login for this mirror comes along to whatever a path names.
#[tokio::test]
async fn no_password_goes_to_a_registry_that_only_a_pattern_allows() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let raw = RawConfig {
        allow: vec!["*.pattern.test".to_owned(), "named.test".to_owned()],
        ..RawConfig::default()
    };
    let fixture = Fixture::with(directory.path(), raw).await?;
    fixture
        .upstream
        .answers(|request| match &request.credential {
            Some(_) => Err(status(403)),
            None => Err(status(401)),
        });
    let (basic, bearer) = (
        "Authorization: Basic dTpw\r\n",
        "Authorization: Bearer x\r\n",
    );
    for (registry, header, expect) in [
        ("named.test", basic, 403),
        ("some.pattern.test", basic, 401),
        ("some.pattern.test", bearer, 403),
    ] {
        let target = format!("/v2/{registry}/a/b/manifests/v1");
        let reply = fixture.ask("GET", &target, header).await?;
        assert_eq!(reply.status, expect, "{registry} {header}");
    }
    Ok(())
}
