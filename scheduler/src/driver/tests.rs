//! The driver over local sessions. No case waits for the clock.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use protocol::{
    ContentKind, Digest, Down, Host, Operator, Origin, Scheduler, TaskId, Up,
    operator::{Child, PreheatOrder, PreheatProgress, PreheatState, Question, Scope},
    scheduler::{Hello, Outcome, SESSION_QUEUE, Session, SessionError},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{OUTBOX, SchedulerService};
use crate::{Metrics, config::RawConfig};

struct Running {
    service: Arc<SchedulerService>,
    shutdown: CancellationToken,
    driver: JoinSet<()>,
}

fn run(hosts_max: u32) -> Running {
    let mut config = RawConfig::default().check().unwrap();
    config.settle = Duration::ZERO;
    config.hosts_max = NonZeroU32::new(hosts_max).unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let (service, driver) = SchedulerService::new(&config, Vec::new(), metrics);
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(shutdown.clone()));
    Running {
        service,
        shutdown,
        driver: tasks,
    }
}

impl Running {
    async fn open(&self, name: &str) -> Session {
        self.service.open(hello(name)).await.unwrap()
    }
}

fn hello(name: &str) -> Hello {
    let host = Host {
        id: name.parse().unwrap(),
        address: "127.0.0.1:1".parse().unwrap(),
    };
    Hello {
        host,
        is_seed: name.starts_with('s'),
        upload_slots: 8,
        idc: None,
        location: None,
    }
}

fn task(number: u32) -> TaskId {
    TaskId(Digest::sha256_of(&number.to_le_bytes()))
}

fn origin() -> Origin {
    Origin {
        registry: "r.example".parse().unwrap(),
        repository: "a".parse().unwrap(),
        kind: ContentKind::Blob,
    }
}

fn register(task: TaskId) -> Up {
    let origin = origin();
    Up::Register {
        task,
        origin,
        wants: Vec::new(),
    }
}

fn order(tasks: &[u32]) -> PreheatOrder {
    PreheatOrder {
        tasks: tasks
            .iter()
            .map(|number| (task(*number), origin()))
            .collect(),
        scope: Scope::Seeds,
    }
}

fn is_done(progress: &PreheatProgress) -> bool {
    let mut states = progress.tasks.iter().map(|task| task.state);
    states.all(|state| state == PreheatState::Done)
}

#[track_caller]
fn parents(down: Option<Down>) -> Vec<String> {
    match down {
        Some(Down::Parents { parents, .. }) => {
            parents.iter().map(|one| one.host.id.to_string()).collect()
        }
        other => panic!("no parents: {other:?}"),
    }
}

#[tokio::test]
async fn a_cold_task_goes_through_the_seed() {
    let running = run(9);
    let mut seed = running.open("s").await;
    let mut host = running.open("a").await;
    host.up.send(register(task(1))).await.unwrap();
    assert!(matches!(seed.down.recv().await, Some(Down::Warm { .. })));
    assert!(matches!(host.down.recv().await, Some(Down::Wait { .. })));
    seed.up.send(register(task(1))).await.unwrap();
    assert!(matches!(
        seed.down.recv().await,
        Some(Down::BackToSource { .. })
    ));
    assert_eq!(parents(host.down.recv().await), ["s"]);
    let snapshot = running.service.snapshot(9).await.unwrap();
    assert_eq!(
        (
            snapshot.host_count,
            snapshot.task_count,
            snapshot.peer_count
        ),
        (2, 1, 2)
    );
    let explained = running
        .service
        .explain(Question {
            task: task(1),
            child: Child::EveryRunning,
            listed_max: 9,
        })
        .await
        .unwrap();
    let children: Vec<_> = explained.iter().map(|one| one.child.as_str()).collect();
    assert_eq!(children, ["s", "a"]);
    assert_eq!(explained[1].candidates.len(), 2);
    assert!(explained[1].candidates[0].is_parent, "{explained:?}");
}

#[tokio::test]
async fn a_session_that_ends_hands_the_grant_on() {
    let running = run(9);
    let mut first = running.open("a").await;
    let mut second = running.open("b").await;
    first.up.send(register(task(1))).await.unwrap();
    assert!(matches!(
        first.down.recv().await,
        Some(Down::BackToSource { .. })
    ));
    second.up.send(register(task(1))).await.unwrap();
    assert_eq!(parents(second.down.recv().await), ["a"]);
    drop(first);
    assert!(matches!(
        second.down.recv().await,
        Some(Down::BackToSource { .. })
    ));
}

