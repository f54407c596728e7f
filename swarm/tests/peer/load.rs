//! What schedulers hear of how busy this host is, in virtual time.

use std::{sync::Arc, time::Duration};

use protocol::{
    Host, Scheduler, Up,
    availability::{Availability, Subscription},
    scheduler::{Hello, SESSION_QUEUE, Session, SessionError},
};
use swarm::{
    Parts, Swarm, conductor,
    session::SchedulerAt,
    source::{self, SourceMetrics, Upstreams},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Stored, authority, client, identity, requests::asked_for_a_run};

const A_FEW_SECONDS: Duration = Duration::from_secs(5);

/// A scheduler that lets the test hear what one host says.
#[derive(Debug)]
struct Listening {
    sessions: Mutex<mpsc::Receiver<Session>>,
}

#[async_trait::async_trait]
impl Scheduler for Listening {
    async fn open(&self, _: Hello) -> Result<Session, SessionError> {
        let session = self.sessions.lock().await.recv().await;
        session.ok_or_else(|| SessionError::Unreachable("the test is over".to_owned()))
    }
}

/// Nobody is followed here.
#[derive(Debug)]
struct NobodyThere;

#[async_trait::async_trait]
impl Availability for NobodyThere {
    async fn open(&self, _: &Host) -> Result<Subscription, SessionError> {
        Err(SessionError::Unreachable("nobody is there".to_owned()))
    }
}

fn swarm(stored: &Stored, sessions: mpsc::Receiver<Session>) -> Swarm {
    let authority = authority();
    let (pieces, registry) = client(&authority);
    let metrics = SourceMetrics::register(&registry).expect("a fresh registry");
    let scheduler = Listening {
        sessions: Mutex::new(sessions),
    };
    let (swarm, _) = Swarm::new(Parts {
        store: stored.store.clone(),
        upstreams: Upstreams::new(source::Config::default(), metrics).expect("TLS for a client"),
        identity: identity(&authority, "host"),
        schedulers: vec![SchedulerAt {
            id: "scheduler".parse().expect("a host id"),
            scheduler: Arc::new(scheduler),
        }],
        availability: Arc::new(NobodyThere),
        pieces,
        seeds: Vec::new(),
        limits: conductor::Limits::default(),
        metrics: swarm::metrics::Metrics::register(&registry).expect("a fresh registry"),
    });
    swarm
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_hears_of_the_uploads_every_few_seconds() {
    let stored = Stored::new(1);
    let (mut connection, _) = asked_for_a_run().await;
    tokio::io::AsyncReadExt::read_u8(&mut connection.child)
        .await
        .unwrap();
    let (offer, sessions) = mpsc::channel(1);
    let swarm = swarm(&stored, sessions);
    let hello = Hello {
        host: "host@127.0.0.1:1".parse().unwrap(),
        is_seed: false,
        upload_slots: 64,
        idc: None,
        location: None,
    };
    let (mut running, shutdown) = (JoinSet::new(), CancellationToken::new());
    let (server, token) = (connection.server.clone(), shutdown.clone());
    running.spawn(async move { swarm.run(hello, server, token).await });

    let (up, mut heard) = mpsc::channel(SESSION_QUEUE);
    let (_tell, down) = mpsc::channel(1);
    offer.send(Session { up, down }).await.unwrap();
    let mut next_load = async || loop {
        let message = timeout(A_FEW_SECONDS, heard.recv()).await;
        if let Some(Up::Load { uploads }) = message.expect("the host speaks in time") {
            return uploads;
        }
    };
    assert_eq!(next_load().await, 1);
    assert_eq!(next_load().await, 1);
    // The child leaves, and gives the slot back.
    drop(connection.child);
    connection.serving.join_next().await;
    assert_eq!(next_load().await, 0);

    shutdown.cancel();
    running.join_next().await.unwrap().unwrap();
}
