//! A node: the roles of one process, put together, run until told to stop, and taken down.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use prometheus::Registry;
use protocol::Identity;
use proxy::Proxy;
use sd_notify::NotifyState;
use swarm::{peer::PeerServer, source::Upstreams};
use tokio::sync::watch;

use crate::{
    accept::{AcceptContext, ListenerName},
    admin::{Admin, AdminHandler, Phase},
    config::Config,
    control,
    data_dir::DataDir,
    descriptors,
    drain::{Drained, Group, Groups, StopSignals},
    expiry,
    handlers::{PeerHandler, ProxyHandler, RedirectedHandler, SchedulerHandler},
    listen::{self, Bound},
    metrics::Metrics,
    preheat::Preheater,
    reload,
    roles::Roles,
    status::Overview,
};

/// Where a running node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) name: ListenerName,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// Where the roles listen.
struct Listen {
    proxy: SocketAddr,
    also_proxy: Vec<SocketAddr>,
    transparent: Option<SocketAddr>,
    swarm: SocketAddr,
    scheduler: SocketAddr,
}

/// A node whose sockets are bound and whose roles run.
struct Node {
    context: AcceptContext,
    phase: watch::Sender<Phase>,
    endpoints: Vec<Endpoint>,
    data_dir: DataDir,
    /// By it other hosts are fed.
    peer_server: PeerServer,
    identity: Identity,
    upstreams: Upstreams,
    proxy: Option<Arc<Proxy>>,
}

/// Runs a node until it is told to stop. `announce` is called once it answers. With a `source` the
/// configuration can be reloaded.
pub(crate) async fn run(
    config: Config,
    source: Option<reload::Source>,
    announce: impl FnOnce(&[Endpoint]),
) -> anyhow::Result<()> {
    let mut signals = StopSignals::install()?;
    let deadline = config.drain_timeout;
    let node = Node::start(config).await?;
    let reloader = source.map(|source| reload::Reloader {
        source,
        identity: node.identity.clone(),
        upstreams: node.upstreams.clone(),
        proxy: node.proxy.clone(),
        metrics: node.context.metrics.clone(),
    });
    let mut reloading = reloader.map(reload::Reloading::install).transpose()?;
    // Whoever reads the announcement may ask at once.
    node.phase.send_replace(Phase::Ready);
    announce(&node.endpoints);
    notify(&[NotifyState::Ready]);
    tokio::select! {
        () = signals.next() => {}
        () = reload::whenever_asked(&mut reloading) => {}
        () = expiry::watch(&node.identity, &node.context.metrics) => {}
    }
    node.phase.send_replace(Phase::Draining);
    notify(&[NotifyState::Stopping]);
    tracing::info!(
        ?deadline,
        "draining: no new connections, running bodies may end"
    );
    let drained = signals
        .drain(&node.context.groups, node.peer_server.finish(), deadline)
        .await;
    match drained {
        Drained::Whole => tracing::info!("everything that ran has ended"),
        Drained::Cut => tracing::warn!("what still ran was cut"),
    }
    Ok(())
}

// === impl Listen ===

impl Listen {
    fn of(config: &Config) -> Self {
        Self {
            proxy: config.proxy.listen,
            also_proxy: config.proxy.also_listen.clone(),
            transparent: config.proxy.transparent_listen,
            swarm: config.swarm.listen,
            scheduler: config.scheduler.listen,
        }
    }
}

// === impl Node ===