#[tokio::test]
async fn what_a_host_said_last_is_heard_before_it_left() {
    let running = run(9);
    let first = running.open("a").await;
    let mut second = running.open("b").await;
    first
        .up
        .send(Up::Held {
            tasks: vec![task(1)],
        })
        .await
        .unwrap();
    first
        .up
        .send(Up::Finished {
            task: task(1),
            outcome: Outcome::Left,
        })
        .await
        .unwrap();
    drop(first);
    second.up.send(register(task(1))).await.unwrap();
    let _ = second.down.recv().await;
    loop {
        let snapshot = running.service.snapshot(9).await.unwrap();
        if snapshot.host_count == 1 {
            assert_eq!(snapshot.peer_count, 1);
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_second_session_replaces_the_first() {
    let running = run(9);
    let mut first = running.open("a").await;
    let mut second = running.open("a").await;
    assert_eq!(first.down.recv().await, None);
    first.up.closed().await;
    second.up.send(register(task(1))).await.unwrap();
    assert!(matches!(
        second.down.recv().await,
        Some(Down::BackToSource { .. })
    ));
    assert_eq!(running.service.snapshot(9).await.unwrap().host_count, 1);
}

#[tokio::test]
async fn one_host_too_many_is_refused() {
    let running = run(1);
    let _first = running.open("a").await;
    let second = running.service.open(hello("b")).await;
    assert!(
        matches!(second, Err(SessionError::Refused(_))),
        "{second:?}"
    );
}

#[tokio::test]
async fn a_host_that_reads_nothing_is_disconnected() {
    let running = run(9);
    let deaf = running.open("a").await;
    let told_max = OUTBOX + SESSION_QUEUE + 2;
    for number in 0..=told_max {
        // Once it is disconnected its messages go nowhere.
        let _ = deaf.up.send(register(task(number as u32))).await;
    }
    deaf.up.closed().await;
    let snapshot = running.service.snapshot(1).await.unwrap();
    assert_eq!((snapshot.host_count, snapshot.peer_count), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_nothing_is_disconnected_and_one_that_speaks_is_not() {
    let running = run(9);
    let mut mute = running.open("a").await;
    let speaks = running.open("b").await;
    let speak = async {
        for _ in 0..20 {
            let (uploads, upload_rate) = (0, 0);
            let load = Up::Load {
                uploads,
                upload_rate,
            };
            speaks.up.send(load).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    };
    tokio::select! {
        told = mute.down.recv() => assert_eq!(told, None),
        () = speak => panic!("it is still connected"),
    }
    let snapshot = running.service.snapshot(9).await.unwrap();
    assert_eq!(snapshot.host_count, 1);
    assert_eq!(snapshot.hosts[0].host.id.as_str(), "b");
}

#[tokio::test]
async fn shutdown_closes_every_session() {
    let mut running = run(9);
    let mut host = running.open("a").await;
    running.shutdown.cancel();
    assert!(running.driver.join_next().await.unwrap().is_ok());
    assert_eq!(host.down.recv().await, None);
    let refused = running.service.open(hello("b")).await;
    assert!(
        matches!(refused, Err(SessionError::Unreachable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_preheat_is_followed_to_its_end() {
    let running = run(9);
    let mut seed = running.open("s").await;
    let mut followed = running.service.preheat(order(&[1, 2])).await.unwrap();
    assert!(!is_done(&followed.recv().await.unwrap()));
    for _ in 0..2 {
        let Some(Down::Warm { task, .. }) = seed.down.recv().await else {
            panic!("no order to warm");
        };
        let held = Up::Held { tasks: vec![task] };
        seed.up.send(held).await.unwrap();
    }
    let mut last = None;
    while let Some(progress) = followed.recv().await {
        last = Some(progress);
    }
    assert!(is_done(&last.unwrap()));
    let mut again = running.service.preheat(order(&[1, 2])).await.unwrap();
    assert!(is_done(&again.recv().await.unwrap()));
    assert_eq!(again.recv().await, None);
}

#[tokio::test]
async fn a_preheat_that_nobody_follows_makes_room_for_another() {
    let running = run(9);
    let mut seed = running.open("s").await;
    for number in 0..20 {
        // More than may be open at once: the ones before are forgotten.
        let followed = running.service.preheat(order(&[number])).await;
        drop(followed.unwrap());
        assert!(matches!(seed.down.recv().await, Some(Down::Warm { .. })));
        seed.up
            .send(Up::Load {
                uploads: 0,
                upload_rate: 0,
            })
            .await
            .unwrap();
    }
}
