//! One registry at several endpoints: which of them is asked, and what each of them is shown.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use swarm::source::{RegistryConfig, SourceError, SystemNames, Timeouts, Upstreams};
use tokio::{net::TcpListener, time::timeout};

use super::{
    REGISTRY, credential, fetch_blob, pass,
    registry::{Asked, Registry, Reply},
    upstreams_of,
};

const BODY: &[u8] = b"content";

/// Who can go elsewhere waits so long for all but the last.
const PATIENCE: Duration = Duration::from_millis(600);

fn upstreams_at(endpoints: &[SocketAddr]) -> Upstreams {
    let url = |address: &SocketAddr| format!("http://{address}/").parse().expect("a URL");
    let registry = RegistryConfig {
        endpoints: endpoints.iter().map(url).collect(),
        also_trust: Vec::new(),
        ca: Vec::new(),
        client: None,
        docker_config: None,
    };
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        response: Duration::from_secs(10),
        stall: Duration::from_millis(300),
        backoff: Duration::from_millis(1),
        fallback: PATIENCE,
        fallback_memory: Duration::ZERO,
        ..Timeouts::default()
    };
    let registries = HashMap::from([(REGISTRY.parse().expect("a name"), registry)]);
    upstreams_of(registries, timeouts, Arc::new(SystemNames))
}

async fn healthy() -> Registry {
    Registry::start(|asked| Reply::serve(asked, BODY)).await
}

/// A near endpoint that answers with `status`, and a far one that has it.
async fn near_and_far(status: &'static str) -> (Registry, Registry, Upstreams) {
    let near = Registry::start(move |_| Reply::status(status)).await;
    let far = healthy().await;
    let upstreams = upstreams_at(&[near.address, far.address]);
    (near, far, upstreams)
}

/// An address of the loopback where nobody listens.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("it is bound")
}

#[tokio::test]
async fn an_endpoint_that_answers_is_the_only_one_asked() {
    let (near, far) = (healthy().await, healthy().await);
    let upstreams = upstreams_at(&[near.address, far.address]);
    fetch_blob(&upstreams, None).await.unwrap();
    assert_eq!((near.asked().len(), far.asked().len()), (1, 0));
}

#[tokio::test]
async fn what_a_near_endpoint_cannot_give_comes_from_the_next_in_the_same_request() {
    for status in [
        "404 Not Found",
        "401 Unauthorized",
        "403 Forbidden",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ] {
        let (near, _far, upstreams) = near_and_far(status).await;
        let fetched = fetch_blob(&upstreams, None).await.unwrap();
        assert_eq!((&fetched.bytes[..], near.asked().len()), (BODY, 1));
    }
    let far = healthy().await;
    let upstreams = upstreams_at(&[nowhere().await, far.address]);
    assert_eq!(fetch_blob(&upstreams, None).await.unwrap().bytes, BODY);
}

