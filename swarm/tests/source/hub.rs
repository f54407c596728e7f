//! What Docker Hub says of its rate limit, wherever the configuration has it.

use std::{collections::HashMap, net::SocketAddr};

use protocol::RegistryName;
use swarm::source::{
    Config, Method, Redirects, RegistryConfig, SourceMetrics, UpstreamRequest, Upstreams,
};

use super::{
    manifest_request,
    registry::{Registry, Reply},
};

/// The gauge after one HEAD to `name`, whose entry leads to `endpoint`: `of=number`, in order.
async fn told_by(name: &str, endpoint: SocketAddr) -> Vec<String> {
    let name: RegistryName = name.parse().expect("a registry name");
    let registry = RegistryConfig {
        endpoints: vec![format!("http://{endpoint}/").parse().expect("a URL")],
        also_trust: Vec::new(),
        ca: Vec::new(),
        client: None,
        docker_config: None,
    };
    let config = Config {
        registries: HashMap::from([(name.clone(), registry)]),
        ..Config::default()
    };
    let counts = prometheus::Registry::new();
    let metrics = SourceMetrics::register(&counts).expect("a fresh registry");
    let upstreams = Upstreams::new(config, metrics).expect("no CA that could be wrong");
    let request = UpstreamRequest {
        registry: name,
        ..manifest_request(Method::Head, Redirects::Stop)
    };
    // What is refused is told of as well.
    let _answered = upstreams.send(&request).await;
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
