//! Siblings, bans, the view's seeds, and what a new fetcher is told of those who hold something.

use std::{collections::BTreeMap, sync::Arc};

use super::*;

/// The siblings that each peer has at the end of `script`.
fn siblings(siblings_max: usize, script: &str) -> BTreeMap<String, Vec<String>> {
    let mut engine = Engine::new(with_siblings(siblings_max), Vec::new());
    let (_, now) = play(&mut engine, epoch(), script);
    let snapshot = engine.snapshot(now, usize::MAX);
    let peers = snapshot.tasks.iter().flat_map(|task| &task.peers);
    let named = |ids: &[HostId]| ids.iter().map(ToString::to_string).collect();
    peers
        .map(|peer| (peer.host.to_string(), named(&peer.siblings)))
        .collect()
}

/// A herd of `count` behind one seed, all of whom have registered.
fn herd(count: usize) -> String {
    let hosts = (0..count).map(|number| format!("h{number} joins; h{number} registers; "));
    format!("s seeds 64; s registers; {}", hosts.collect::<String>())
}

#[test]
fn equals_are_told_of_each_other_and_the_fetcher_is_no_sibling() {
    check_with(
        with_siblings(4),
        "s seeds; a joins; b joins; s registers; a registers; b registers",
        "s<source1 a<s a<s~b b<s+a~a",
    );
}

#[test]
fn a_sibling_that_leaves_or_failed_is_replaced() {
    let three = "s seeds; s registers; a joins; b joins; c joins; d joins; a registers; b registers; c registers; d registers";
    let after = siblings(2, &format!("{three}; a leaves"));
    for (host, siblings) in &after {
        assert!(!siblings.contains(&"a".to_owned()), "{host}: {siblings:?}");
        assert!(host == "s" || !siblings.is_empty(), "{host} has none left");
    }
    let after = siblings(4, &format!("{three}; a blames b"));
    assert!(!after["a"].contains(&"b".to_owned()));
    assert!(!after["b"].contains(&"a".to_owned()));
}

/// Hops from the first host to the farthest, or `None` where somebody cannot be reached.
fn diameter(pairs: &BTreeMap<String, Vec<String>>) -> Option<usize> {
    let mut hops = BTreeMap::from([("h0".to_owned(), 0)]);
    let mut open = std::collections::VecDeque::from(["h0".to_owned()]);
    while let Some(next) = open.pop_front() {
        for other in &pairs[&next] {
            if !hops.contains_key(other) {
                hops.insert(other.clone(), hops[&next] + 1);
                open.push_back(other.clone());
            }
        }
    }
    let all = pairs.keys().filter(|host| *host != "s").count();
    (hops.len() == all).then(|| hops.values().copied().max().unwrap_or(0))
}

#[test]
fn a_herd_of_any_size_is_few_hops_wide() {
    for (count, hops_max) in [(2, 1), (17, 1), (18, 2), (100, 3), (500, 4)] {
        let pairs = siblings(16, &herd(count));
        let hops = diameter(&pairs).expect("everybody is reached");
        assert!(hops <= hops_max, "{count} hosts are {hops} hops wide");
        for (host, siblings) in pairs.iter().filter(|(host, _)| *host != "s") {
            let least = (count - 1).min(15);
            assert!(
                (least..=16).contains(&siblings.len()),
                "{host} of {count} has {} siblings",
                siblings.len()
            );
        }
    }
}

#[test]
fn a_liar_is_nobodys_parent_once_three_have_caught_it() {
    let fed = "l joins; l holds; g joins; g holds; a joins; b joins; c joins; d joins; \
               a registers; b registers; c registers";
    // What `d` is told last, before and after the third word.
    let last_of_d = |script: &str| {
        let (told, _) = play(&mut Engine::new(limits(), Vec::new()), epoch(), script);
        told.rsplit("d<").next().unwrap().to_owned()
    };
    let twice = format!("{fed}; a blames l lies; b blames l lies; d registers");
    assert!(last_of_d(&twice).contains('l'));
    let thrice = format!("{twice}; c blames l lies");
    assert!(!last_of_d(&thrice).contains('l'));
    let mut engine = Engine::new(limits(), Vec::new());
    let script = format!(
        "{fed}; a blames l lies; b blames l lies; c blames l lies; l leaves; l joins; l holds; d registers"
    );
    let (told, _) = play(&mut engine, epoch(), &script);
    assert!(!told.rsplit("d<").next().unwrap().contains('l'), "{told}");
    assert_eq!(engine.poll_ban().unwrap().as_str(), "l");
    assert_eq!(engine.poll_ban(), None);
}

