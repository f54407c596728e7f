//! Puts the roles of this process together, and keeps their handlers for the listeners.
//!
//! The one place that knows which role is here and which is reached over the network.

use std::{sync::Arc, time::SystemTime};

use anyhow::Context as _;
use prometheus::Registry;
use protocol::{
    Host, HostId, Identity, Operator, Role, Scheduler,
    grpc::{AvailabilityClient, OperatorClient, SchedulerClient},
    scheduler::Hello,
};
use proxy::{Proxy, Registries};
use scheduler::{SchedulerDriver, SchedulerService};
use seed::Seed;
use swarm::{
    Parts, Swarm,
    bandwidth::{BandwidthMetrics, Throttle, Throttles},
    conductor,
    peer::{PeerMetrics, PeerServer, PeerServerConfig, PieceClient, PieceClientConfig},
    session::SchedulerAt,
    source::{Outside, SourceMetrics, Tunnels, Upstreams},
    store::{self, Store},
};

use crate::{
    ca::{Authorities, Leaves},
    config::Config,
    drain::Group,
    keyring::SystemKeyring,
    operators::Operators,
};

/// The roles of this process, built and not yet running.
pub(crate) struct Roles {
    pub(crate) identity: Identity,
    pub(crate) swarm: Swarm,
    pub(crate) upstreams: Upstreams,
    pub(crate) peer_server: PeerServer,
    pub(crate) proxy: Option<Arc<Proxy>>,
    pub(crate) scheduler: Option<Arc<SchedulerService>>,
    pub(crate) operators: Operators,
    scheduler_driver: Option<SchedulerDriver>,
    seed: Option<Seed>,
    hello: Hello,
}

// === impl Roles ===

impl Roles {
    /// Builds every role that `config` names. The store is opened, nothing is bound.
    pub(crate) async fn build(config: Config, registry: &Registry) -> anyhow::Result<Self> {
        let identity = config.identity.clone();
        let (scheduler, scheduler_driver) = match config.roles.contains(Role::Scheduler) {
            true => {
                let metrics = scheduler::Metrics::new(registry)?;
                let (service, driver) =
                    SchedulerService::new(&config.scheduler, view_of_seeds(&config), metrics);
                (Some(service), Some(driver))
            }
            false => (None, None),
        };
        let upstreams = upstreams(&config, registry)?;
        let peer_metrics = PeerMetrics::new(registry)?;
        let bandwidth = BandwidthMetrics::register(registry)?;
        let throttles = Throttles::new(config.swarm.rates, &bandwidth);
        let bounds = PieceClientConfig {
            throttle: throttles.fetch,
            ..PieceClientConfig::default()
        };
        let piece_client = PieceClient::new(&identity, bounds, peer_metrics.clone())?;
        let (swarm, orders) = Swarm::new(Parts {
            store: open_store(&config).await?,
            upstreams: upstreams.throttled(throttles.source),
            schedulers: schedulers(&config, &identity, scheduler.as_ref()),
            availability: Arc::new(AvailabilityClient::new(identity.clone())),
            identity: identity.clone(),
            pieces: piece_client,
            seeds: config.swarm.seeds.clone(),
            limits: limits(&config),
            prefetch: throttles.prefetch,
            metrics: swarm::metrics::Metrics::register(registry)?,
        });
        // Every host has what it is told to have; the role says who is asked to begin.
        let seed = Seed::new(
            config.seed.clone(),
            swarm.clone(),
            orders,
            seed::Metrics::register(registry)?,
        );
        let hello = Hello {
            host: Host {
                id: identity.id().clone(),
                address: config.swarm.advertise,
            },
            is_seed: config.roles.contains(Role::Seed),
            upload_slots: config.swarm.upload_slots,
            idc: config.swarm.idc.clone(),
            location: config.swarm.location.clone(),
        };
        let operators = operators(&config, &identity, scheduler.as_ref());
        let peer_server = peer_server(&config, &swarm, throttles.serve, peer_metrics);
        let proxy = match config.roles.contains(Role::Proxy) {
            true => Some(proxy(config, &swarm, upstreams.clone(), registry).await?),
            false => None,
        };
        Ok(Self {
            identity,
            swarm,
            upstreams,
            peer_server,
            proxy,
            scheduler,
            operators,
            scheduler_driver,
            seed: Some(seed),
            hello,
        })
    }

