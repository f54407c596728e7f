//! The router by data: what a request line means, and what is refused.

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn router() -> Router {
    let own_names = vec!["node7.example:65001".parse().unwrap()];
    Router::new(
        "docker.io".parse().unwrap(),
        65001,
        own_names,
        "darter-7f".to_owned(),
    )
}

fn route(method: Method, target: &str) -> Result<RegistryRequest, RouteError> {
    let target = target.replace("DIGEST", DIGEST);
    router().route(&method, &target.parse().unwrap(), [])
}

/// Writes a request that is read as `form registry repository resource`.
#[track_caller]
fn reads(target: &str, expect: &str) {
    let seen = match route(Method::GET, target) {
        Ok(RegistryRequest::Read(target, resource)) => {
            let resource = match resource {
                Resource::Blob(_) => "blob".to_owned(),
                Resource::Manifest(Reference::Tag(tag)) => format!("tag {}", tag.as_str()),
                Resource::Manifest(Reference::Digest(_)) => "manifest".to_owned(),
                Resource::TagsList => "tags".to_owned(),
                Resource::Referrers(_) => "referrers".to_owned(),
            };
            format!(
                "{:?} {} {} {resource}",
                target.form, target.registry, target.repository
            )
        }
        other => format!("{other:?}"),
    };
    assert_eq!(seen, expect, "{target}");
}

#[track_caller]
fn refuses(target: &str, expect: &str) {
    let seen = match route(Method::GET, target) {
        Err(RouteError::NoSuchPath) => "path",
        Err(RouteError::Name(_)) => "name",
        Err(RouteError::Digest(..)) => "digest",
        Err(RouteError::Loop(_)) => "loop",
        Err(RouteError::Host) => "host",
        Ok(_) => "fine",
    };
    assert_eq!(seen, expect, "{target}");
}

#[test]
fn a_bare_name_is_of_the_default_registry() {
    reads(
        "/v2/library/alpine/manifests/latest",
        "Bare docker.io library/alpine tag latest",
    );
    reads(
        "/v2/alpine/manifests/latest",
        "Bare docker.io library/alpine tag latest",
    );
    reads("/v2/org/img/blobs/DIGEST", "Bare docker.io org/img blob");
    reads("/v2/org/img/tags/list?n=5", "Bare docker.io org/img tags");
    reads(
        "/v2/org/img/referrers/DIGEST?artifactType=x",
        "Bare docker.io org/img referrers",
    );
}

#[test]
fn the_namespace_names_the_registry() {
    reads(
        "/v2/org/img/manifests/DIGEST?ns=ghcr.io",
        "Ns ghcr.io org/img manifest",
    );
    reads(
        "/v2/org/img/manifests/v1?a=b&ns=r.example%3A5000",
        "Ns r.example:5000 org/img tag v1",
    );
    reads(
        "/v2/img/manifests/v1?ns=%5B%3A%3A1%5D%3A5000",
        "Ns [::1]:5000 img tag v1",
    );
    reads(
        "/v2/alpine/manifests/v1?ns=docker.io",
        "Ns docker.io library/alpine tag v1",
    );
    reads(
        "/v2/alpine/manifests/v1?ns=registry-1.docker.io",
        "Ns docker.io library/alpine tag v1",
    );
    reads(
        "/v2/alpine/manifests/v1?ns=index.docker.io",
        "Ns docker.io library/alpine tag v1",
    );
    reads(
        "/v2/alpine/manifests/v1?ns=",
        "Bare docker.io library/alpine tag v1",
    );
    reads(
        "/v2/my.org/img/manifests/v1?ns=quay.io",
        "Ns quay.io my.org/img tag v1",
    );
}

#[test]
fn a_first_component_like_a_registry_is_one() {
    reads(
        "/v2/ghcr.io/org/img/manifests/v1",
        "Prefix ghcr.io org/img tag v1",
    );
    reads(
        "/v2/docker.io/alpine/manifests/v1",
        "Prefix docker.io library/alpine tag v1",
    );
    reads(
        "/v2/index.docker.io/alpine/manifests/v1",
        "Prefix docker.io library/alpine tag v1",
    );
    reads(
        "/v2/r.example:5000/img/blobs/DIGEST",
        "Prefix r.example:5000 img blob",
    );
    reads(
        "/v2/r.example%3A5000/img/blobs/DIGEST",
        "Prefix r.example:5000 img blob",
    );
    reads(
        "/v2/localhost:5000/img/blobs/DIGEST",
        "Prefix localhost:5000 img blob",
    );
    reads("/v2/localhost/img/tags/list", "Prefix localhost img tags");
}