impl Node {
    async fn start(config: Config) -> anyhow::Result<Self> {
        let data_dir = DataDir::open(&config.data_dir)?;
        let registry = Registry::new();
        let metrics =
            Metrics::new(&registry).context("the metrics of the process cannot be registered")?;
        let (phase, phase_seen) = watch::channel(Phase::Starting);
        let context = AcceptContext {
            groups: Groups::default(),
            connections_max: descriptors::connections(config.connections_max),
            metrics,
        };
        let admin = listen::bind_both_families("admin.listen", config.admin_listen)?;

        let listen = Listen::of(&config);
        let named: Vec<String> = config
            .roles
            .iter()
            .map(|role| role.as_str().to_owned())
            .collect();
        let mut roles = Roles::build(config, &registry).await?;
        let mut node = Self {
            context,
            phase,
            endpoints: Vec::new(),
            data_dir,
            peer_server: roles.peer_server.clone(),
            identity: roles.identity.clone(),
            upstreams: roles.upstreams.clone(),
            proxy: roles.proxy.clone(),
        };
        expiry::look(&node.identity, &node.context.metrics);
        node.bind_roles(&listen, &roles)?;
        roles.start(&node.context.groups.services);

        let handler = AdminHandler(Admin::new(registry.clone(), phase_seen.clone()));
        node.accept(ListenerName::Admin, admin, Arc::new(handler))?;
        let preheater = Preheater {
            proxy: roles.proxy.clone(),
            swarm: roles.swarm.clone(),
            operators: roles.operators.clone(),
        };
        node.start_control(named, registry, (phase_seen, preheater))?;
        Ok(node)
    }

    /// Binds what the roles listen on. Hosts of the cluster are known by their certificates alone.
    fn bind_roles(&mut self, listen: &Listen, roles: &Roles) -> anyhow::Result<()> {
        if let Some(proxy) = &roles.proxy {
            let mut bound = listen::bind_both_families("proxy.listen", listen.proxy)?;
            for address in &listen.also_proxy {
                let also = listen::bind_ahead("proxy.also_listen", *address)?;
                bound.listeners.extend(also.listeners);
            }
            self.accept(
                ListenerName::Proxy,
                bound,
                Arc::new(ProxyHandler(Arc::clone(proxy))),
            )?;
            if let Some(address) = listen.transparent {
                let bound = listen::bind_both_families("proxy.transparent_listen", address)?;
                let handler = Arc::new(RedirectedHandler(Arc::clone(proxy)));
                self.accept(ListenerName::Transparent, bound, handler)?;
            }
        }
        let bound = listen::bind("swarm.listen", listen.swarm)?;
        let handler = PeerHandler::new(
            &roles.identity,
            roles.peer_server.clone(),
            self.context.metrics.refused_at(ListenerName::Swarm),
        )?;
        self.accept(ListenerName::Swarm, bound, Arc::new(handler))?;
        if let Some(scheduler) = &roles.scheduler {
            let bound = listen::bind("scheduler.listen", listen.scheduler)?;
            let handler = SchedulerHandler::new(
                &roles.identity,
                Arc::clone(scheduler),
                self.context.metrics.refused_at(ListenerName::Scheduler),
            )?;
            self.accept(ListenerName::Scheduler, bound, Arc::new(handler))?;
        }
        Ok(())
    }

    fn accept(
        &mut self,
        name: ListenerName,
        bound: Bound,
        handler: Arc<dyn crate::accept::Handler>,
    ) -> anyhow::Result<()> {
        let addresses: Result<Vec<_>, _> = bound
            .listeners
            .iter()
            .map(tokio::net::TcpListener::local_addr)
            .collect();
        self.endpoints.push(Endpoint {
            name,
            addresses: addresses?,
        });
        self.context.accept(name, bound.listeners, handler);
        Ok(())
    }

    fn start_control(
        &self,
        roles: Vec<String>,
        registry: Registry,
        (phase, preheater): (watch::Receiver<Phase>, Preheater),
    ) -> anyhow::Result<()> {
        let overview = Overview {
            roles,
            endpoints: self.endpoints.clone(),
            registry,
            phase,
            swarm: preheater.swarm.clone(),
            operators: preheater.operators.clone(),
        };
        let socket = DataDir::socket_in(self.data_dir.path());
        let server = control::Server::bind(&socket, overview, preheater)?;
        let Group { stop, tasks } = &self.context.groups.answers;
        tasks.spawn(server.run(stop.clone(), tasks.clone()));
        Ok(())
    }
}

/// Tells systemd, where it asked to be told.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
