//! A server that is asked to drain ends its open streams in good order.

use protocol::{
    Candidate, Down, Up,
    availability::{Ask, Tell},
};

use crate::harness::{authority, hello, remote_parent, remote_scheduler, task, within};

#[tokio::test]
async fn a_drain_ends_the_open_session_after_its_last_word() {
    within(async {
        let mut under_test = remote_scheduler(&authority()).await;
        let mut session = under_test.scheduler.open(hello()).await.unwrap();
        let mut end = under_test.sessions.recv().await.unwrap();
        session
            .up
            .send(Up::Load {
                uploads: 1,
                upload_rate: 0,
            })
            .await
            .unwrap();
        assert_eq!(
            end.up.recv().await,
            Some(Up::Load {
                uploads: 1,
                upload_rate: 0
            })
        );
        let candidate = Candidate {
            host: "a@10.0.0.1:1".parse().unwrap(),
        };
        let last = Down::Parents {
            task: task(1),
            parents: vec![candidate],
            siblings: Vec::new(),
            fetcher: None,
            proof: None,
        };
        end.down.send(last.clone()).await.unwrap();
        under_test.server.as_ref().unwrap().drain.cancel();
        assert_eq!(session.down.recv().await, Some(last));
        assert_eq!(session.down.recv().await, None);
        session.up.closed().await;
        end.down.closed().await;
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_the_open_stream_of_a_child() {
    within(async {
        let mut under_test = remote_parent(&authority()).await;
        let mut subscription = under_test
            .availability
            .open(&under_test.parent)
            .await
            .unwrap();
        let mut subscriber = under_test.subscribers.recv().await.unwrap();
        subscription
            .ask
            .send(Ask::Subscribe(task(1)))
            .await
            .unwrap();
        assert_eq!(subscriber.ask.recv().await, Some(Ask::Subscribe(task(1))));
        subscriber
            .tell
            .send(Tell::Gone { task: task(1) })
            .await
            .unwrap();
        under_test.server.as_ref().unwrap().drain.cancel();
        assert_eq!(
            subscription.tell.recv().await,
            Some(Tell::Gone { task: task(1) })
        );
        assert_eq!(subscription.tell.recv().await, None);
        assert_eq!(subscriber.ask.recv().await, None);
    })
    .await;
}