#[test]
fn a_request_in_absolute_form_names_its_host() {
    reads(
        "http://r.example:5000/v2/img/blobs/DIGEST",
        "Forward r.example:5000 img blob",
    );
    reads(
        "http://harbor.example/v2/quay.io/img/blobs/DIGEST",
        "Forward harbor.example quay.io/img blob",
    );
    reads(
        "http://m.example/v2/a/b/blobs/DIGEST?ns=quay.io",
        "Forward m.example a/b blob",
    );
    reads(
        "http://localhost:65001/v2/a/b/blobs/DIGEST",
        "Bare docker.io a/b blob",
    );
    reads(
        "http://127.0.0.1:65001/v2/quay.io/b/blobs/DIGEST",
        "Prefix quay.io b blob",
    );
}

#[test]
fn names_that_hold_the_words_of_the_api_are_read_from_the_right() {
    reads(
        "/v2/a/blobs/manifests/latest",
        "Bare docker.io a/blobs tag latest",
    );
    reads(
        "/v2/a/manifests/tags/list",
        "Bare docker.io a/manifests tags",
    );
    reads(
        "/v2/a/tags/manifests/list",
        "Bare docker.io a/tags tag list",
    );
    reads(
        "/v2/manifests/blobs/DIGEST",
        "Bare docker.io library/manifests blob",
    );
    reads(
        "/v2/a/blobs/sha256/manifests/blobs",
        "Bare docker.io a/blobs/sha256 tag blobs",
    );
}

#[test]
fn what_is_no_name_is_refused_by_kind() {
    refuses("/v2/a/blobs/sha256:00", "digest");
    refuses("/v2/a/blobs/latest", "digest");
    refuses("/v2/a/manifests/md5:00", "digest");
    refuses("/v2/a/referrers/latest", "digest");
    refuses("/v2/A/manifests/v1", "name");
    refuses("/v2/a/manifests/-v1", "name");
    refuses("/v2/a%2Fb/manifests/v1", "name");
    refuses("/v2/a%ff/manifests/v1", "name");
    refuses("/v2/a/../b/manifests/v1", "name");
    refuses("/v2//manifests/v1", "name");
    refuses("/v2/ghcr.io//manifests/v1", "name");
    refuses("/v2/a/manifests/v1?ns=http://x", "name");
    refuses("/v2/a/manifests/v1?ns=u@x", "name");
    refuses("/v2/a/manifests/v1?ns=x/y", "name");
    refuses(&format!("/v2/a/manifests/{}", "v".repeat(129)), "name");
}

#[test]
fn a_path_that_is_not_of_the_api_leads_nowhere() {
    for path in [
        "/",
        "/v1/_ping",
        "/v2/a",
        "/v2/a/b",
        "/v2/a/b/c",
        "/v3/",
        "/healthz",
        "/v2/manifests/v1",
    ] {
        refuses(path, "path");
    }
}

#[track_caller]
fn tells(target: &str, expect: &str) {
    let told = route(Method::GET, target).map_err(|error| error.to_string());
    assert_eq!(told, Err(expect.to_owned()), "{target}");
}

#[test]
fn what_is_no_name_is_repeated_unless_it_may_hold_a_password() {
    let name = "is no registry, repository or tag name";
    tells("/v2/A/manifests/v1", &format!("\"A\" {name}"));
    let hidden = format!("what holds an `@` {name}");
    tells("/v2/a/manifests/v1?ns=me:secret@r.example", &hidden);
    tells("/v2/a/manifests/v1?ns=me:secret%40r.example", &hidden);
    tells("/v2/me:secret%40r.example%2fa/manifests/v1", &hidden);
    tells("http://me:secret@r.example/v2/a/manifests/v1", &hidden);
}

#[test]
fn the_proxy_does_not_ask_itself() {
    refuses("/v2/localhost:65001/localhost:65001/a/manifests/v1", "loop");
    refuses("/v2/127.0.0.1:65001/a/manifests/v1", "loop");
    refuses("/v2/a/manifests/v1?ns=localhost:65001", "loop");
    refuses("/v2/a/manifests/v1?ns=[::1]:65001", "loop");
    refuses("/v2/a/manifests/v1?ns=0.0.0.0:65001", "loop");
    refuses("/v2/a/manifests/v1?ns=node7.example:65001", "loop");
    refuses("/v2/a/manifests/v1?ns=localhost:5000", "fine");
    refuses("/v2/a/manifests/v1?ns=other.example:65001", "fine");
}

#[test]
fn a_request_that_this_process_sent_is_refused() {
    let uri: Uri = "/v2/a/manifests/v1".parse().unwrap();
    let seen = |via: &str| router().route(&Method::GET, &uri, [via]);
    assert!(matches!(seen("1.1 darter-7f"), Err(RouteError::Loop(_))));
    assert!(matches!(
        seen("1.1 squid (x), 1.1 darter-7f (y)"),
        Err(RouteError::Loop(_))
    ));
    assert!(seen("1.1 darter-80, 1.0 squid").is_ok());
}

/// What is passed on, as `form registry path written`.
#[track_caller]
fn passes(method: Method, target: &str, expect: &str) {
    let seen = match route(method, target) {
        Ok(RegistryRequest::Through(through)) => {
            let written = through
                .writes
                .map(|(repository, reference)| format!(" {repository} {reference}"));
            format!(
                "{:?} {} {}{}",
                through.form,
                through.registry,
                through.path,
                written.unwrap_or_default()
            )
        }
        other => format!("{other:?}"),
    };
    assert_eq!(seen, expect, "{target}");
}

