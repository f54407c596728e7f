//! Orders by scripts: what hosts say, line by line, whom the orders make begin, and how they end.

use std::time::{Duration, Instant};

use protocol::{
    TaskId,
    operator::{PreheatFailure, PreheatOrder, PreheatProgress, PreheatState, Scope},
};

use crate::engine::{
    Engine,
    tests::{epoch, limits, origin, play, ring, task},
};

/// An engine in which one order was given, and where that stands.
struct Scenario {
    engine: Engine,
    now: Instant,
    number: u64,
    progress: PreheatProgress,
}

impl Scenario {
    /// Plays `before`, then gives an order for the one task. `told` is whom that tells.
    #[track_caller]
    fn begin(scope: Scope, before: &str, told: &str) -> Self {
        let mut engine = Engine::new(limits(), Vec::new());
        let (_, now) = play(&mut engine, epoch(), before);
        let number = engine.preheat(now, order(scope, [task()])).unwrap();
        let mut scenario = Self {
            engine,
            now,
            number,
            progress: PreheatProgress::default(),
        };
        scenario.then("", told);
        scenario
    }

    /// Plays `script` and a step of the order after it.
    #[track_caller]
    fn then(&mut self, script: &str, told: &str) {
        let script = format!("{script}; after 200");
        let (seen, now) = play(&mut self.engine, self.now, &script);
        self.now = now;
        assert_eq!(seen, told, "{script}");
        while let Some((number, progress)) = self.engine.poll_preheat() {
            assert_eq!(number, self.number);
            self.progress = progress;
        }
    }

    /// The progress as `held/wanted pieces/total`, and the state where it is over.
    #[track_caller]
    fn stands(&self, expect: &str) {
        let [task] = self.progress.tasks[..] else {
            panic!("{:?}", self.progress);
        };
        let total = task.total.map_or("?".to_owned(), |total| total.to_string());
        let state = match task.state {
            PreheatState::Running => String::new(),
            PreheatState::Done => " done".to_owned(),
            PreheatState::Failed(PreheatFailure::Source(failure)) => format!(" {failure:?}"),
            PreheatState::Failed(failure) => format!(" {failure:?}"),
        };
        let (held, wanted) = (task.held, task.wanted);
        let told = format!("{held}/{wanted} {}/{total}{state}", task.pieces);
        assert_eq!(told, expect);
    }
}

fn order(scope: Scope, tasks: impl IntoIterator<Item = TaskId>) -> PreheatOrder {
    let tasks = tasks.into_iter().map(|task| (task, origin()));
    PreheatOrder {
        tasks: tasks.collect(),
        scope,
    }
}

#[test]
fn a_seed_is_told_once_and_followed_to_the_end() {
    let mut scenario = Scenario::begin(Scope::Seeds, "s seeds; a joins", "s<warm");
    scenario.stands("0/1 0/?");
    scenario.then("s registers", "s<source1");
    scenario.then("s progresses 3", "");
    scenario.stands("0/1 3/8");
    scenario.then("s completes", "");
    scenario.stands("1/1 8/8 done");
    scenario.then("after 60000", "");
}

#[test]
fn what_is_held_is_done_at_once() {
    let scenario = Scenario::begin(Scope::Seeds, "s seeds; s holds", "");
    scenario.stands("1/1 0/? done");
    let scenario = Scenario::begin(Scope::AllHosts, "s seeds; a joins; s holds; a holds", "");
    scenario.stands("2/2 0/? done");
}

#[test]
fn the_seed_of_the_ring_is_told_and_another_when_it_fails() {
    let (first, second) = ring();
    let warm = format!("{first}<warm");
    let mut scenario = Scenario::begin(Scope::Seeds, "s seeds; t seeds", &warm);
    scenario.then(&format!("{first} leaves"), &format!("{second}<warm"));
    scenario.then(
        &format!("{second} registers; {second} completes"),
        &format!("{second}<source1"),
    );
    scenario.stands("1/1 0/? done");
}

#[test]
fn the_others_are_told_once_the_source_gives_something() {
    let before = "s seeds; a joins; b joins";
    let mut scenario = Scenario::begin(Scope::AllHosts, before, "s<warm");
    scenario.then("s registers", "s<source1");
    scenario.then("after 5000", "");
    scenario.then("s progresses 1", "a<warm b<warm");
    scenario.stands("0/3 1/8");
    scenario.then("a registers; a progresses 2", "a<s");
    scenario.stands("0/3 3/8");
    scenario.then("s completes; a completes; b registers", "b<s+a");
    scenario.stands("2/3 16/8");
    scenario.then("b completes", "");
    scenario.stands("3/3 24/8 done");
}

#[test]
fn a_host_that_came_later_is_not_told_and_one_that_left_is_not_waited_for() {
    let before = "s seeds; a joins; b joins; s holds";
    let mut scenario = Scenario::begin(Scope::AllHosts, before, "a<warm b<warm");
    scenario.then("c joins; a leaves; b registers; b completes", "b<s");
    scenario.stands("2/2 0/? done");
}

