//! Requests that are passed on, which their registry takes long to answer.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use swarm::source::{PassRequest, SourceError, SystemNames, Timeouts, Upstreams};
use tokio::task::JoinSet;

use super::{
    REGISTRY, fetch_blob, pass,
    registry::{Registry, Reply},
    upstreams_that_wait,
};

const BODY: &[u8] = b"content";

/// A registry that gives contents and says nothing to who pushes.
async fn silent_to_writers() -> Registry {
    Registry::start(|asked| match asked.method.as_str() {
        "POST" => Reply::status("202 Accepted").cut(usize::MAX).then_stall(),
        _ => Reply::serve(asked, BODY),
    })
    .await
}

async fn push(upstreams: Upstreams) -> Result<(), SourceError> {
    let request = PassRequest {
        registry: REGISTRY.parse().expect("a registry name"),
        method: http::Method::POST,
        path: "/v2/team/image/blobs/uploads/".to_owned(),
        query: String::new(),
        headers: http::HeaderMap::new(),
        credential: None,
        body: Empty::new().map_err(|never| match never {}).boxed(),
        caller_stall: Duration::from_secs(600),
    };
    upstreams.pass(request).await.map(drop)
}

#[tokio::test]
async fn pushes_that_wait_for_their_registry_hold_up_no_pull_and_are_given_time() {
    let registry = silent_to_writers().await;
    let time = Duration::from_secs(5);
    let upstreams = upstreams_that_wait(
        time,
        registry.address,
        &[],
        std::sync::Arc::new(SystemNames),
    );
    let mut pushes = JoinSet::new();
    // As many as there may be requests to one registry at once.
    let many = 64;
    for _ in 0..many {
        pushes.spawn(push(upstreams.clone()));
    }
    while registry.asked().len() < many {
        tokio::task::yield_now().await;
    }
    assert_eq!(fetch_blob(&upstreams, None).await.unwrap().bytes, BODY);
    pass(2 * time).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(pushes.try_join_next().is_none(), "a push was given up");
    pass(Timeouts::default().write).await;
    while let Some(pushed) = pushes.join_next().await {
        let pushed = pushed.expect("no push falls");
        assert!(
            matches!(pushed, Err(SourceError::Stalled { .. })),
            "{pushed:?}"
        );
    }
}
