//! What every adapter of the operator's side of a scheduler holds to.

use std::sync::Arc;

use protocol::{
    ContentKind, Digest, Host, Operator, Origin, Role, TaskId, grpc,
    operator::{
        Child, Explanation, HostStatus, Judged, LISTED_MAX, PROGRESS_QUEUE, PeerStatus,
        PreheatFailure, PreheatOrder, PreheatProgress, PreheatState, Question, Scope, ScorePart,
        Snapshot, TASKS_PER_ORDER_MAX, TaskProgress, TaskStatus, Verdict,
    },
    scheduler::{Failure, SessionError},
};
use tokio::sync::mpsc;

use crate::{
    harness::{
        ScriptedScheduler, Server, Unheard, authority, id, identity, serve_services, task, within,
    },
    raw::{self, field, frame},
};

/// An order as it came, and where its progress goes.
type Taken = (PreheatOrder, mpsc::Sender<PreheatProgress>);

/// Answers as a function of what it is asked, and hands orders to the test.
#[derive(Debug)]
pub(crate) struct ScriptedOperator(pub(crate) mpsc::Sender<Taken>);

struct UnderTest {
    operator: Arc<dyn Operator>,
    orders: mpsc::Receiver<Taken>,
    server: Option<Server>,
}

#[async_trait::async_trait]
impl Operator for ScriptedOperator {
    /// Refuses an empty order, so that a refusal can be told from a broken connection.
    async fn preheat(
        &self,
        order: PreheatOrder,
    ) -> Result<mpsc::Receiver<PreheatProgress>, SessionError> {
        if order.tasks.is_empty() {
            return Err(SessionError::Refused("nothing to do".to_owned()));
        }
        let (sender, progress) = mpsc::channel(PROGRESS_QUEUE);
        let gone = |_| SessionError::Unreachable("gone".to_owned());
        self.0.send((order, sender)).await.map_err(gone)?;
        Ok(progress)
    }

    async fn snapshot(&self, listed_max: usize) -> Result<Snapshot, SessionError> {
        Ok(snapshot(listed_max))
    }

    async fn explain(&self, question: Question) -> Result<Vec<Explanation>, SessionError> {
        match &question.child {
            Child::Host(host) => Ok(vec![explanation(host.as_str(), question.listed_max)]),
            Child::EveryRunning => Ok(vec![explanation("a", 2), explanation("b", 1)]),
        }
    }
}

/// Runs `check` against each adapter.
async fn each_operator(check: impl AsyncFn(UnderTest)) {
    let (sender, orders) = mpsc::channel(1);
    let operator = Arc::new(ScriptedOperator(sender));
    within(check(UnderTest {
        operator,
        orders,
        server: None,
    }))
    .await;
    within(check(remote().await)).await;
}

async fn remote() -> UnderTest {
    let authority = authority();
    let (sender, orders) = mpsc::channel(1);
    let (sessions, _) = mpsc::channel(1);
    let services = grpc::SchedulerServices {
        scheduler: Arc::new(ScriptedScheduler(sessions)),
        operator: Arc::new(ScriptedOperator(sender)),
        refusals: Arc::new(Unheard),
    };
    let scheduler = identity(&authority, "scheduler-1", &[Role::Scheduler]);
    let server = serve_services(scheduler, services).await;
    let host = Host {
        id: id("scheduler-1"),
        address: server.address,
    };
    let node = identity(&authority, "node-1", &[Role::Proxy]);
    UnderTest {
        operator: Arc::new(grpc::OperatorClient::new(node, host)),
        orders,
        server: Some(server),
    }
}

fn order(count: u32, scope: Scope) -> PreheatOrder {
    let origin = |kind| Origin {
        registry: "r.example:5000".parse().unwrap(),
        repository: "library/alpine".parse().unwrap(),
        kind,
    };
    let kinds = [ContentKind::Blob, ContentKind::Manifest];
    let tasks = (0..count).map(|n| (task(n), origin(kinds[n as usize % 2])));
    PreheatOrder {
        tasks: tasks.collect(),
        scope,
    }
}