#[test]
fn a_seed_that_caught_a_liar_needs_no_second_witness() {
    let mut engine = Engine::new(limits(), Vec::new());
    play(
        &mut engine,
        epoch(),
        "l joins; l holds; s seeds; s registers; s blames l lies",
    );
    assert_eq!(engine.poll_ban().unwrap().as_str(), "l");
}

#[test]
fn a_new_fetcher_is_told_who_holds_a_part() {
    let (first, second) = ring();
    let script = format!(
        "s seeds; t seeds; a joins; {first} registers; a registers; a progresses 3; {first} leaves; {second} registers"
    );
    check(
        &script,
        &format!("{first}<source1 a<{first} {second}<warm a<wait {second}<source2(a) a<{second}"),
    );
}

#[test]
fn a_seed_of_the_view_that_is_away_is_waited_for_and_then_passed_over() {
    let (first, second) = ring();
    let view = || ["s", "t"].map(|name| name.parse().unwrap()).to_vec();
    let cold = format!("{second} seeds; a joins; a registers");
    let (told, _) = play(&mut Engine::new(limits(), view()), epoch(), &cold);
    assert_eq!(told, "a<wait");
    let comes = format!("{cold}; after 2000; {first} seeds; after 1000");
    let (told, _) = play(&mut Engine::new(limits(), view()), epoch(), &comes);
    assert_eq!(told, format!("a<wait {first}<warm"));
    let (told, _) = play(
        &mut Engine::new(limits(), view()),
        epoch(),
        &format!("{cold}; after 7000"),
    );
    assert!(told.contains(&format!("{second}<warm")), "{told}");
}

/// The whole word of `s` on a content of one piece.
fn proof() -> Arc<Proof> {
    let batch = protocol::PieceBatch {
        task: task(),
        attempt: AttemptId(1),
        layout: protocol::Layout::for_size(Some(9)),
        visibility: protocol::Visibility::Public,
        digests: vec![(protocol::PieceIndex(0), [7; 32])],
    };
    let batch = protocol::SignedBatch {
        batch,
        certificate: Vec::new(),
        signature: Vec::new(),
    };
    Arc::new(Proof::new(batch, None).unwrap())
}

#[test]
fn what_proves_a_small_content_goes_with_parents_that_hold_it() {
    let mut engine = Engine::new(limits(), Vec::new());
    let now = epoch();
    let proves = |id: &str| Event::Said(id.parse().unwrap(), Up::Proves(proof()));
    let given = |engine: &mut Engine| {
        let told = std::iter::from_fn(|| engine.poll_command()).last();
        match told.map(|command| command.down) {
            Some(Down::Parents { proof, .. }) => proof,
            other => panic!("{other:?}"),
        }
    };
    play(
        &mut engine,
        now,
        "s seeds; s registers; x joins; a joins; a registers",
    );
    engine.handle(now, proves("x"));
    engine.handle(now, event(&["b", "joins"]));
    engine.handle(now, event(&["b", "registers"]));
    assert_eq!(given(&mut engine), None, "x takes no part in the task");
    engine.handle(now, proves("s"));
    engine.handle(now, event(&["c", "joins"]));
    engine.handle(now, event(&["c", "registers"]));
    assert_eq!(given(&mut engine), None, "the seed does not hold it yet");
    play(
        &mut engine,
        now,
        "a leaves; b leaves; c leaves; s completes; d joins",
    );
    engine.handle(now, event(&["d", "registers"]));
    assert_eq!(given(&mut engine), Some(proof()));
}