    /// Runs what has no listener of its own, as part of `services`.
    pub(crate) fn start(&mut self, services: &Group) {
        let Group { stop, tasks } = services;
        if let Some(driver) = self.scheduler_driver.take() {
            tasks.spawn(driver.run(stop.clone()));
        }
        if let Some(seed) = self.seed.take() {
            tasks.spawn(seed.run(stop.clone()));
        }
        let (swarm, hello, stop) = (self.swarm.clone(), self.hello.clone(), stop.clone());
        let server = self.peer_server.clone();
        tasks.spawn(async move { swarm.run(hello, server, stop).await });
    }
}

fn upstreams(config: &Config, registry: &Registry) -> anyhow::Result<Upstreams> {
    let outside = Outside {
        keyring: Arc::new(SystemKeyring),
        ..Outside::default()
    };
    let metrics = SourceMetrics::register(registry)?;
    let source = config.proxy.source.clone();
    for warning in &config.proxy.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(proxy) = &source.proxy {
        tracing::info!(?proxy, "upstreams are asked through a proxy");
    }
    Ok(Upstreams::with_outside(source, metrics, outside)?)
}

fn limits(config: &Config) -> conductor::Limits {
    conductor::Limits {
        piece_timeout: config.swarm.piece_timeout,
        ..conductor::Limits::default()
    }
}

fn peer_server(
    config: &Config,
    swarm: &Swarm,
    throttle: Throttle,
    metrics: PeerMetrics,
) -> PeerServer {
    let bounds = PeerServerConfig {
        upload_slots: config.swarm.upload_slots,
        throttle,
        ..PeerServerConfig::default()
    };
    PeerServer::new(Arc::new(swarm.clone()), bounds, metrics)
}

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let store = store::Config {
        dir: config.data_dir.join("store"),
        storage_quota: config.swarm.storage_quota,
        manifest_quota: config.swarm.manifest_quota,
        min_free: config.swarm.min_free,
    };
    let opened = tokio::task::spawn_blocking(move || Store::open(store, wall_clock())).await?;
    Ok(opened?)
}

/// Whom the ring of every scheduler goes over.
fn view_of_seeds(config: &Config) -> Vec<HostId> {
    config
        .swarm
        .seeds
        .iter()
        .map(|seed| seed.id.clone())
        .collect()
}

/// The schedulers that the configuration names, with no network between where one is in this
/// process; without names, the one in this process.
fn schedulers(
    config: &Config,
    identity: &Identity,
    local: Option<&Arc<SchedulerService>>,
) -> Vec<SchedulerAt> {
    let own = local.map(|service| {
        let scheduler: Arc<dyn Scheduler> = service.clone();
        SchedulerAt {
            id: identity.id().clone(),
            scheduler,
        }
    });
    let named = &config.swarm.schedulers;
    if named.is_empty() {
        return own.into_iter().collect();
    }
    let reach = |host: &Host| match &own {
        Some(own) if own.id == host.id => own.clone(),
        Some(_) | None => SchedulerAt {
            id: host.id.clone(),
            scheduler: Arc::new(SchedulerClient::new(identity.clone(), host.clone())),
        },
    };
    named.iter().map(reach).collect()
}

/// The same schedulers, as they are asked by an operator.
fn operators(
    config: &Config,
    identity: &Identity,
    local: Option<&Arc<SchedulerService>>,
) -> Operators {
    if let Some(service) = local {
        let operator: Arc<dyn Operator> = service.clone();
        return Operators {
            by_scheduler: [(identity.id().clone(), operator.clone())].into(),
            local: Some(operator),
        };
    }
    let remote = |host: &Host| {
        let client = OperatorClient::new(identity.clone(), host.clone());
        (host.id.clone(), Arc::new(client) as Arc<dyn Operator>)
    };
    Operators {
        by_scheduler: config.swarm.schedulers.iter().map(remote).collect(),
        local: None,
    }
}

async fn proxy(
    config: Config,
    swarm: &Swarm,
    upstreams: Upstreams,
    registry: &Registry,
) -> anyhow::Result<Arc<Proxy>> {
    let authorities = Authorities::new(&config.data_dir);
    let parts = proxy::Parts {
        tunnels: Tunnels::new(&config.proxy.source, config.own_ports),
        certificates: Arc::new(Leaves::new(authorities, wall_clock)),
        config: config.proxy,
        engine: Arc::new(swarm.clone()),
        upstream: Arc::new(Registries {
            upstreams,
            swarm: swarm.clone(),
        }),
        metrics: proxy::Metrics::new(registry)?,
        clock: wall_clock,
    };
    let proxy = Proxy::new(parts)
        .await
        .context("the answers for tags cannot be kept")?;
    Ok(Arc::new(proxy))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the composition root hands the clock out"
)]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}
