//! The whole engine of one host, with nobody around it but whom the test names.

use std::sync::Arc;

use protocol::{
    Host,
    availability::{Availability, Subscription},
    scheduler::SessionError,
};
use swarm::{
    Parts, Swarm, bandwidth::Throttle, conductor, session::SchedulerAt, source::Upstreams,
    store::Store,
};

use crate::peer::{authority, client, identity};

/// Nobody is followed here.
#[derive(Debug)]
struct NobodyThere;

#[async_trait::async_trait]
impl Availability for NobodyThere {
    async fn open(&self, _: &Host) -> Result<Subscription, SessionError> {
        Err(SessionError::Unreachable("nobody is there".to_owned()))
    }
}

pub(crate) fn swarm(
    store: &Store,
    upstreams: Upstreams,
    schedulers: Vec<SchedulerAt>,
    prefetch: Throttle,
) -> Swarm {
    let authority = authority();
    let (pieces, registry) = client(&authority);
    let (swarm, _) = Swarm::new(Parts {
        store: store.clone(),
        upstreams,
        identity: identity(&authority, "host"),
        schedulers,
        availability: Arc::new(NobodyThere),
        pieces,
        seeds: Vec::new(),
        limits: conductor::Limits::default(),
        prefetch,
        metrics: swarm::metrics::Metrics::register(&registry).expect("a fresh registry"),
    });
    swarm
}