fn progress(held: u32) -> PreheatProgress {
    let failures = [
        PreheatFailure::NoHost,
        PreheatFailure::Stuck,
        PreheatFailure::Source(Failure::Refused),
        PreheatFailure::Source(Failure::Corrupt),
    ];
    let states = [PreheatState::Running, PreheatState::Done]
        .into_iter()
        .chain(failures.map(PreheatState::Failed));
    let tasks = states.enumerate().map(|(number, state)| TaskProgress {
        task: TaskId(Digest::Sha512([number as u8; 64])),
        wanted: u32::MAX,
        held,
        pieces: u64::MAX,
        total: (number != 0).then_some(9),
        state,
    });
    PreheatProgress {
        tasks: tasks.collect(),
    }
}

fn snapshot(listed: usize) -> Snapshot {
    let peer = |number: usize| PeerStatus {
        host: id("node-1"),
        state: "at-source".to_owned(),
        pieces: number as u32,
        parents: vec![id("a"); number % 5],
        siblings: vec![id("b"); number % 4],
    };
    let task = |number: usize| TaskStatus {
        task: task(number as u32),
        phase: "fetching".to_owned(),
        source: (number != 0).then(|| id("seed-1")),
        pieces: (number != 1).then_some(7),
        peers: vec![peer(number)],
    };
    let host = |number: usize| HostStatus {
        host: "node-1@[2001:db8::1]:65002".parse().unwrap(),
        is_live: number != 0,
        is_seed: number != 1,
        upload_slots: u32::MAX,
        children: 3,
        tasks: u64::MAX,
    };
    Snapshot {
        host_count: 70_000,
        task_count: 80_000,
        peer_count: usize::MAX,
        hosts: (0..listed).map(host).collect(),
        tasks: (0..listed).map(task).collect(),
    }
}

fn explanation(child: &str, listed: usize) -> Explanation {
    let part = |name: &str, value| ScorePart {
        name: name.to_owned(),
        weight: 0.25,
        value,
    };
    let judged = |number: usize| Judged {
        candidate: id("node-2"),
        is_parent: number == 0,
        verdict: match number % 2 {
            0 => Verdict::Scored(vec![part("pieces", 0.5), part("seed", 1.0)]),
            _ => Verdict::Refused("no-free-slot".to_owned()),
        },
    };
    Explanation {
        child: id(child),
        state: (child == "a").then(|| "fed".to_owned()),
        candidates: (0..listed).map(judged).collect(),
    }
}