#[test]
fn without_a_seed_one_host_begins_if_all_are_to_have_it() {
    Scenario::begin(Scope::Seeds, "a joins", "").stands("0/1 0/? NoHost");
    Scenario::begin(Scope::AllHosts, "", "").stands("0/0 0/? NoHost");
    let mut scenario = Scenario::begin(Scope::AllHosts, "a joins", "a<warm");
    scenario.then(
        "b joins; a registers; a progresses 1; a completes",
        "a<source1",
    );
    scenario.stands("1/1 8/8 done");
}

#[test]
fn a_source_that_refuses_is_asked_by_one_host() {
    let before = "s seeds; t seeds; a joins; b joins";
    let (first, _) = ring();
    let warm = format!("{first}<warm");
    let mut scenario = Scenario::begin(Scope::AllHosts, before, &warm);
    let refused = format!("{first} registers; {first} fails refused");
    scenario.then(&refused, &format!("{first}<source1"));
    scenario.stands("0/4 0/? Refused");
    scenario.then("after 60000", "");
}

#[test]
fn a_host_that_does_not_begin_is_told_again_and_then_given_up() {
    let mut scenario = Scenario::begin(Scope::Seeds, "s seeds", "s<warm");
    scenario.then("after 9000", "");
    scenario.then("s loads 0; after 1000", "s<warm");
    scenario.then("s loads 0; after 10000", "s<warm");
    scenario.then("s loads 0; after 10000", "");
    scenario.stands("0/1 0/? Stuck");
}

#[test]
fn a_host_that_fails_is_told_again_after_a_pause() {
    let before = "s seeds; a joins; s holds";
    let mut scenario = Scenario::begin(Scope::AllHosts, before, "a<warm");
    scenario.then("a registers; a fails local", "a<s");
    scenario.then("after 1500", "");
    scenario.then("after 500", "a<warm");
    scenario.then("a registers; a fails local; after 2000", "a<s a<warm");
    scenario.then("a registers; a fails local; after 2000", "a<s");
    scenario.stands("1/2 0/? Local");
}

#[test]
fn a_host_that_gets_no_piece_is_given_up() {
    let before = "s seeds; a joins; s holds";
    let mut scenario = Scenario::begin(Scope::AllHosts, before, "a<warm");
    scenario.then("a registers; a progresses 1", "a<s");
    scenario.then("after 119000", "");
    scenario.stands("1/2 9/8");
    scenario.then("after 1000", "");
    scenario.stands("1/2 8/8 Stuck");
}

#[test]
fn no_more_hosts_are_told_at_once_than_may_be() {
    let crowd: Vec<_> = (0..300).map(|number| format!("h{number} joins")).collect();
    let before = format!("s seeds; s holds; {}", crowd.join("; "));
    let mut engine = Engine::new(limits(), Vec::new());
    let (_, now) = play(&mut engine, epoch(), &before);
    engine
        .preheat(now, order(Scope::AllHosts, [task()]))
        .unwrap();
    let (told, now) = play(&mut engine, now, "after 1000");
    assert_eq!(told.split(' ').count(), super::heating::HOSTS_AT_ONCE);
    let (told, _) = play(&mut engine, now, "h0 holds; h1 holds; after 200");
    assert_eq!(told, "h256<warm h257<warm");
}

#[test]
fn no_more_tasks_are_begun_at_once_than_may_be() {
    let tasks = |count: u32| {
        let digest = |number: u32| protocol::Digest::sha256_of(&number.to_le_bytes());
        (0..count).map(move |number| TaskId(digest(number)))
    };
    let mut engine = Engine::new(limits(), Vec::new());
    let (_, now) = play(&mut engine, epoch(), "s seeds");
    engine
        .preheat(now, order(Scope::Seeds, tasks(100)))
        .unwrap();
    let (told, now) = play(&mut engine, now, "after 1000");
    assert_eq!(told.split(' ').count(), super::TASKS_AT_ONCE);
    let too_many = engine.preheat(now, order(Scope::Seeds, tasks(1025)));
    assert!(too_many.is_err());
    for _ in 1..super::ORDERS_MAX {
        engine.preheat(now, order(Scope::Seeds, tasks(1))).unwrap();
    }
    let one_more = engine.preheat(now, order(Scope::Seeds, tasks(1)));
    assert!(one_more.is_err_and(|problem| problem.contains("are open")));
    engine.end_preheat(0);
    engine
        .preheat(now + Duration::from_secs(1), order(Scope::Seeds, []))
        .unwrap();
}

#[test]
fn an_order_that_has_ended_tells_nobody_more() {
    let mut scenario = Scenario::begin(Scope::AllHosts, "s seeds; a joins", "s<warm");
    scenario.engine.end_preheat(scenario.number);
    scenario.then("s registers; s progresses 4", "s<source1");
    assert_eq!(scenario.engine.poll_preheat(), None);
    scenario.then("s completes", "");
    assert_eq!(scenario.engine.preheat_due(), None);
}
