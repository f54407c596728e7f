//! Pieces over real mutual TLS, from a parent's store to a child.

use protocol::{AttemptId, Host, PieceIndex};
use swarm::peer::{PeerServerConfig, PieceError, PieceRun};

use super::{ATTEMPT, Parent, Stored, authority, client, counted, eventually, fetch};

const PIECE: usize = 256 * 1024;

#[tokio::test]
async fn runs_come_whole_and_in_order_over_one_connection() {
    let authority = authority();
    let parent = Parent::start(&authority, PeerServerConfig::default()).await;
    let (client, _) = client(&authority);
    let stored = Stored::new(5 * PIECE + 1000);
    parent.shelf.put(stored.task, stored.progress.clone());
    for pieces in [0..4, 4..6, 5..6, 2..3] {
        let start = pieces.start as usize * PIECE;
        let end = (pieces.end as usize * PIECE).min(stored.body.len());
        let body = fetch(&client, &parent.host, stored.run(pieces))
            .await
            .unwrap();
        assert!(body == stored.body[start..end], "{start}..{end}");
    }
    assert_eq!(parent.accepted(), 1);
    assert_eq!(parent.server.uploads(), 0, "slots are given back");
    client.shutdown().await;
}

#[tokio::test]
async fn what_a_parent_may_not_give_out_is_gone() {
    let authority = authority();
    let parent = Parent::start(&authority, PeerServerConfig::default()).await;
    let (client, _) = client(&authority);
    let stored = Stored::new(5 * PIECE);
    let gone = async |run: PieceRun| {
        assert_eq!(
            fetch(&client, &parent.host, run).await,
            Err(PieceError::Gone)
        );
    };
    gone(stored.run(0..1)).await;
    parent.shelf.put(stored.task, stored.progress.clone());
    fetch(&client, &parent.host, stored.run(0..1))
        .await
        .unwrap();
    gone(PieceRun {
        attempt: AttemptId(ATTEMPT.0 + 1),
        ..stored.run(0..1)
    })
    .await;

    parent.shelf.change(stored.task, |progress| {
        assert!(progress.held.remove(PieceIndex(2)))
    });
    gone(stored.run(1..3)).await;
    fetch(&client, &parent.host, stored.run(3..5))
        .await
        .unwrap();

    parent
        .shelf
        .change(stored.task, |progress| progress.batches.clear());
    gone(stored.run(3..5)).await;

    parent.shelf.put(stored.task, stored.progress.clone());
    fetch(&client, &parent.host, stored.run(0..1))
        .await
        .unwrap();
    assert!(stored.store.remove(stored.task));
    gone(stored.run(0..1)).await;
    assert_eq!(
        parent.accepted(),
        1,
        "a refusal does not cost the connection"
    );
}

#[tokio::test]
async fn a_parent_with_no_slot_free_is_busy() {
    let authority = authority();
    let config = PeerServerConfig {
        upload_slots: 0,
        ..PeerServerConfig::default()
    };
    let parent = Parent::start(&authority, config).await;
    let (client, _) = client(&authority);
    let stored = Stored::new(PIECE);
    parent.shelf.put(stored.task, stored.progress.clone());
    let fetched = fetch(&client, &parent.host, stored.run(0..1)).await;
    assert_eq!(fetched, Err(PieceError::Busy));
}

#[tokio::test]
async fn a_dropped_run_keeps_its_connection() {
    let authority = authority();
    let parent = Parent::start(&authority, PeerServerConfig::default()).await;
    let (client, registry) = client(&authority);
    let stored = Stored::new(4 * PIECE);
    parent.shelf.put(stored.task, stored.progress.clone());
    let mut stream = client.fetch(&parent.host, stored.run(0..4));
    stream.next().await.unwrap().unwrap();
    drop(stream);
    eventually(|| counted(&registry, "fetch_runs_total", "cancelled") == 1).await;
    fetch(&client, &parent.host, stored.run(0..4))
        .await
        .unwrap();
    assert_eq!(parent.accepted(), 1);
    assert_eq!(counted(&registry, "fetch_runs_total", "complete"), 1);
}

#[tokio::test]
async fn a_host_that_is_not_who_it_should_be_is_not_asked() {
    let ours = authority();
    let parent = Parent::start(&ours, PeerServerConfig::default()).await;
    let stored = Stored::new(PIECE);
    parent.shelf.put(stored.task, stored.progress.clone());

    let (child, _) = client(&ours);
    let another = Host {
        id: "another".parse().unwrap(),
        ..parent.host.clone()
    };
    let fetched = fetch(&child, &another, stored.run(0..1)).await;
    assert!(
        matches!(fetched, Err(PieceError::Unreachable(_))),
        "{fetched:?}"
    );

    let (stranger, _) = client(&authority());
    let fetched = fetch(&stranger, &parent.host, stored.run(0..1)).await;
    assert!(
        matches!(fetched, Err(PieceError::Unreachable(_))),
        "{fetched:?}"
    );
    assert!(fetch(&child, &parent.host, stored.run(0..1)).await.is_ok());
    assert_eq!(parent.accepted(), 1, "only the one that is ours");
}

#[tokio::test]
async fn a_client_that_was_shut_down_fetches_nothing() {
    let authority = authority();
    let parent = Parent::start(&authority, PeerServerConfig::default()).await;
    let (client, _) = client(&authority);
    let stored = Stored::new(PIECE);
    parent.shelf.put(stored.task, stored.progress.clone());
    fetch(&client, &parent.host, stored.run(0..1))
        .await
        .unwrap();
    client.shutdown().await;
    let fetched = fetch(&client, &parent.host, stored.run(0..1)).await;
    assert!(
        matches!(fetched, Err(PieceError::Unreachable(_))),
        "{fetched:?}"
    );
}