#[test]
fn a_write_by_an_explicit_name_is_passed_on() {
    let to = "Prefix r.example:5000 /v2/a/b";
    let upload = "/v2/r.example:5000/a/b/blobs/uploads/";
    passes(Method::POST, upload, &format!("{to}/blobs/uploads/"));
    passes(
        Method::PATCH,
        "/v2/r.example%3A5000/a/b/blobs/uploads/x%2B1?_state=y",
        &format!("{to}/blobs/uploads/x%2B1"),
    );
    passes(
        Method::GET,
        "/v2/r.example:5000/a/b/blobs/uploads/x",
        &format!("{to}/blobs/uploads/x"),
    );
    passes(
        Method::PUT,
        "/v2/r.example:5000/a/b/manifests/v1",
        &format!("{to}/manifests/v1 a/b v1"),
    );
    passes(
        Method::DELETE,
        "/v2/docker.io/alpine/manifests/v1",
        "Prefix docker.io /v2/alpine/manifests/v1 library/alpine v1",
    );
    passes(
        Method::DELETE,
        "/v2/r.example:5000/a/b/blobs/DIGEST",
        &format!("{to}/blobs/{DIGEST}"),
    );
}

#[test]
fn all_that_a_forward_proxy_is_asked_and_that_is_no_pull_is_passed_on() {
    for (method, path) in [
        (Method::GET, "/v2/"),
        (Method::GET, "/token"),
        (Method::POST, "/oauth2/token"),
        (Method::GET, "/"),
        (Method::GET, "/v2/_catalog"),
        (Method::GET, "/v2/a/b/_trust/tuf/root.json"),
        (Method::POST, "/v2/a/blobs/uploads/"),
    ] {
        let target = format!("http://r.example{path}?x=y");
        passes(method, &target, &format!("Forward r.example {path}"));
    }
    passes(
        Method::PUT,
        "http://r.example/v2/a/manifests/v1",
        "Forward r.example /v2/a/manifests/v1 a v1",
    );
}

#[test]
fn the_list_of_all_repositories_is_the_registrys() {
    passes(
        Method::GET,
        "/v2/_catalog?n=1",
        "Bare docker.io /v2/_catalog",
    );
    passes(
        Method::GET,
        "/v2/_catalog?ns=ghcr.io",
        "Ns ghcr.io /v2/_catalog",
    );
    passes(
        Method::GET,
        "/v2/ghcr.io/_catalog",
        "Prefix ghcr.io /v2/_catalog",
    );
    passes(Method::GET, "/v2/ghcr.io/", "Prefix ghcr.io /v2/");
    passes(
        Method::GET,
        "/v2/localhost:65001/_catalog",
        "Err(Loop(\"localhost:65001\"))",
    );
}

#[test]
fn a_name_that_looks_like_an_upload_is_read() {
    reads(
        "/v2/r.example/a/blobs/uploads/manifests/v1",
        "Prefix r.example a/blobs/uploads tag v1",
    );
}

#[test]
fn the_rest_is_told_apart_by_method_and_path() {
    assert_eq!(
        route(Method::GET, "/v2/?ns=x.example"),
        Ok(RegistryRequest::Ping)
    );
    assert_eq!(route(Method::HEAD, "/v2"), Ok(RegistryRequest::Ping));
    for (method, target) in [
        (Method::POST, "/v2/a/blobs/uploads/"),
        (Method::DELETE, "/v2/a/manifests/v1"),
        (Method::PUT, "/v2/a/manifests/v1?ns=ghcr.io"),
    ] {
        assert_eq!(route(method, target), Ok(RegistryRequest::Write));
    }
    assert_eq!(
        route(Method::CONNECT, "ghcr.io:443"),
        Ok(RegistryRequest::Connect)
    );
}

proptest! {
    #[test]
    fn no_target_makes_the_router_fall(text in "/[ -~]{0,80}") {
        if let Ok(uri) = text.parse::<Uri>() {
            let _ = router().route(&Method::GET, &uri, []);
        }
    }

    #[test]
    fn every_legal_name_is_read_whole(
        name in "[a-z0-9]{1,8}(/(blobs|manifests|tags|[a-z0-9]{1,8})){1,4}",
        tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
    ) {
        let uri: Uri = format!("/v2/{name}/manifests/{tag}?ns=r.example").parse().unwrap();
        let Ok(RegistryRequest::Read(target, resource)) = router().route(&Method::GET, &uri, []) else {
            return Err(proptest::test_runner::TestCaseError::fail("not read"));
        };
        prop_assert_eq!(target.repository.as_str(), name);
        prop_assert!(resource == Resource::Manifest(Reference::Tag(tag.parse().unwrap())));
    }
}
