//! A proxy before the upstreams: what goes there, and what is still judged here.

use std::{collections::HashMap, sync::Arc, time::Duration};

use swarm::source::{
    Config, ProxyTexts, RegistryConfig, SourceError, SourceMetrics, Timeouts, UpstreamProxy,
    Upstreams,
};

use super::{
    Fetched, REGISTRY, credential, fetch_blob,
    registry::{Registry, Reply},
};

const BODY: &[u8] = b"content";

/// A proxy before a registry that redirects to `location`, and to wherever that is.
async fn proxy_before(location: &str) -> Arc<Registry> {
    let redirect = format!("307 Temporary Redirect\r\nLocation: {location}");
    let proxy = Registry::start(move |asked| {
        let is_registry = asked.target.starts_with("http://r.invalid/v2/");
        match (is_registry, asked.header("authorization")) {
            (true, None) => Reply::status("401 Unauthorized"),
            (true, Some(_)) => Reply::status(&redirect),
            (false, _) => Reply::serve(asked, BODY),
        }
    });
    Arc::new(proxy.await)
}

async fn fetch_through(proxy: &Registry) -> Result<Fetched, SourceError> {
    let entry = RegistryConfig {
        endpoints: vec!["http://r.invalid/".parse().expect("a URL")],
        also_trust: Vec::new(),
        ca: Vec::new(),
        client: None,
        docker_config: None,
    };
    let texts = ProxyTexts {
        http: format!("http://{}", proxy.address),
        ..ProxyTexts::default()
    };
    let config = Config {
        registries: HashMap::from([(REGISTRY.parse().expect("a name"), entry)]),
        timeouts: Timeouts {
            backoff: Duration::from_millis(1),
            ..Timeouts::default()
        },
        proxy: UpstreamProxy::new(&texts).expect("a proxy"),
        ..Config::default()
    };
    let metrics = SourceMetrics::register(&prometheus::Registry::new()).expect("a fresh registry");
    let upstreams = Upstreams::new(config, metrics).expect("no CA that could be wrong");
    fetch_blob(&upstreams, credential("Bearer mine")).await
}

#[tokio::test]
async fn names_are_the_proxys_to_resolve_and_credentials_leave_for_the_registry_alone() {
    let proxy = proxy_before("http://store.invalid/signed").await;
    assert_eq!(fetch_through(&proxy).await.unwrap().bytes, BODY);
    let asked = proxy.asked();
    let last = asked.last().expect("it was asked");
    assert_eq!(last.target, "http://store.invalid/signed");
    assert_eq!(last.header("authorization"), None);
}

#[tokio::test]
async fn addresses_and_names_of_this_host_are_judged_as_without_a_proxy() {
    let inner = Registry::start(|_| Reply::new("200 OK", b"secret")).await;
    for place in [
        "10.0.0.1".to_owned(),
        "169.254.169.254".to_owned(),
        "[fd00:ec2::254]".to_owned(),
        inner.address.to_string(),
        format!("localhost:{}", inner.address.port()),
        format!("x.localhost:{}", inner.address.port()),
    ] {
        let proxy = proxy_before(&format!("http://{place}/x")).await;
        let outcome = fetch_through(&proxy).await;
        let is_refused = match &outcome {
            Err(SourceError::Forbidden { .. }) => true,
            // Not every system knows names under localhost.
            Err(SourceError::Unreachable { .. }) => place.starts_with("x."),
            _ => false,
        };
        assert!(is_refused, "{place}: {outcome:?}");
        assert!(
            proxy
                .asked()
                .iter()
                .all(|asked| !asked.target.contains(&place))
        );
    }
    assert!(inner.asked().is_empty());
}
