//! Where redirects and token servers may lead, and what goes along.

use std::{io, net::IpAddr, sync::Arc};

use futures_util::future::BoxFuture;
use protocol::RegistryName;
use swarm::source::{Method, Names, RedirectFault, Redirects, SourceError};

use super::{
    credential, fetch_blob, manifest_request,
    registry::{Registry, Reply},
    upstreams, upstreams_with_names,
};

/// Every name leads to one address.
pub(super) struct Everywhere(pub(super) IpAddr);

impl Names for Everywhere {
    fn addresses(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let address = self.0;
        Box::pin(async move { Ok(vec![address]) })
    }
}

fn redirect_to(location: &str) -> Reply {
    Reply::status(&format!("307 Temporary Redirect\r\nLocation: {location}"))
}

#[tokio::test]
async fn a_credential_stays_with_its_host() {
    let store = Registry::start(|asked| Reply::serve(asked, b"content")).await;
    let target = format!("http://{}/signed?signature=x", store.address);
    let registry = Registry::start(move |asked| match asked.header("authorization") {
        Some(_) if asked.target == "/again" => redirect_to(&target),
        Some(_) => redirect_to("/again"),
        None => Reply::status("401 Unauthorized"),
    });
    let registry = registry.await;
    let upstreams = upstreams(registry.address, &[store.address]);
    let fetched = fetch_blob(&upstreams, credential("Bearer mine"))
        .await
        .unwrap();
    assert_eq!(fetched.bytes, b"content");
    assert_eq!(
        registry.header_of_each("authorization"),
        ["-", "Bearer mine", "Bearer mine"]
    );
    assert_eq!(store.header_of_each("authorization"), ["-"]);
    assert_eq!(store.asked()[0].target, "/signed?signature=x");
}

#[tokio::test]
async fn a_body_cut_behind_a_redirect_is_resumed_through_the_registry() {
    let store = Registry::start(|asked| match asked.earlier {
        0 => Reply::serve(asked, b"content").cut(3),
        // The signature has run out meanwhile.
        1 => Reply::status("403 Forbidden"),
        _ => Reply::serve(asked, b"content"),
    });
    let store = store.await;
    let target = format!("http://{}/signed", store.address);
    let registry = Registry::start(move |_| redirect_to(&target)).await;
    let fetched = fetch_blob(&upstreams(registry.address, &[store.address]), None)
        .await
        .unwrap();
    assert_eq!(fetched.bytes, b"content");
    assert_eq!(
        store.header_of_each("range"),
        ["-", "bytes=4-6", "bytes=4-6"]
    );
    assert_eq!(registry.asked().len(), 3);
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    let registry = Registry::start(|asked| redirect_to(&asked.target)).await;
    let outcome = fetch_blob(&upstreams(registry.address, &[]), None).await;
    assert!(
        matches!(outcome, Err(SourceError::Redirect(RedirectFault::TooMany))),
        "{outcome:?}"
    );
    assert_eq!(registry.asked().len(), 11);
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_an_error() {
    let registry = Registry::start(|_| Reply::status("302 Found")).await;
    let outcome = fetch_blob(&upstreams(registry.address, &[]), None).await;
    assert!(
        matches!(
            outcome,
            Err(SourceError::Redirect(RedirectFault::NoLocation))
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_redirect_to_a_place_that_is_not_trusted_is_refused() {
    let inner = Registry::start(|_| Reply::new("200 OK", b"secret")).await;
    let port = inner.address.port();
    for target in [
        inner.address.to_string(),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("2130706433:{port}"),
        "10.0.0.1".to_owned(),
        "192.168.0.1:5000".to_owned(),
        "169.254.169.254".to_owned(),
        "[::1]".to_owned(),
        "[fd00:ec2::254]".to_owned(),
        "0.0.0.0".to_owned(),
    ] {
        let registry =
            Registry::start(move |_| redirect_to(&format!("http://{target}/latest"))).await;
        let outcome = fetch_blob(&upstreams(registry.address, &[]), None).await;
        assert!(
            matches!(outcome, Err(SourceError::Forbidden { .. })),
            "{outcome:?}"
        );
    }
    assert!(inner.asked().is_empty());
}

#[tokio::test]
async fn a_token_server_at_a_place_that_is_not_trusted_is_refused() {
    let inner = Registry::start(|_| Reply::new("200 OK", b"{\"token\":\"t\"}")).await;
    let realm = format!("http://{}/token", inner.address);
    let registry = Registry::start(move |_| {
        Reply::status(&format!(
            "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"{realm}\""
        ))
    });
    let registry = registry.await;
    let outcome = fetch_blob(&upstreams(registry.address, &[]), credential("Basic YTox")).await;
    assert!(
        matches!(outcome, Err(SourceError::Forbidden { .. })),
        "{outcome:?}"
    );
    assert!(inner.asked().is_empty());
}

#[tokio::test]
async fn a_name_is_judged_by_where_it_leads() {
    let inner = Registry::start(|_| Reply::new("200 OK", b"secret")).await;
    let target = format!("http://innocent.example:{}/", inner.address.port());
    let registry = Registry::start(move |_| redirect_to(&target)).await;
    let names = Arc::new(Everywhere(inner.address.ip()));
    let upstreams = upstreams_with_names(registry.address, &[], names);
    let outcome = fetch_blob(&upstreams, None).await;
    assert!(
        matches!(outcome, Err(SourceError::Forbidden { .. })),
        "{outcome:?}"
    );
    let mut request = manifest_request(Method::Get, Redirects::Follow);
    request.registry = "ghcr.io".parse().unwrap();
    let outcome = upstreams.send(&request).await;
    assert!(
        matches!(outcome, Err(SourceError::Forbidden { .. })),
        "{outcome:?}"
    );
    assert!(inner.asked().is_empty());
}

#[tokio::test]
async fn a_registry_that_nobody_named_is_not_asked() {
    let registry = Registry::start(|_| Reply::status("200 OK")).await;
    let upstreams = upstreams(registry.address, &[]);
    let mut request = manifest_request(Method::Get, Redirects::Follow);
    let name: RegistryName = registry.address.to_string().parse().unwrap();
    assert!(!upstreams.allowed(&name));
    request.registry = name;
    let outcome = upstreams.send(&request).await;
    assert!(
        matches!(outcome, Err(SourceError::NotAllowed(_))),
        "{outcome:?}"
    );
    assert!(registry.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_can_be_had_as_it_is() {
    let registry = Registry::start(|_| redirect_to("http://10.0.0.1/signed")).await;
    let upstreams = upstreams(registry.address, &[]);
    let response = upstreams
        .send(&manifest_request(Method::Head, Redirects::Stop))
        .await
        .unwrap();
    assert_eq!(
        (response.status.as_u16(), &response.headers["location"]),
        (307, &"http://10.0.0.1/signed".parse().unwrap())
    );
}
