//! What every scheduler session holds to.

use std::{sync::Arc, time::Duration};

use protocol::{
    AttemptId, Candidate, ContentKind, Digest, Down, Layout, Origin, PieceBatch, PieceIndex,
    PieceSet, Proof, Session, SignedBatch, TaskId, Up, Visibility, Want,
    scheduler::{Failure, Outcome, ParentFailure, SessionEnd, SessionError},
};

use crate::harness::{SchedulerUnderTest, each_scheduler, fill, hello, id, task};

async fn open(under_test: &mut SchedulerUnderTest) -> (Session, SessionEnd) {
    let session = under_test.scheduler.open(hello()).await.unwrap();
    (session, under_test.sessions.recv().await.unwrap())
}

fn origin(kind: ContentKind) -> Origin {
    let registry = "r.example:5000".parse().unwrap();
    Origin {
        registry,
        repository: "library/alpine".parse().unwrap(),
        kind,
    }
}

fn proof() -> Arc<Proof> {
    let batch = PieceBatch {
        task: task(1),
        attempt: AttemptId(7),
        layout: Layout::for_size(Some(9)),
        visibility: Visibility::Public,
        digests: vec![(PieceIndex(0), [3; 32])],
    };
    // Whoever hands a proof on does not look at the signature.
    let signed = SignedBatch {
        batch,
        certificate: vec![1; 300],
        signature: vec![2; 64],
    };
    Arc::new(Proof::new(signed, Some("a/b".to_owned())).unwrap())
}

fn every_up() -> Vec<Up> {
    let sha512 = TaskId(Digest::Sha512([7; 64]));
    let failures = [
        Failure::Refused,
        Failure::NotFound,
        Failure::Unavailable,
        Failure::Corrupt,
        Failure::Local,
    ];
    let reasons = [
        ParentFailure::Unreachable,
        ParentFailure::Slow,
        ParentFailure::Gone,
        ParentFailure::Busy,
        ParentFailure::Lied,
    ];
    let mut all = vec![
        Up::Held {
            tasks: vec![task(1), sha512],
        },
        Up::Held { tasks: Vec::new() },
        Up::Dropped {
            tasks: (0..1024).map(task).collect(),
        },
        Up::Register {
            task: task(1),
            origin: origin(ContentKind::Blob),
            wants: Vec::new(),
        },
        Up::Register {
            task: sha512,
            origin: origin(ContentKind::Manifest),
            wants: wants(),
        },
        Up::Progress {
            task: task(1),
            attempt: AttemptId(u64::MAX),
            total: Some(0),
            new: PieceSet::of_range(3..700),
        },
        Up::Progress {
            task: task(1),
            attempt: AttemptId(0),
            total: None,
            new: [PieceIndex((1 << 20) - 1)].into_iter().collect(),
        },
        Up::Finished {
            task: task(1),
            outcome: Outcome::Complete,
        },
        Up::Finished {
            task: task(1),
            outcome: Outcome::Left,
        },
        Up::Load {
            uploads: u32::MAX,
            upload_rate: u64::MAX,
        },
        Up::Proves(proof()),
    ];
    all.extend(failures.map(|failure| Up::Finished {
        task: task(2),
        outcome: Outcome::Failed(failure),
    }));
    all.extend(reasons.map(|reason| Up::ParentFailed {
        task: task(3),
        parent: id("seed-1"),
        reason,
    }));
    all
}

/// As many parts as one message may name.
pub(crate) fn wants() -> Vec<Want> {
    let span = |start| Want::Span {
        start,
        end: Some(start + 7),
    };
    let all = Want::Span {
        start: 3,
        end: None,
    };
    let last = Want::Last { length: 1 << 40 };
    (0..14).map(span).chain([all, last]).collect()
}

