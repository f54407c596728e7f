//! The hub against parents played by the test, in virtual time.

use protocol::{
    AttemptId, Digest, Layout, PieceSet,
    availability::{Ask, Subscriber, Subscription},
    scheduler::SessionError,
};

use super::*;

/// Opens streams whose other half the test holds.
#[derive(Debug)]
struct Parents {
    opened: mpsc::Sender<Subscriber>,
}

#[async_trait::async_trait]
impl Availability for Parents {
    async fn open(&self, parent: &Host) -> Result<Subscription, SessionError> {
        if parent.id.as_str() == "dead" {
            return Err(SessionError::Unreachable("it is dead".to_owned()));
        }
        let (child_half, subscriber) = Subscription::pair(parent.id.clone());
        self.opened
            .send(subscriber)
            .await
            .expect("the test holds the receiver");
        Ok(child_half)
    }
}

fn hub(config: HubConfig) -> (Hub, mpsc::Receiver<Subscriber>) {
    let (opened, streams) = mpsc::channel(8);
    (Hub::new(Arc::new(Parents { opened }), config), streams)
}

fn host(id: &str) -> Host {
    format!("{id}@127.0.0.1:1").parse().unwrap()
}

fn task(name: &str) -> TaskId {
    TaskId(Digest::sha256_of(name.as_bytes()))
}

fn begins(task: TaskId) -> Tell {
    let layout = Layout::for_size(Some(1));
    Tell::Begins {
        task,
        attempt: AttemptId(1),
        layout,
        media_type: None,
    }
}

fn holds(task: TaskId) -> Tell {
    Tell::Holds {
        task,
        attempt: AttemptId(1),
        new: PieceSet::of_range(0..1),
    }
}

#[tokio::test(start_paused = true)]
async fn two_tasks_share_one_stream_and_each_hears_its_own() {
    let (hub, mut streams) = hub(HubConfig::default());
    let (a, b) = (task("a"), task("b"));
    let mut told_a = hub.subscribe(&host("parent"), a);
    let mut told_b = hub.subscribe(&host("parent"), b);
    let mut parent = streams.recv().await.unwrap();
    assert_eq!(parent.ask.recv().await, Some(Ask::Subscribe(a)));
    assert_eq!(parent.ask.recv().await, Some(Ask::Subscribe(b)));
    for tell in [begins(b), begins(a), holds(a)] {
        parent.tell.send(tell).await.unwrap();
    }
    assert_eq!(told_b.recv().await, Some(begins(b)));
    assert_eq!(told_a.recv().await, Some(begins(a)));
    assert_eq!(told_a.recv().await, Some(holds(a)));
    assert!(streams.try_recv().is_err(), "one stream is enough");
    hub.shutdown().await;
    assert_eq!(told_a.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn receivers_end_when_the_stream_breaks_and_the_next_opens_another() {
    let (hub, mut streams) = hub(HubConfig::default());
    let mut told_a = hub.subscribe(&host("parent"), task("a"));
    let mut told_b = hub.subscribe(&host("parent"), task("b"));
    drop(streams.recv().await.unwrap());
    assert_eq!(told_a.recv().await, None);
    assert_eq!(told_b.recv().await, None);
    let mut again = hub.subscribe(&host("parent"), task("a"));
    let mut parent = streams.recv().await.unwrap();
    assert_eq!(parent.ask.recv().await, Some(Ask::Subscribe(task("a"))));
    parent.tell.send(begins(task("a"))).await.unwrap();
    assert_eq!(again.recv().await, Some(begins(task("a"))));
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_cannot_be_reached_ends_its_receivers() {
    let (hub, _streams) = hub(HubConfig::default());
    assert_eq!(hub.subscribe(&host("dead"), task("a")).recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_receiver_unsubscribes_and_an_idle_stream_closes() {
    let (hub, mut streams) = hub(HubConfig::default());
    let told = hub.subscribe(&host("parent"), task("a"));
    let mut parent = streams.recv().await.unwrap();
    assert_eq!(parent.ask.recv().await, Some(Ask::Subscribe(task("a"))));
    drop(told);
    assert_eq!(parent.ask.recv().await, Some(Ask::Unsubscribe(task("a"))));
    assert_eq!(
        parent.ask.recv().await,
        None,
        "the stream closes after the idle time"
    );
    let _told = hub.subscribe(&host("parent"), task("a"));
    assert!(streams.recv().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_is_left_and_the_others_go_on() {
    let (hub, mut streams) = hub(HubConfig {
        tells_waiting: 1,
        ..HubConfig::default()
    });
    let (slow, quick) = (task("slow"), task("quick"));
    let mut told_slow = hub.subscribe(&host("parent"), slow);
    let mut told_quick = hub.subscribe(&host("parent"), quick);
    let mut parent = streams.recv().await.unwrap();
    for tell in [begins(slow), holds(slow), begins(quick)] {
        parent.tell.send(tell).await.unwrap();
    }
    assert_eq!(told_quick.recv().await, Some(begins(quick)));
    assert_eq!(told_slow.recv().await, Some(begins(slow)));
    assert_eq!(told_slow.recv().await, None);
    assert_eq!(parent.ask.recv().await, Some(Ask::Subscribe(slow)));
    assert_eq!(parent.ask.recv().await, Some(Ask::Subscribe(quick)));
    assert_eq!(parent.ask.recv().await, Some(Ask::Unsubscribe(slow)));
}

#[tokio::test(start_paused = true)]
async fn what_was_meant_for_an_earlier_subscription_is_not_heard() {
    let (hub, mut streams) = hub(HubConfig::default());
    let mut told = hub.subscribe(&host("parent"), task("a"));
    let parent = streams.recv().await.unwrap();
    for tell in [
        holds(task("a")),
        begins(task("a")),
        Tell::Gone { task: task("a") },
    ] {
        parent.tell.send(tell).await.unwrap();
    }
    assert_eq!(told.recv().await, Some(begins(task("a"))));
    assert_eq!(told.recv().await, Some(Tell::Gone { task: task("a") }));
    assert_eq!(told.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn past_its_bounds_a_subscription_ends_at_once() {
    let config = HubConfig {
        streams_max: 1,
        tasks_per_stream_max: 1,
        ..HubConfig::default()
    };
    let (hub, mut streams) = hub(config);
    let _told = hub.subscribe(&host("parent"), task("a"));
    let _parent = streams.recv().await.unwrap();
    assert_eq!(hub.subscribe(&host("parent"), task("b")).recv().await, None);
    assert_eq!(
        hub.subscribe(&host("another"), task("a")).recv().await,
        None
    );
}