#[tokio::test]
async fn an_answer_that_is_no_better_elsewhere_is_the_answer() {
    let (_near, far, upstreams) = near_and_far("400 Bad Request").await;
    let outcome = fetch_blob(&upstreams, None).await;
    let Err(SourceError::Status(answer)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((answer.status.as_u16(), far.asked().len()), (400, 0));
}

#[tokio::test]
async fn the_answer_of_the_last_is_the_answer_of_all() {
    for (near, far) in [
        ("404 Not Found", "401 Unauthorized"),
        ("401 Unauthorized", "404 Not Found"),
        ("503 Service Unavailable", "404 Not Found"),
    ] {
        let near = Registry::start(move |_| Reply::status(near)).await;
        let last = Registry::start(move |_| Reply::status(far)).await;
        let outcome = fetch_blob(&upstreams_at(&[near.address, last.address]), None).await;
        let status = outcome.as_ref().err().and_then(SourceError::answer);
        let status = status.map(|answer| answer.status.to_string());
        assert_eq!(status.as_deref(), Some(far), "{outcome:?}");
    }
}

#[tokio::test]
async fn many_go_past_an_endpoint_that_is_silent_and_one_sees_whether_it_is_over() {
    let near = Registry::start(|_| Reply::status("200 OK").cut(20).then_stall()).await;
    let far = healthy().await;
    let upstreams = upstreams_at(&[near.address, far.address]);
    // Less than the last would be waited for.
    let first = timeout(Duration::from_secs(8), fetch_blob(&upstreams, None));
    first.await.unwrap().unwrap();
    let fetches = (0..5).map(|_| fetch_blob(&upstreams, None));
    let all = join_all(fetches).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!((near.asked().len(), far.asked().len()), (1, 6));
    pass(Duration::from_secs(3)).await;
    let fetches = (0..5).map(|_| fetch_blob(&upstreams, None));
    let all = join_all(fetches).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!((near.asked().len(), far.asked().len()), (2, 11));
}

#[tokio::test]
async fn a_body_that_breaks_off_goes_on_at_another_endpoint() {
    let cut: fn(&Asked) -> Reply = |asked| Reply::serve(asked, BODY).cut(3);
    let stall: fn(&Asked) -> Reply = |asked| Reply::serve(asked, BODY).cut(3).then_stall();
    let reset: fn(&Asked) -> Reply = |asked| Reply::serve(asked, BODY).cut(3).then_reset();
    for breaks in [cut, stall, reset] {
        let near = Registry::start(breaks).await;
        let far = healthy().await;
        let upstreams = upstreams_at(&[near.address, far.address]);
        let fetched = fetch_blob(&upstreams, None).await.unwrap();
        assert_eq!(fetched.bytes, BODY);
        assert_eq!(near.asked().len(), 1);
        // A reset may take bytes with it that were sent before.
        let ranges = far.header_of_each("range");
        assert!(ranges.len() == 1 && ranges[0].ends_with("-6"), "{ranges:?}");
    }
}

/// A registry with a token server of its own, that gives and takes `token` alone.
async fn guarded(token: &'static str) -> Registry {
    Registry::start(move |asked| {
        if asked.target.starts_with("/token") {
            let told = format!("{{\"token\":\"{token}\",\"expires_in\":300}}");
            return Reply::new("200 OK", told.as_bytes());
        }
        let host = asked.header("host").unwrap_or_default();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="s""#);
        match asked.header("authorization") {
            Some(shown) if shown == format!("Bearer {token}") && token == "far" => {
                Reply::serve(asked, BODY)
            }
            _ => Reply::status(&format!(
                "401 Unauthorized\r\nWWW-Authenticate: {challenge}"
            )),
        }
    })
    .await
}

#[tokio::test]
async fn a_token_of_one_endpoint_is_never_shown_to_another() {
    let (near, far) = (guarded("near").await, guarded("far").await);
    let upstreams = upstreams_at(&[near.address, far.address]);
    for _ in 0..2 {
        assert_eq!(fetch_blob(&upstreams, None).await.unwrap().bytes, BODY);
    }
    let shown = |registry: &Registry| {
        let mut shown = registry.header_of_each("authorization");
        shown.sort_unstable();
        shown.dedup();
        shown
    };
    assert_eq!(shown(&near), ["-", "Bearer near"]);
    assert_eq!(shown(&far), ["-", "Bearer far"]);
}

#[tokio::test]
async fn what_one_endpoint_refused_is_still_asked_anonymously_of_the_next() {
    let near = Registry::start(|asked| match asked.header("authorization") {
        Some(_) => Reply::status("404 Not Found"),
        None => Reply::status("401 Unauthorized"),
    });
    let (near, far) = (near.await, healthy().await);
    let upstreams = upstreams_at(&[near.address, far.address]);
    fetch_blob(&upstreams, credential("Bearer mine"))
        .await
        .unwrap();
    assert_eq!(near.header_of_each("authorization"), ["-", "Bearer mine"]);
    assert_eq!(far.header_of_each("authorization"), ["-"]);
}