fn every_down() -> Vec<Down> {
    let host = |text: &str| Candidate {
        host: text.parse().unwrap(),
    };
    let parents = vec![
        host("seed-1@[2001:db8::1]:65002"),
        host("node-2@10.0.0.6:1"),
    ];
    vec![
        Down::Parents {
            task: task(1),
            siblings: vec![host("node-3@10.0.0.7:65002")],
            parents,
            fetcher: Some(id("seed-1")),
            proof: Some(proof()),
        },
        Down::Parents {
            task: task(1),
            parents: Vec::new(),
            siblings: Vec::new(),
            fetcher: None,
            proof: None,
        },
        Down::Wait {
            task: task(2),
            patience: Duration::new(5, 999_999_999),
        },
        Down::BackToSource {
            task: task(3),
            epoch: u64::MAX,
            holders: vec![host("node-2@10.0.0.6:1")],
        },
        Down::Warm {
            task: task(4),
            origin: origin(ContentKind::Blob),
            wants: wants(),
        },
        Down::OnYourOwn {
            task: task(5),
            reason: Failure::Refused,
        },
        Down::Drop {
            task: task(6),
            attempt: AttemptId(u64::MAX),
        },
    ]
}

#[tokio::test]
async fn every_message_arrives_unchanged_and_in_order() {
    each_scheduler(async |mut under_test| {
        let (mut session, mut end) = open(&mut under_test).await;
        assert_eq!(end.hello, hello());
        for message in every_up() {
            session.up.send(message).await.unwrap();
        }
        for message in every_up() {
            assert_eq!(end.up.recv().await, Some(message));
        }
        for message in every_down() {
            end.down.send(message).await.unwrap();
        }
        for message in every_down() {
            assert_eq!(session.down.recv().await, Some(message));
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_makes_the_sender_wait_and_loses_nothing() {
    each_scheduler(async |mut under_test| {
        let (mut session, mut end) = open(&mut under_test).await;
        let held = |n| Up::Held {
            tasks: (n..n + 200).map(task).collect(),
        };
        for n in 0..fill(&session.up, held).await {
            assert_eq!(end.up.recv().await, Some(held(n)));
        }
        let origin = origin(ContentKind::Blob);
        let warm = |n| Down::Warm {
            task: task(n),
            origin: origin.clone(),
            wants: Vec::new(),
        };
        for n in 0..fill(&end.down, warm).await {
            assert_eq!(session.down.recv().await, Some(warm(n)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_host_that_drops_its_half_ends_the_session_after_its_last_word() {
    each_scheduler(async |mut under_test| {
        let (session, mut end) = open(&mut under_test).await;
        for message in every_up() {
            session.up.send(message).await.unwrap();
        }
        drop(session);
        for message in every_up() {
            assert_eq!(end.up.recv().await, Some(message));
        }
        assert_eq!(end.up.recv().await, None);
        end.down.closed().await;
    })
    .await;
}

#[tokio::test]
async fn a_scheduler_that_drops_its_half_ends_the_session_after_its_last_word() {
    each_scheduler(async |mut under_test| {
        let (mut session, end) = open(&mut under_test).await;
        for message in every_down() {
            end.down.send(message).await.unwrap();
        }
        drop(end);
        for message in every_down() {
            assert_eq!(session.down.recv().await, Some(message));
        }
        assert_eq!(session.down.recv().await, None);
        session.up.closed().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_can_be_opened_again_and_two_do_not_mix() {
    each_scheduler(async |mut under_test| {
        let (first, first_end) = open(&mut under_test).await;
        let (second, mut second_end) = open(&mut under_test).await;
        drop((first, first_end));
        second
            .up
            .send(Up::Load {
                uploads: 2,
                upload_rate: 0,
            })
            .await
            .unwrap();
        assert_eq!(
            second_end.up.recv().await,
            Some(Up::Load {
                uploads: 2,
                upload_rate: 0
            })
        );
        drop((second, second_end));
        let (third, mut third_end) = open(&mut under_test).await;
        third
            .up
            .send(Up::Load {
                uploads: 3,
                upload_rate: 0,
            })
            .await
            .unwrap();
        assert_eq!(
            third_end.up.recv().await,
            Some(Up::Load {
                uploads: 3,
                upload_rate: 0
            })
        );
    })
    .await;
}

#[tokio::test]
async fn a_scheduler_can_refuse_and_say_why() {
    each_scheduler(async |under_test| {
        let mut hello = hello();
        hello.upload_slots = 0;
        let error = under_test.scheduler.open(hello).await.unwrap_err();
        assert_eq!(error, SessionError::Refused("no slots".to_owned()));
    })
    .await;
}
