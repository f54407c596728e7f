//! What schedulers hear of how busy this host is, in virtual time.

use std::{sync::Arc, time::Duration};

use protocol::{
    Scheduler, Up,
    scheduler::{Hello, SESSION_QUEUE, Session, SessionError},
};
use swarm::{
    bandwidth::Throttle,
    session::SchedulerAt,
    source::{self, SourceMetrics, Upstreams},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Stored, metrics, requests::asked_for_a_run};
use crate::host::swarm;

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

#[tokio::test(start_paused = true)]
async fn a_scheduler_hears_of_the_uploads_every_few_seconds() {
    let stored = Stored::new(1);
    let (mut connection, _) = asked_for_a_run().await;
    tokio::io::AsyncReadExt::read_u8(&mut connection.child)
        .await
        .unwrap();
    let (offer, sessions) = mpsc::channel(1);
    let scheduler = SchedulerAt {
        id: "scheduler".parse().unwrap(),
        scheduler: Arc::new(Listening {
            sessions: Mutex::new(sessions),
        }),
    };
    let source_metrics = SourceMetrics::register(&metrics().1).unwrap();
    let upstreams = Upstreams::new(source::Config::default(), source_metrics).unwrap();
    let swarm = swarm(
        &stored.store,
        upstreams,
        vec![scheduler],
        Throttle::default(),
    );
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
        if let Some(Up::Load { uploads, .. }) = message.expect("the host speaks in time") {
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
