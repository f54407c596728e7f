//! Whatever bytes come in are read as something that can be said again, or refused.

use proptest::{
    collection::vec,
    prelude::{any, prop_assert, prop_assert_eq, proptest},
    sample::{Index, select},
};
use prost::Message;

use super::*;
use crate::{
    AttemptId, Candidate, Down, Up, Visibility,
    availability::{Ask, Tell},
    batch::{PieceBatch, SignedBatch},
    operator::{
        Explanation, Judged, LISTED_MAX, PreheatFailure, PreheatOrder, PreheatProgress,
        PreheatState, Scope, ScorePart, Snapshot, TaskProgress, TaskStatus, Verdict,
    },
    scheduler::{Failure, Outcome, SIBLINGS_MAX},
};

const TASK: TaskId = TaskId(Digest::Sha256([5; 32]));
const ATTEMPT: AttemptId = AttemptId(1 << 60);

fn origin() -> Origin {
    let repository = "library/alpine".parse().unwrap();
    Origin {
        registry: "docker.io".parse().unwrap(),
        repository,
        kind: ContentKind::Blob,
    }
}

fn ups() -> Vec<Vec<u8>> {
    let ups = [
        Up::Held {
            tasks: vec![TASK; 3],
        },
        Up::Register {
            task: TASK,
            origin: origin(),
            wants: wants(),
        },
        Up::Progress {
            task: TASK,
            attempt: ATTEMPT,
            total: Some(9),
            new: PieceSet::of_range(0..9),
        },
        Up::Finished {
            task: TASK,
            outcome: Outcome::Failed(Failure::NotFound),
        },
        Up::Load {
            uploads: 4,
            upload_rate: 9,
        },
    ];
    ups.map(|up| up_message(up).encode_to_vec()).into()
}

fn wants() -> Vec<Want> {
    vec![
        Want::Span {
            start: 7,
            end: Some(9),
        },
        Want::Last { length: 5 },
    ]
}

fn downs() -> Vec<Vec<u8>> {
    let host = "seed-1@10.0.0.1:65002".parse().unwrap();
    let patience = std::time::Duration::from_millis(1500);
    let parents = vec![Candidate { host }];
    let downs = [
        Down::Parents {
            task: TASK,
            siblings: parents.clone(),
            parents,
            fetcher: Some("seed-1".parse().unwrap()),
            proof: None,
        },
        Down::Wait {
            task: TASK,
            patience,
        },
        Down::BackToSource {
            task: TASK,
            epoch: 3,
            holders: Vec::new(),
        },
        Down::Warm {
            task: TASK,
            origin: origin(),
            wants: wants(),
        },
        Down::OnYourOwn {
            task: TASK,
            reason: Failure::Local,
        },
        Down::Drop {
            task: TASK,
            attempt: ATTEMPT,
        },
    ];
    downs.map(|down| down_message(down).encode_to_vec()).into()
}

fn tells() -> Vec<Vec<u8>> {
    let layout = Layout::for_size(Some(1 << 20));
    let batch = PieceBatch {
        task: TASK,
        attempt: ATTEMPT,
        layout,
        visibility: Visibility::Public,
        digests: Vec::new(),
    };
    let media_type = Some("text/plain".to_owned());
    let tells = [
        Tell::Begins {
            task: TASK,
            attempt: ATTEMPT,
            layout,
            media_type,
        },
        Tell::Batch(SignedBatch {
            batch,
            certificate: vec![1; 9],
            signature: vec![2; 9],
        }),
        Tell::Holds {
            task: TASK,
            attempt: ATTEMPT,
            new: PieceSet::of_range(5..90),
        },
        Tell::Ended {
            task: TASK,
            attempt: ATTEMPT,
            size: 77,
        },
        Tell::Gone { task: TASK },
    ];
    tells.map(|tell| tell_message(tell).encode_to_vec()).into()
}

fn operators() -> Vec<Vec<u8>> {
    let order = PreheatOrder {
        tasks: vec![(TASK, origin())],
        scope: Scope::AllHosts,
    };
    let progress = TaskProgress {
        task: TASK,
        wanted: 3,
        held: 1,
        pieces: 9,
        total: Some(8),
        state: PreheatState::Failed(PreheatFailure::Source(Failure::Refused)),
    };
    let explanation = Explanation {
        child: "a".parse().unwrap(),
        state: None,
        candidates: vec![Judged {
            candidate: "b".parse().unwrap(),
            is_parent: true,
            verdict: Verdict::Refused("cycle".to_owned()),
        }],
    };
    let tasks = vec![progress];
    vec![
        order_message(&order).encode_to_vec(),
        progress_message(PreheatProgress { tasks }).encode_to_vec(),
        explanations_message(vec![explanation]).encode_to_vec(),
    ]
}

/// Whether `bytes`, read as a message, are a domain value that survives being written again.
fn holds<M: Message + Default, T: Clone + PartialEq>(
    bytes: &[u8],
    read: fn(M) -> Result<T, Malformed>,
    write: fn(T) -> M,
) -> bool {
    let Some(value) = M::decode(bytes).ok().and_then(|message| read(message).ok()) else {
        return true;
    };
    read(write(value.clone())).is_ok_and(|again| again == value)
}

