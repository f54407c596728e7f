//! What every availability stream holds to.

use protocol::{
    AttemptId, ContentKind, Layout, Origin, PieceBatch, PieceIndex, PieceSet, Right, Role,
    Visibility,
    availability::{Ask, Subscriber, Subscription, Tell},
};

use crate::{
    harness::{ParentUnderTest, authority, each_parent, fill, id, identity, task},
    session::wants,
};

async fn open(under_test: &mut ParentUnderTest) -> (Subscription, Subscriber) {
    let subscription = under_test
        .availability
        .open(&under_test.parent)
        .await
        .unwrap();
    (subscription, under_test.subscribers.recv().await.unwrap())
}

fn every_ask() -> Vec<Ask> {
    vec![
        Ask::Subscribe(task(1)),
        Ask::Bring {
            task: task(3),
            origin: Origin {
                registry: "r.example:5000".parse().unwrap(),
                repository: "library/alpine".parse().unwrap(),
                kind: ContentKind::Manifest,
            },
        },
        Ask::Wants {
            task: task(3),
            wants: wants(),
        },
        Ask::Wants {
            task: task(3),
            wants: Vec::new(),
        },
        Ask::Lend {
            task: task(3),
            origin: Origin {
                registry: "r.example:5000".parse().unwrap(),
                repository: "library/alpine".parse().unwrap(),
                kind: ContentKind::Blob,
            },
            right: Right::bearer("Bearer abc").unwrap(),
        },
        Ask::Unsubscribe(task(1)),
        Ask::Subscribe(task(2)),
    ]
}

fn every_tell() -> Vec<Tell> {
    let attempt = AttemptId(0x0123_4567_89ab_cdef);
    let batch = PieceBatch {
        task: task(1),
        attempt,
        layout: Layout::for_size(None),
        visibility: Visibility::Public,
        digests: (0..1024)
            .map(|index| (PieceIndex(index), [index as u8; 32]))
            .collect(),
    };
    let known = Layout::for_size(Some(1 << 35));
    let ended = Layout::for_size(None).ended_at(5);
    vec![
        Tell::Begins {
            task: task(1),
            attempt,
            layout: known,
            media_type: Some("a/b".to_owned()),
        },
        Tell::Begins {
            task: task(1),
            attempt,
            layout: ended,
            media_type: None,
        },
        Tell::Begins {
            task: task(1),
            attempt,
            layout: Layout::for_size(None),
            media_type: None,
        },
        Tell::Batch(batch.sign(&identity(&authority(), "seed-1", &[Role::Seed]))),
        Tell::Holds {
            task: task(1),
            attempt,
            new: PieceSet::of_range(0..1024),
        },
        Tell::Holds {
            task: task(1),
            attempt,
            new: PieceSet::default(),
        },
        Tell::Ended {
            task: task(1),
            attempt,
            size: 1 << 40,
        },
        Tell::Gone { task: task(1) },
    ]
}

#[tokio::test]
async fn every_message_arrives_unchanged_and_in_order() {
    each_parent(async |mut under_test| {
        let (mut subscription, mut subscriber) = open(&mut under_test).await;
        assert_eq!(subscriber.child, id("node-1"));
        for message in every_ask() {
            subscription.ask.send(message).await.unwrap();
        }
        for message in every_ask() {
            assert_eq!(subscriber.ask.recv().await, Some(message));
        }
        let tells = every_tell();
        for message in &tells {
            subscriber.tell.send(message.clone()).await.unwrap();
        }
        for message in tells {
            assert_eq!(subscription.tell.recv().await, Some(message));
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_makes_the_sender_wait_and_loses_nothing() {
    each_parent(async |mut under_test| {
        let (mut subscription, mut subscriber) = open(&mut under_test).await;
        let ask = |n| Ask::Subscribe(task(n));
        for n in 0..fill(&subscription.ask, ask).await {
            assert_eq!(subscriber.ask.recv().await, Some(ask(n)));
        }
        let gone = |n| Tell::Gone { task: task(n) };
        for n in 0..fill(&subscriber.tell, gone).await {
            assert_eq!(subscription.tell.recv().await, Some(gone(n)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_child_that_drops_its_half_ends_the_stream_after_its_last_word() {
    each_parent(async |mut under_test| {
        let (subscription, mut subscriber) = open(&mut under_test).await;
        subscription
            .ask
            .send(Ask::Subscribe(task(1)))
            .await
            .unwrap();
        drop(subscription);
        assert_eq!(subscriber.ask.recv().await, Some(Ask::Subscribe(task(1))));
        assert_eq!(subscriber.ask.recv().await, None);
        subscriber.tell.closed().await;
    })
    .await;
}

#[tokio::test]
async fn a_parent_that_drops_its_half_ends_the_stream_and_it_can_be_opened_again() {
    each_parent(async |mut under_test| {
        let (mut subscription, subscriber) = open(&mut under_test).await;
        subscriber
            .tell
            .send(Tell::Gone { task: task(1) })
            .await
            .unwrap();
        drop(subscriber);
        assert_eq!(
            subscription.tell.recv().await,
            Some(Tell::Gone { task: task(1) })
        );
        assert_eq!(subscription.tell.recv().await, None);
        subscription.ask.closed().await;
        let (mut subscription, subscriber) = open(&mut under_test).await;
        subscriber
            .tell
            .send(Tell::Gone { task: task(2) })
            .await
            .unwrap();
        assert_eq!(
            subscription.tell.recv().await,
            Some(Tell::Gone { task: task(2) })
        );
    })
    .await;
}
