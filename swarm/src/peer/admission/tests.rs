//! Whom the slots go to: by data, and by any order of events.

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use protocol::{Digest, TaskId};

use super::{Admission, Ask, Refusal, TaskSize};
use crate::peer::Asker;

/// `c7.3` is a child host 7 that asks for task 3, `s7.3` a sibling; with a `-` behind it the task
/// is small.
fn ask(text: &str) -> Ask {
    let (asker, rest) = match text.split_at(1) {
        ("c", rest) => (Asker::Child, rest),
        (_, rest) => (Asker::Sibling, rest),
    };
    let size = match rest.ends_with('-') {
        true => TaskSize::Small,
        false => TaskSize::Large,
    };
    let (host, task) = rest.trim_end_matches('-').split_once('.').unwrap();
    Ask {
        asker,
        host: format!("host-{host}").parse().unwrap(),
        task: TaskId(Digest::sha256_of(task.as_bytes())),
        size,
    }
}

/// How many requests like `text` get a slot one after the other, and why the next gets none.
fn fill(admission: &mut Admission, text: &str) -> (u32, Refusal) {
    let ask = ask(text);
    for given in 0.. {
        if let Err(refusal) = admission.admit(&ask) {
            return (given, refusal);
        }
    }
    unreachable!("slots without end")
}

/// Each of `script` asks until it is refused; renders how many slots each got, and the reason.
#[track_caller]
fn check(slots: u32, script: &str, expect: &str) {
    let mut admission = Admission::new(slots);
    let told = script.split(' ').map(|text| {
        let (given, refusal) = fill(&mut admission, text);
        format!("{given}{refusal:?}")
    });
    assert_eq!(told.collect::<Vec<_>>().join(" "), expect, "{script}");
}

#[test]
fn a_host_leaves_as_much_as_it_takes() {
    check(64, "c1.1", "19TaskShare");
    check(
        64,
        "c1.1 c1.2 c1.3 c1.4 c1.5 c1.6",
        "19TaskShare 6TaskShare 2TaskShare 1HostShare 0HostShare 0HostShare",
    );
    check(
        64,
        "c1.1 c2.1 c3.1 c4.1",
        "19TaskShare 13TaskShare 8TaskShare 6TaskShare",
    );
    check(
        3,
        "c1.1 c1.1 c2.1 c3.1 c4.1",
        "1TaskShare 0TaskShare 1HostShare 1Full 0Full",
    );
}

#[test]
fn siblings_leave_a_quarter_to_children() {
    let siblings: Vec<String> = (0..60).map(|host| format!("s{host}.1")).collect();
    let mut admission = Admission::new(64);
    let given: u32 = siblings
        .iter()
        .map(|text| fill(&mut admission, text).0)
        .sum();
    assert_eq!(given, 40, "the rest of both shares");
    let small: Vec<String> = (0..60).map(|host| format!("s{host}.9-")).collect();
    let given: u32 = small.iter().map(|text| fill(&mut admission, text).0).sum();
    assert_eq!(given, 8, "the share of small tasks");
    assert_eq!(admission.admit(&ask("s99.1")), Err(Refusal::Reserved));
    assert_eq!(admission.admit(&ask("s99.9-")), Err(Refusal::Reserved));
    let children = (0..60).map(|host| fill(&mut admission, &format!("c{host}.1")).0);
    assert_eq!(children.sum::<u32>(), 16);
    assert_eq!(admission.admit(&ask("c99.1")), Err(Refusal::Full));
}

#[test]
fn large_tasks_leave_an_eighth_to_small_ones() {
    let mut admission = Admission::new(64);
    let large: u32 = (0..99)
        .map(|host| fill(&mut admission, &format!("c{host}.1")).0)
        .sum();
    assert_eq!(large, 56);
    assert_eq!(admission.admit(&ask("c100.1")), Err(Refusal::Reserved));
    assert_eq!(admission.admit(&ask("c100.2-")), Ok(()));
    assert_eq!(admission.admit(&ask("s100.3-")), Ok(()));
}

#[test]
fn whoever_asks_alone_gets_a_slot_of_any_number_of_slots() {
    for slots in 1..200 {
        for text in ["c1.1", "c1.1-", "s1.1", "s1.1-"] {
            assert_eq!(Admission::new(slots).admit(&ask(text)), Ok(()), "{slots}");
        }
    }
    assert_eq!(Admission::new(0).admit(&ask("c1.1")), Err(Refusal::Full));
}

#[test]
fn what_was_never_given_is_not_taken_back() {
    let mut admission = Admission::new(8);
    admission.admit(&ask("c1.1")).unwrap();
    for other in ["c1.2", "c2.1", "s1.1"] {
        admission.release(&ask(other));
        assert_eq!(admission.in_use(), 1);
    }
}

/// A request that comes, or one of those that were given a slot that ends.
#[derive(Debug, Clone)]
enum Step {
    Asks(Ask),
    Ends(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let asks = (any::<bool>(), 0..6u8, 0..4u8, any::<bool>()).prop_map(
        |(is_child, host, task, is_small)| {
            let (asker, size) = (
                if is_child { "c" } else { "s" },
                if is_small { "-" } else { "" },
            );
            Step::Asks(ask(&format!("{asker}{host}.{task}{size}")))
        },
    );
    let ends = any::<prop::sample::Index>().prop_map(Step::Ends);
    prop::collection::vec(prop_oneof![3 => asks, 1 => ends], 0..400)
}

proptest! {
    #[test]
    fn the_shares_hold_whatever_the_order_of_events(slots in 1u32..80, steps in steps()) {
        let mut admission = Admission::new(slots);
        let mut given: Vec<Ask> = Vec::new();
        for step in steps {
            match step {
                Step::Asks(ask) => match admission.admit(&ask) {
                    Ok(()) => given.push(ask),
                    Err(refusal) => {
                        let holds = |held: &&Ask| (held.asker, &held.host) == (ask.asker, &ask.host);
                        let is_fairness = matches!(refusal, Refusal::HostShare | Refusal::TaskShare);
                        prop_assert!(!is_fairness || given.iter().any(|held| holds(&held)),
                            "who holds nothing is within every share");
                    }
                },
                Step::Ends(_) if given.is_empty() => {}
                Step::Ends(which) => {
                    let at = which.index(given.len());
                    admission.release(&given.swap_remove(at));
                }
            }
            prop_assert_eq!(admission.in_use() as usize, given.len());
            prop_assert!(given.len() as u32 <= slots);
            let children = given.iter().filter(|ask| ask.asker == Asker::Child).count() as u32;
            let siblings = given.len() as u32 - children;
            let reserve = slots.div_ceil(4).min(slots - 1);
            prop_assert!(siblings + reserve <= slots);
            // A child that is new is only refused when children have used their reserve.
            let mut probe = ask("c9.9");
            let admitted = admission.admit(&probe);
            prop_assert!(admitted.is_ok() || reserve <= children);
            if admitted.is_ok() {
                admission.release(&probe);
            }
            // A small task that is new is only refused when every slot that it may have is used.
            probe.size = TaskSize::Small;
            let admitted = admission.admit(&probe);
            prop_assert_eq!(admitted.is_ok(), (given.len() as u32) < slots);
            if admitted.is_ok() {
                admission.release(&probe);
            }
        }
        for ask in given.drain(..) {
            admission.release(&ask);
        }
        prop_assert_eq!(admission.in_use(), 0);
        prop_assert!(admission.holders.is_empty());
        for text in ["c1.1", "s1.1"] {
            let probe = ask(text);
            prop_assert_eq!(admission.admit(&probe), Ok(()));
            admission.release(&probe);
        }
    }
}