fn all_hold(bytes: &[u8]) -> bool {
    holds(bytes, read_up, up_message)
        && holds(bytes, read_down, down_message)
        && holds(bytes, read_ask, ask_message)
        && holds(bytes, read_tell, tell_message)
        && holds(bytes, read_order, |order| order_message(&order))
        && holds(bytes, read_progress, progress_message)
        && holds(bytes, read_snapshot, snapshot_message)
        && holds(bytes, read_explanations, explanations_message)
}

proptest! {
    #[test]
    fn garbage_is_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(all_hold(&bytes));
    }

    #[test]
    fn a_garbled_message_is_read_or_refused(
        mut bytes in select([ups(), downs(), tells(), operators()].concat()),
        at in any::<Index>(),
        with in any::<u8>(),
        end in any::<Index>(),
    ) {
        let at = at.index(bytes.len());
        bytes[at] = with;
        prop_assert!(all_hold(&bytes));
        prop_assert!(all_hold(&bytes[..end.index(bytes.len())]));
    }

    #[test]
    fn an_ask_survives(task in any::<[u8; 32]>()) {
        let ask = Ask::Subscribe(TaskId(Digest::Sha256(task)));
        prop_assert_eq!(read_ask(ask_message(ask.clone())), Ok(ask));
    }
}

#[track_caller]
fn refuses<T: std::fmt::Debug + PartialEq>(read: Result<T, Malformed>, expect: &'static str) {
    assert_eq!(read, Err(Malformed(expect)));
}

#[test]
fn what_is_past_its_bound_is_refused() {
    let many = Up::Held {
        tasks: vec![TASK; 1025],
    };
    refuses(read_up(up_message(many)), "a message names too many tasks");
    let new = PieceSet::default();
    let total = Up::Progress {
        task: TASK,
        attempt: ATTEMPT,
        total: Some(PIECES_MAX + 1),
        new,
    };
    refuses(read_up(up_message(total)), "a task has too many pieces");
    let host = "a@10.0.0.1:1".parse().unwrap();
    let parents = vec![Candidate { host }; 17];
    let siblings = vec![parents[0].clone(); SIBLINGS_MAX + 1];
    for (parents, siblings) in [(parents, Vec::new()), (Vec::new(), siblings)] {
        let crowd = Down::Parents {
            task: TASK,
            parents,
            siblings,
            fetcher: None,
            proof: None,
        };
        refuses(
            read_down(down_message(crowd)),
            "a task has too many candidates",
        );
    }
    let patience = std::time::Duration::MAX;
    let forever = Down::Wait {
        task: TASK,
        patience,
    };
    refuses(
        read_down(down_message(forever)),
        "a host is told to wait for more than a day",
    );
    let huge = Tell::Ended {
        task: TASK,
        attempt: ATTEMPT,
        size: u64::MAX,
    };
    refuses(read_tell(tell_message(huge)), "a task is too large");
    let layout = Layout::for_size(None);
    for label in ["x".repeat(256), "a\r\nb".to_owned()] {
        let media_type = Some(label);
        let begins = Tell::Begins {
            task: TASK,
            attempt: ATTEMPT,
            layout,
            media_type,
        };
        refuses(
            read_tell(tell_message(begins)),
            "a label is too long or not printable",
        );
    }
}

#[test]
fn what_is_no_part_of_a_task_is_refused() {
    let span = |start, end| Want::Span { start, end };
    for want in [
        span(7, Some(7)),
        span(u64::MAX, None),
        Want::Last { length: 0 },
        Want::Last { length: u64::MAX },
    ] {
        let wants = Ask::Wants {
            task: TASK,
            wants: vec![want],
        };
        refuses(read_ask(ask_message(wants)), "a part is none of a task");
    }
    let many = vec![proto::Want::default(); WANTS_MAX + 1];
    let wants = proto::Wants {
        task: task_bytes(TASK),
        wants: many,
    };
    let kind = Some(proto::child_message::Kind::Wants(wants));
    let message = proto::ChildMessage { kind };
    refuses(read_ask(message), "too many parts are wanted");
}

#[test]
fn no_answer_to_an_operator_lists_more_than_may_be_listed() {
    let task = |peers| TaskStatus {
        task: TASK,
        phase: "quiet".to_owned(),
        source: None,
        pieces: None,
        peers,
    };
    let lists = "a message lists too much";
    let tasks = vec![task(Vec::new()); LISTED_MAX + 1];
    let crowd = Snapshot {
        tasks,
        ..Snapshot::default()
    };
    refuses(read_snapshot(snapshot_message(crowd)), lists);
    let judged = |verdict| Judged {
        candidate: "b".parse().unwrap(),
        is_parent: false,
        verdict,
    };
    let explanation = |verdict, count| Explanation {
        child: "a".parse().unwrap(),
        state: None,
        candidates: vec![judged(verdict); count],
    };
    let rule = |name: &str| Verdict::Refused(name.to_owned());
    let halves = vec![explanation(rule("cycle"), LISTED_MAX / 2 + 1); 2];
    refuses(read_explanations(explanations_message(halves)), lists);
    let part = |value| ScorePart {
        name: "pieces".to_owned(),
        weight: 0.5,
        value,
    };
    let no_number = explanation(Verdict::Scored(vec![part(f64::NAN)]), 1);
    refuses(
        read_explanations(explanations_message(vec![no_number])),
        "a part of a score is no number",
    );
    for name in ["x".repeat(65), "a\x1b[2J".to_owned()] {
        let told = explanations_message(vec![explanation(rule(&name), 1)]);
        refuses(
            read_explanations(told),
            "a name is too long or not printable",
        );
    }
}
