//! Gathers what others answer: the node, whoever is on its ports, and the registries as the node would
//! ask them. Each is waited for within a limit.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt as _, Empty};
use protocol::RegistryName;
use swarm::source::{Keyring as _, Outside, PassRequest, SourceMetrics, Upstreams};
use tokio::{net::TcpStream, time::timeout};

use super::{
    facts::{Greeting, Listener, Node, Upstream, reachable},
    local::Checked,
};
use crate::{config::Config, control::client, keyring::SystemKeyring};

/// A port of this host that is not answered within this is not answered.
const PORT_LIMIT: Duration = Duration::from_secs(3);

/// A registry that has not greeted within this is taken for unreachable: name, connection, TLS.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(15);

const DOCKER_HUB: &str = "docker.io";

pub(super) fn node(data_dir: &Path) -> Result<Node, String> {
    let asked = client::ask(&[data_dir.to_owned()], &Method::GET, "/status");
    asked.map_err(|error| format!("{error:#}"))
}

/// The ports of the node, or those that it would listen on.
pub(super) async fn listeners(node: Option<&Node>, checked: Option<&Checked>) -> Vec<Listener> {
    let wanted: Vec<(String, SocketAddr)> = match (node, checked) {
        (Some(node), _) => node
            .listeners
            .iter()
            .flat_map(|(name, all)| all.iter().map(|address| (name.clone(), *address)))
            .collect(),
        (None, Some((raw, _))) => raw
            .listeners()
            .into_iter()
            .filter(|(_, address)| address.port() != 0)
            .map(|(name, address)| (name.to_owned(), address))
            .collect(),
        (None, None) => Vec::new(),
    };
    join_all(wanted.into_iter().map(async |(name, address)| {
        let connected = timeout(PORT_LIMIT, TcpStream::connect(reachable(address))).await;
        let answered = match connected {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("nothing came within {PORT_LIMIT:?}")),
        };
        Listener {
            name,
            address,
            answered,
        }
    }))
    .await
}

/// The configured registries and docker.io.
pub(super) async fn upstreams(
    config: &Config,
    now: &impl Fn() -> SystemTime,
) -> anyhow::Result<Vec<Upstream>> {
    let source = &config.proxy.source;
    let outside = Outside {
        keyring: Arc::new(SystemKeyring),
        ..Outside::default()
    };
    let metrics = SourceMetrics::register(&prometheus::Registry::new())?;
    let asked = Upstreams::with_outside(source.clone(), metrics, outside)?;
    let mut names: Vec<RegistryName> = source.registries.keys().cloned().collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    let hub: RegistryName = DOCKER_HUB.parse()?;
    if !names.contains(&hub) && asked.allowed(&hub) {
        names.push(hub);
    }
    let greeted = names.into_iter().map(async |registry| {
        let configured = source.registries.get(&registry);
        let login = configured.and_then(|configured| configured.docker_config.clone());
        let login_problem = match login {
            Some(path) => {
                let read = SystemKeyring.file(path.clone()).await;
                read.err()
                    .map(|error| format!("{}: {error}", path.display()))
            }
            None => None,
        };
        let answer = timeout(UPSTREAM_LIMIT, greet(&asked, &registry, now)).await;
        Upstream {
            is_configured: configured.is_some(),
            registry: registry.to_string(),
            answer: answer
                .unwrap_or_else(|_| Err(format!("nothing came within {UPSTREAM_LIMIT:?}"))),
            login_problem,
        }
    });
    Ok(join_all(greeted).await)
}

async fn greet(
    asked: &Upstreams,
    registry: &RegistryName,
    now: &impl Fn() -> SystemTime,
) -> Result<Greeting, String> {
    let request = PassRequest {
        registry: registry.clone(),
        method: Method::GET,
        path: "/v2/".to_owned(),
        query: String::new(),
        credential: None,
        headers: HeaderMap::new(),
        body: Empty::new().map_err(|never| match never {}).boxed(),
        caller_stall: UPSTREAM_LIMIT,
    };
    let answer = asked.pass(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let date = answer.headers.get(header::DATE);
    let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    Ok(Greeting {
        status: answer.status.as_u16(),
        has_challenge: answer.headers.contains_key(header::WWW_AUTHENTICATE),
        dates: date.map(|theirs| (theirs, now())),
    })
}
