//! What a parent tells its children over a stream in memory.

use std::sync::Arc;

use protocol::{
    AttemptId, Content, Digest, Layout, PieceSet, TaskId, Visibility,
    availability::{Ask, STREAM_QUEUE, Subscribers as _, Subscription, Tell},
};
use swarm::{
    peer::{PeerServer, PeerServerConfig},
    task::{Progress, Stage},
};

use super::{ATTEMPT, TestShelf, batch, metrics};

struct Child {
    stream: Subscription,
    shelf: Arc<TestShelf>,
    server: PeerServer,
}

impl Child {
    async fn connect() -> Self {
        let shelf = Arc::new(TestShelf::default());
        let config = PeerServerConfig::default();
        let server = PeerServer::new(Arc::<TestShelf>::clone(&shelf), config, metrics().0);
        let (stream, subscriber) = Subscription::pair("child".parse().expect("a host id"));
        server.accept(subscriber).await;
        Self {
            stream,
            shelf,
            server,
        }
    }

    async fn ask(&self, ask: Ask) {
        self.stream
            .ask
            .send(ask)
            .await
            .expect("the other side is there");
    }

    async fn hears(&mut self, expect: Tell) {
        assert_eq!(self.stream.tell.recv().await, Some(expect));
    }
}

fn task(name: &str) -> TaskId {
    TaskId(Digest::sha256_of(name.as_bytes()))
}

fn began(attempt: AttemptId) -> Progress {
    let layout = Layout::for_size(Some(1 << 30));
    let content = Content {
        attempt,
        layout,
        media_type: None,
        visibility: Visibility::Public,
    };
    Progress {
        content: Some(content),
        ..Progress::default()
    }
}

fn begins(task: TaskId, attempt: AttemptId) -> Tell {
    let layout = Layout::for_size(Some(1 << 30));
    Tell::Begins {
        task,
        attempt,
        layout,
        media_type: None,
    }
}

#[tokio::test(start_paused = true)]
async fn many_tasks_are_told_of_on_one_stream() {
    let mut child = Child::connect().await;
    let (a, b, unknown) = (task("a"), task("b"), task("unknown"));
    child.shelf.put(a, began(ATTEMPT));
    child.shelf.put(b, Progress::default());
    child.ask(Ask::Subscribe(a)).await;
    child.hears(begins(a, ATTEMPT)).await;
    child.ask(Ask::Subscribe(b)).await;
    child.ask(Ask::Subscribe(unknown)).await;
    child.hears(Tell::Gone { task: unknown }).await;
    child.shelf.change(b, |progress| *progress = began(ATTEMPT));
    child.hears(begins(b, ATTEMPT)).await;
    let signed = batch(a, ATTEMPT, 0..2);
    child
        .shelf
        .change(a, |progress| progress.batches.push(Arc::clone(&signed)));
    child.hears(Tell::Batch(signed.as_ref().clone())).await;
    child
        .shelf
        .change(a, |progress| progress.held = PieceSet::of_range(0..2));
    child
        .hears(Tell::Holds {
            task: a,
            attempt: ATTEMPT,
            new: PieceSet::of_range(0..2),
        })
        .await;
    child.server.shutdown().await;
    assert_eq!(child.stream.tell.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_left_is_told_of_no_more() {
    let mut child = Child::connect().await;
    let (a, b) = (task("a"), task("b"));
    for task in [a, b] {
        child.shelf.put(task, began(ATTEMPT));
        child.ask(Ask::Subscribe(task)).await;
        child.hears(begins(task, ATTEMPT)).await;
    }
    child.ask(Ask::Unsubscribe(a)).await;
    // The answer to the next question shows that the one before was heard.
    child.ask(Ask::Subscribe(task("unknown"))).await;
    child
        .hears(Tell::Gone {
            task: task("unknown"),
        })
        .await;
    child
        .shelf
        .change(a, |progress| *progress = began(AttemptId(8)));
    child
        .shelf
        .change(b, |progress| *progress = began(AttemptId(9)));
    child.hears(begins(b, AttemptId(9))).await;
    child.ask(Ask::Subscribe(a)).await;
    child.hears(begins(a, AttemptId(8))).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_driver_leaves_is_gone_unless_it_is_complete() {
    let mut child = Child::connect().await;
    let (running, complete) = (task("running"), task("complete"));
    child.shelf.put(running, began(ATTEMPT));
    child.shelf.put(
        complete,
        Progress {
            stage: Stage::Complete,
            ..began(ATTEMPT)
        },
    );
    for task in [running, complete] {
        child.ask(Ask::Subscribe(task)).await;
        child.hears(begins(task, ATTEMPT)).await;
    }
    child.shelf.remove(complete);
    child.shelf.remove(running);
    child.hears(Tell::Gone { task: running }).await;
    assert!(child.stream.tell.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_child_that_reads_slowly_is_told_more_at_once() {
    const PIECES: u32 = 4 * STREAM_QUEUE as u32;
    let mut child = Child::connect().await;
    let a = task("a");
    let proven = batch(a, ATTEMPT, 0..PIECES);
    child.shelf.put(
        a,
        Progress {
            batches: vec![proven],
            ..began(ATTEMPT)
        },
    );
    child.ask(Ask::Subscribe(a)).await;
    child.hears(begins(a, ATTEMPT)).await;
    for end in 1..=PIECES {
        child
            .shelf
            .change(a, |progress| progress.held = PieceSet::of_range(0..end));
        tokio::task::yield_now().await;
    }
    let (mut held, mut messages) = (PieceSet::default(), 0);
    while held.len() < PIECES {
        if let Some(Tell::Holds { new, .. }) = child.stream.tell.recv().await {
            assert!(
                new.iter().all(|piece| !held.contains(piece)),
                "each piece is told once"
            );
            held.union(&new);
        }
        messages += 1;
    }
    assert!(
        messages <= STREAM_QUEUE + 2,
        "{messages} messages for {PIECES} pieces"
    );
}
