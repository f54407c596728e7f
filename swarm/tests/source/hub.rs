//! What registries say of their rate limits: Docker Hub's is shown, and anybody's is kept to by those
//! who need not ask.

use std::{collections::HashMap, net::SocketAddr};

use protocol::RegistryName;
use swarm::source::{
    Config, Method, Redirects, RegistryConfig, SourceMetrics, UpstreamRequest, Upstreams,
};

use super::{
    credential, manifest_request,
    registry::{Registry, Reply},
};

/// One registry of this name, at `endpoints`, and what is counted.
fn upstreams_at(name: &str, endpoints: &[SocketAddr]) -> (Upstreams, prometheus::Registry) {
    let urls = endpoints
        .iter()
        .map(|endpoint| format!("http://{endpoint}/"));
    let registry = RegistryConfig {
        endpoints: urls.map(|url| url.parse().expect("a URL")).collect(),
        also_trust: Vec::new(),
        ca: Vec::new(),
        client: None,
        docker_config: None,
    };
    let name: RegistryName = name.parse().expect("a registry name");
    let config = Config {
        registries: HashMap::from([(name, registry)]),
        ..Config::default()
    };
    let counts = prometheus::Registry::new();
    let metrics = SourceMetrics::register(&counts).expect("a fresh registry");
    let upstreams = Upstreams::new(config, metrics).expect("no CA that could be wrong");
    (upstreams, counts)
}

/// One HEAD to `name` by this credential, whatever comes of it.
async fn ask(upstreams: &Upstreams, name: &str, authorization: Option<&str>) {
    let request = UpstreamRequest {
        registry: name.parse().expect("a registry name"),
        credential: authorization.and_then(credential),
        ..manifest_request(Method::Head, Redirects::Stop)
    };
    // What is refused is told of as well.
    let _answered = upstreams.send(&request).await;
}

/// The gauge after one HEAD to `name`, whose entry leads to `endpoint`: `of=number`, in order.
async fn told_by(name: &str, endpoint: SocketAddr) -> Vec<String> {
    let (upstreams, counts) = upstreams_at(name, &[endpoint]);
    ask(&upstreams, name, None).await;
    let families = counts.gather();
    let hub = families
        .iter()
        .filter(|family| family.name() == "darter_source_hub_pulls");
    let gauges = hub.flat_map(|family| family.get_metric());
    let shown = gauges.map(|gauge| {
        let of = gauge.get_label()[0].value();
        format!("{of}={}", gauge.get_gauge().get_value())
    });
    shown.collect()
}

#[tokio::test]
async fn what_docker_hub_says_of_its_rate_limit_is_shown() {
    let both = "RateLimit-Limit: 100;w=21600\r\nratelimit-remaining: 76;w=21600";
    for status in ["200 OK", "404 Not Found"] {
        let head = format!("{status}\r\n{both}");
        let hub = Registry::start(move |_| Reply::status(&head)).await;
        let told = told_by("docker.io", hub.address).await;
        assert_eq!(told, ["limit=100", "remaining=76"]);
        let none: [&str; 0] = [];
        assert_eq!(told_by("r.example", hub.address).await, none);
    }
}

/// Says how many of 100 are left.
async fn leaves(remaining: &'static str) -> Registry {
    Registry::start(move |_| {
        let told = format!("200 OK\r\nratelimit-limit: 100\r\nratelimit-remaining: {remaining}");
        Reply::status(&told)
    })
    .await
}

#[tokio::test]
async fn who_need_not_ask_does_not_where_every_endpoint_has_few_answers_left() {
    let name = "r.example";
    let registry: RegistryName = name.parse().expect("a registry name");
    for (remaining, expect) in [("76;w=600", true), ("5;w=600", false)] {
        let far = leaves(remaining).await;
        let (upstreams, _) = upstreams_at(name, &[far.address]);
        assert!(upstreams.may_refresh(&registry).await);
        ask(&upstreams, name, None).await;
        assert_eq!(upstreams.may_refresh(&registry).await, expect);
        // Another registry has said nothing.
        let other = "quay.io".parse().expect("a registry name");
        assert!(upstreams.may_refresh(&other).await);
    }
    let (near, far) = (leaves("0;w=600").await, leaves("0;w=600").await);
    let (upstreams, _) = upstreams_at(name, &[near.address, far.address]);
    ask(&upstreams, name, None).await;
    assert!(upstreams.may_refresh(&registry).await, "the other is well");
}

#[tokio::test]
async fn what_a_caller_has_left_is_his_own() {
    let name = "r.example";
    let registry: RegistryName = name.parse().expect("a registry name");
    let own = Registry::start(|asked| match asked.header("authorization") {
        Some(_) => Reply::status("200 OK\r\nratelimit-remaining: 0;w=600"),
        None => Reply::status("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\""),
    })
    .await;
    let (upstreams, _) = upstreams_at(name, &[own.address]);
    ask(&upstreams, name, Some("Basic YW5uOng=")).await;
    assert_eq!(own.asked().len(), 2);
    assert!(upstreams.may_refresh(&registry).await);
}
