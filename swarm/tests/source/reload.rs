//! Another configuration for registries that are being asked.

use protocol::ContentKind;
use swarm::source::{ByteRange, Config, SourceError};

use super::{
    fetch_blob, fetch_request,
    registry::{Registry, Reply},
    upstreams,
};

const BODY: &[u8] = b"content";

#[tokio::test]
async fn a_body_that_breaks_off_is_resumed_where_it_began_although_its_registry_is_taken_out() {
    let registry = Registry::start(|asked| match asked.earlier {
        0 => Reply::serve(asked, BODY).cut(3),
        _ => Reply::serve(asked, BODY),
    })
    .await;
    let upstreams = upstreams(registry.address, &[]);
    let (clone, start) = (upstreams.clone(), 0);
    let whole = ByteRange { start, end: None };
    let request = fetch_request(ContentKind::Blob, whole, None);
    let begun = upstreams.fetch(request).await.unwrap();
    upstreams.reload(Config::default()).unwrap();
    let bytes = begun.body.collect(1 << 20).await.unwrap();
    assert_eq!((&bytes[..], registry.asked().len()), (BODY, 2));
    for upstreams in [upstreams, clone] {
        let outcome = fetch_blob(&upstreams, None).await;
        assert!(
            matches!(outcome, Err(SourceError::NotAllowed(_))),
            "{outcome:?}"
        );
    }
    assert_eq!(registry.asked().len(), 2);
}