#[tokio::test]
async fn an_order_arrives_unchanged_and_so_does_each_word_of_its_progress() {
    each_operator(async |mut under_test| {
        for scope in [Scope::Seeds, Scope::AllHosts] {
            let order = order(TASKS_PER_ORDER_MAX as u32, scope);
            let mut followed = under_test.operator.preheat(order.clone()).await.unwrap();
            let (taken, told) = under_test.orders.recv().await.unwrap();
            assert_eq!(taken, order);
            for held in 0..3 {
                told.send(progress(held)).await.unwrap();
                assert_eq!(followed.recv().await, Some(progress(held)));
            }
            told.send(PreheatProgress::default()).await.unwrap();
            drop(told);
            assert_eq!(followed.recv().await, Some(PreheatProgress::default()));
            assert_eq!(followed.recv().await, None);
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_follows_no_more_ends_the_preheat() {
    each_operator(async |mut under_test| {
        let followed = under_test.operator.preheat(order(1, Scope::Seeds)).await;
        let (_, told) = under_test.orders.recv().await.unwrap();
        drop(followed);
        told.closed().await;
    })
    .await;
}

#[tokio::test]
async fn an_order_can_be_refused_with_a_reason() {
    each_operator(async |under_test| {
        let refused = under_test.operator.preheat(order(0, Scope::Seeds)).await;
        let expect = SessionError::Refused("nothing to do".to_owned());
        assert_eq!(refused.unwrap_err(), expect);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_arrives_whole() {
    each_operator(async |under_test| {
        for listed_max in [0, 3, LISTED_MAX] {
            let told = under_test.operator.snapshot(listed_max).await.unwrap();
            assert_eq!(told, snapshot(listed_max));
        }
    })
    .await;
}

#[tokio::test]
async fn an_explanation_is_of_one_child_or_of_all() {
    each_operator(async |under_test| {
        let question = |child, listed_max| Question {
            task: task(1),
            child,
            listed_max,
        };
        let one = question(Child::Host(id("node-3")), LISTED_MAX);
        let told = under_test.operator.explain(one).await.unwrap();
        assert_eq!(told, [explanation("node-3", LISTED_MAX)]);
        let every = question(Child::EveryRunning, 9);
        let told = under_test.operator.explain(every).await.unwrap();
        assert_eq!(told, [explanation("a", 2), explanation("b", 1)]);
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_a_preheat_after_its_last_word() {
    within(async {
        let mut under_test = remote().await;
        let preheat = under_test.operator.preheat(order(1, Scope::AllHosts)).await;
        let mut followed = preheat.unwrap();
        let (_, told) = under_test.orders.recv().await.unwrap();
        told.send(progress(1)).await.unwrap();
        under_test.server.as_ref().unwrap().drain.cancel();
        assert_eq!(followed.recv().await, Some(progress(1)));
        assert_eq!(followed.recv().await, None);
        told.closed().await;
    })
    .await;
}

/// Posts `body` to a scheduler and expects it to be refused.
async fn check(call: &str, body: Vec<u8>, code: u32, message: &str) {
    let authority = authority();
    let (sender, _orders) = mpsc::channel(1);
    let (sessions, _) = mpsc::channel(1);
    let services = grpc::SchedulerServices {
        scheduler: Arc::new(ScriptedScheduler(sessions)),
        operator: Arc::new(ScriptedOperator(sender)),
        refusals: Arc::new(Unheard),
    };
    let scheduler = identity(&authority, "scheduler-1", &[Role::Scheduler]);
    let server = serve_services(scheduler, services).await;
    let node = identity(&authority, "node-1", &[Role::Proxy]);
    let target = ("scheduler-1", server.address);
    let path = format!("/darter.v1.Operator/{call}");
    let sent = raw::post(&node, target, &path, body);
    let (seen, told) = within(sent).await.unwrap();
    assert_eq!(seen, code, "{told}");
    assert!(told.contains(message), "{told}");
}

#[tokio::test]
async fn what_no_operator_may_say_is_refused() {
    const INVALID_ARGUMENT: u32 = 3;
    const FAILED_PRECONDITION: u32 = 9;
    let version = |number| vec![1 << 3, number];
    let versions = "speaks version 9 of the protocol, this one version 1";
    for call in ["Preheat", "Snapshot", "Explain"] {
        check(call, frame(&version(9)), FAILED_PRECONDITION, versions).await;
    }
    let no_scope = frame(&version(1));
    check("Preheat", no_scope, INVALID_ARGUMENT, "no known scope").await;
    let task_of_31_bytes = [version(1), field(2, &field(1, &[7; 31]))].concat();
    let lengths = "a task is 32 or 64 bytes long";
    check(
        "Preheat",
        frame(&task_of_31_bytes),
        INVALID_ARGUMENT,
        lengths,
    )
    .await;
    check("Explain", frame(&task_of_31_bytes), INVALID_ARGUMENT, "").await;
    let one_task = field(2, &field(1, &[7; 32]));
    let one_task_of_nowhere = [version(1), one_task.clone()].concat();
    check(
        "Preheat",
        frame(&one_task_of_nowhere),
        INVALID_ARGUMENT,
        "an origin is missing",
    )
    .await;
    let too_many = [version(1), one_task.repeat(TASKS_PER_ORDER_MAX + 1)].concat();
    check(
        "Preheat",
        frame(&too_many),
        INVALID_ARGUMENT,
        "lists too much",
    )
    .await;
}
