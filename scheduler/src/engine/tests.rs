//! The engine by scripts: what hosts say, line by line, and what they are told for it.

use std::time::{Duration, Instant};

use protocol::{
    AttemptId, Candidate, ContentKind, Digest, Down, Host, HostId, Origin, PieceSet, Proof, TaskId,
    Up,
    scheduler::{Failure, Hello, Outcome, ParentFailure},
};

use super::{Command, Engine, Event, Limits, Refusal};

mod exchange;
mod expiry;
mod spoiled;

/// Plays `script` and renders what is told, `host<what`, space-separated.
///
/// A line is `host joins`, `host seeds` (joins as a seed), `host leaves`, `host <verb> [argument]`
/// about the one task, or `after <milliseconds>`.
#[track_caller]
fn check(script: &str, expect: &str) {
    check_with(limits(), script, expect);
}

#[track_caller]
fn check_with(limits: Limits, script: &str, expect: &str) {
    let mut engine = Engine::new(limits, Vec::new());
    assert_eq!(play(&mut engine, epoch(), script).0, expect, "{script}");
}

pub(super) fn play(engine: &mut Engine, start: Instant, script: &str) -> (String, Instant) {
    let mut now = start;
    let mut told = Vec::new();
    for line in script
        .split(';')
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["after", wait] = words[..] {
            let end = now + Duration::from_millis(wait.parse().unwrap());
            while let Some(at) = engine.poll_timeout().filter(|at| *at <= end) {
                now = now.max(at);
                engine.handle_timeout(now);
                told.extend(std::iter::from_fn(|| engine.poll_command()).map(render));
            }
            now = end;
        } else {
            engine.handle(now, event(&words));
            told.extend(std::iter::from_fn(|| engine.poll_command()).map(render));
        }
    }
    (told.join(" "), now)
}

fn event(words: &[&str]) -> Event {
    let task = task();
    let id = words[0].parse::<HostId>().unwrap();
    let argument = words.get(2).copied().unwrap_or("");
    let up = match words[1] {
        "joins" => return Event::Joined(hello(words[0], false, argument.parse().unwrap_or(8))),
        "seeds" => return Event::Joined(hello(words[0], true, argument.parse().unwrap_or(8))),
        "leaves" => return Event::Left(id),
        "registers" => Up::Register {
            task,
            origin: origin(),
            wants: Vec::new(),
        },
        "holds" => Up::Held { tasks: vec![task] },
        "drops" => Up::Dropped { tasks: vec![task] },
        "progresses" => {
            let count = argument.parse().unwrap();
            let new = PieceSet::of_range(0..count);
            let attempt = words.get(3).map_or(1, |word| word.parse().unwrap());
            Up::Progress {
                task,
                attempt: AttemptId(attempt),
                total: Some(8),
                new,
            }
        }
        "blames" => {
            let reason = match words.get(3) {
                Some(&"busy") => ParentFailure::Busy,
                Some(&"lies") => ParentFailure::Lied,
                Some(_) | None => ParentFailure::Unreachable,
            };
            Up::ParentFailed {
                task,
                parent: argument.parse().unwrap(),
                reason,
            }
        }
        "completes" => Up::Finished {
            task,
            outcome: Outcome::Complete,
        },
        "stops" => Up::Finished {
            task,
            outcome: Outcome::Left,
        },
        "fails" => {
            let failure = match argument {
                "refused" => Failure::Refused,
                "notfound" => Failure::NotFound,
                "corrupt" => Failure::Corrupt,
                "local" => Failure::Local,
                _ => Failure::Unavailable,
            };
            Up::Finished {
                task,
                outcome: Outcome::Failed(failure),
            }
        }
        "loads" => Up::Load {
            uploads: argument.parse().unwrap(),
            upload_rate: 0,
        },
        other => panic!("no verb {other}"),
    };
    Event::Said(id, up)
}

fn render(command: Command) -> String {
    let what = match command.down {
        Down::Parents {
            parents,
            siblings,
            fetcher,
            ..
        } => {
            let fetcher = fetcher.map_or_else(String::new, |id| format!("!{id}"));
            let siblings = match names(&siblings) {
                names if names.is_empty() => names,
                names => format!("~{names}"),
            };
            format!("{}{siblings}{fetcher}", names(&parents))
        }
        Down::Wait { .. } => "wait".to_owned(),
        Down::BackToSource { epoch, holders, .. } => match names(&holders) {
            names if names.is_empty() => format!("source{epoch}"),
            names => format!("source{epoch}({names})"),
        },
        Down::Warm { .. } => "warm".to_owned(),
        Down::OnYourOwn { reason, .. } => format!("alone:{reason:?}"),
        Down::Drop { attempt, .. } => format!("drop{}", attempt.0),
    };
    format!("{}<{what}", command.host)
}

fn names(candidates: &[Candidate]) -> String {
    let names: Vec<_> = candidates.iter().map(|one| one.host.id.as_str()).collect();
    names.join("+")
}

pub(super) fn hello(name: &str, is_seed: bool, upload_slots: u32) -> Hello {
    let host = Host {
        id: name.parse().unwrap(),
        address: "127.0.0.1:1".parse().unwrap(),
    };
    Hello {
        host,
        is_seed,
        upload_slots,
        idc: None,
        location: None,
    }
}

pub(super) fn task() -> TaskId {
    TaskId(Digest::sha256_of(b"the task"))
}

pub(super) fn origin() -> Origin {
    Origin {
        registry: "r.example".parse().unwrap(),
        repository: "a/b".parse().unwrap(),
        kind: ContentKind::Blob,
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        settle: Duration::ZERO,
        reserved_children: 0,
        siblings_max: 0,
        // These hosts say only what a script has them say.
        host_silence: Duration::from_secs(3600),
        host_expiry: Duration::from_secs(3600),
        ..Limits::default()
    }
}

fn with_siblings(siblings_max: usize) -> Limits {
    Limits {
        siblings_max,
        ..limits()
    }
}

#[expect(clippy::disallowed_methods, reason = "any origin will do")]
pub(super) fn epoch() -> Instant {
    Instant::now()
}

/// The seed that the ring names for the task, and the other one.
pub(super) fn ring() -> (&'static str, &'static str) {
    let ids = ["s", "t"].map(|name| name.parse::<HostId>().unwrap());
    let first = protocol::ring::responsible(task(), &ids).unwrap();
    if first.as_str() == "s" {
        ("s", "t")
    } else {
        ("t", "s")
    }
}

#[test]
fn a_cold_task_is_warmed_by_the_seed_once() {
    check(
        "s seeds; a joins; b joins; a registers; b registers; s registers",
        "s<warm a<wait b<wait s<source1 a<s b<s+a",
    );
}

#[test]
fn the_seed_of_the_ring_is_the_fetcher_for_everybody() {
    let (first, second) = ring();
    check(
        &format!("s seeds; t seeds; {second} registers; {first} registers"),
        &format!("{first}<warm {second}<wait {first}<source1 {second}<{first}"),
    );
    check(
        &format!("s seeds; t seeds; {first} registers"),
        &format!("{first}<source1"),
    );
}

#[test]
fn without_a_seed_the_first_registrant_gets_the_grant() {
    check(
        "a joins; b joins; a registers; b registers",
        "a<source1 b<a!a",
    );
}

#[test]
fn a_herd_that_settles_finds_one_fetcher() {
    let settling = || Limits {
        settle: Duration::from_millis(50),
        ..Limits::default()
    };
    let herd = "a joins; b joins; a registers; after 20; b registers";
    check_with(settling(), herd, "a<wait b<wait");
    check_with(
        settling(),
        &format!("{herd}; after 30"),
        "a<wait b<wait a<source1 b<a!a",
    );
    let late = format!("{herd}; s seeds; after 30");
    check_with(settling(), &late, "a<wait b<wait s<warm");
}

#[test]
fn a_holder_is_a_parent_at_once_and_no_more_once_it_dropped() {
    check("h joins; h holds; a joins; a registers", "a<h");
    check(
        "h joins; h holds; h drops; a joins; a registers",
        "a<source1",
    );
    check(
        "h joins; h holds; h leaves; h joins; h holds; a joins; a registers",
        "a<h",
    );
}

#[test]
fn the_last_holder_gone_the_children_are_answered_again() {
    check(
        "h joins; h holds; a joins; a registers; h drops",
        "a<h a<source1",
    );
    check(
        "s seeds; h joins; h holds; a joins; a registers; h leaves",
        "a<h s<warm a<wait",
    );
}

#[test]
fn who_completes_is_a_parent_whose_signature_still_counts() {
    check(
        "a joins; a registers; a completes; b joins; b registers",
        "a<source1 b<a!a",
    );
}

#[test]
fn a_silent_fetcher_loses_its_grant() {
    check(
        "s seeds 1; a joins; a registers; s registers; after 6000",
        "s<warm a<wait s<source1 a<s a<source2 s<a!a",
    );
    check(
        "a joins; a registers; after 5000; a progresses 1; after 5000",
        "a<source1",
    );
}

#[test]
fn a_seed_that_never_registers_is_passed_over() {
    let (first, second) = ring();
    check(
        "s seeds; t seeds; a joins; a registers; after 6000",
        &format!("{first}<warm a<wait a<wait {second}<warm"),
    );
}

#[test]
fn a_fetcher_that_lives_and_does_not_move_loses_its_grant_in_the_end() {
    let alive = "a progresses 0; b loads 0; after 4000;".repeat(16);
    check(
        &format!("a joins; b joins; a registers; b registers; {alive}"),
        "a<source1 b<a!a b<source2 a<b!b",
    );
}

#[test]
fn a_fetcher_that_left_or_failed_hands_the_grant_on() {
    let herd = "a joins; b joins; a registers; b registers;";
    for end in [
        "a stops",
        "a leaves",
        "a fails unavailable",
        "a fails local",
        "a fails corrupt",
    ] {
        check(&format!("{herd} {end}"), "a<source1 b<a!a b<source2");
    }
}

#[test]
fn what_the_source_refuses_a_seed_one_of_those_who_want_it_brings() {
    let herd = "s seeds; a joins; b joins; a registers; b registers; s registers;";
    let told = "s<warm a<wait b<wait s<source1 a<s b<s+a";
    let granted = "a<source2 b<a!a";
    check(
        &format!("{herd} s fails refused"),
        &format!("{told} {granted}"),
    );
    check(
        &format!("{herd} s fails refused; a fails refused"),
        &format!("{told} {granted} b<source3"),
    );
}

#[test]
fn what_the_source_refuses_three_who_want_it_everybody_asks_alone() {
    let herd = "s seeds; a joins; b joins; c joins; d joins; a registers; s fails refused;";
    let told = "s<warm a<wait a<source1";
    check(
        &format!(
            "{herd} b registers; c registers; d registers; a fails refused; b fails refused; \
             c fails refused; d registers; after 5000; d registers"
        ),
        &format!(
            "{told} b<a!a c<b+a!a d<c+b+a!a b<source2 c<b!b d<c+b!b c<source3 d<c!c \
             d<alone:Refused d<alone:Refused s<warm d<wait"
        ),
    );
}

#[test]
fn a_warmed_seed_may_refuse_before_it_registers() {
    check(
        "s seeds; a joins; a registers; s fails notfound",
        "s<warm a<wait a<source1",
    );
    // A host has shown what it has: what is not there then is not there.
    check(
        "s seeds; a joins; b joins; a registers; b registers; s fails notfound; a fails notfound",
        "s<warm a<wait b<wait a<source1 b<a!a b<alone:NotFound",
    );
}

#[test]
fn after_three_lost_fetchers_everybody_asks_alone() {
    check(
        "a joins; b joins; c joins; d joins; a registers; a fails; a registers; a fails; \
         a registers; a fails; b registers; after 5000; b registers",
        "a<source1 a<source2 a<source3 b<alone:Unavailable b<source4",
    );
    check(
        "a joins; b joins; c joins; d joins; a registers; b registers; c registers; d registers; \
         a leaves; b leaves; c leaves",
        "a<source1 b<a!a c<b+a!a d<c+b+a!a b<source2 c<b!b d<c+b!b c<source3 d<c!c \
         d<alone:Unavailable",
    );
}

#[test]
fn a_parent_that_failed_a_child_is_replaced_for_that_child() {
    check(
        "h joins; i joins; h holds; i holds; a joins 8; a registers; a blames h; b joins; b registers",
        "a<h+i a<i b<i+h+a",
    );
    check(
        "h joins; h holds; a joins; a registers; a blames h",
        "a<h a<source1",
    );
    check(
        "h joins; h holds; a joins; a registers; a blames h busy; after 1000; a stops; \
         after 2000; a registers",
        "a<h a<source1 a<h",
    );
}

#[test]
fn a_child_without_a_way_to_a_living_fetcher_waits() {
    check(
        "s seeds; a joins; a registers; s registers; a blames s busy; s progresses 1; after 3000",
        "s<warm a<wait s<source1 a<s a<wait a<s",
    );
}

#[test]
fn who_finds_its_parent_gone_after_it_was_told_to_wait_is_told_again() {
    let mut engine = Engine::new(limits(), vec!["s".parse().unwrap()]);
    let script = "s seeds; a joins; a registers; s registers; s leaves; a blames s";
    let (told, _) = play(&mut engine, epoch(), script);
    assert_eq!(told, "s<warm a<wait s<source1 a<s a<wait a<wait");
}

#[test]
fn a_full_seed_makes_the_child_wait_until_a_slot_is_free() {
    check(
        "s seeds 1; s holds; a joins 0; b joins; a registers; b registers; a completes",
        "a<s b<wait b<s",
    );
}

#[test]
fn who_waits_for_a_busy_holder_that_leaves_is_answered() {
    check(
        "h joins 1; h holds; h loads 1; a joins; a registers; h leaves",
        "a<wait a<source1",
    );
}

#[test]
fn a_host_full_with_other_tasks_still_feeds_two_children() {
    let reserved = Limits {
        reserved_children: 2,
        ..limits()
    };
    check_with(
        reserved,
        "s seeds 1; s holds; s loads 1; a joins 0; b joins 0; c joins 0; \
         a registers; b registers; c registers; a stops",
        "a<s b<s c<wait c<s",
    );
}

#[test]
fn waits_are_renewed_while_the_fetcher_lives() {
    check(
        "s seeds 0; a joins; a registers; s registers; after 4000; s progresses 1; after 4000",
        "s<warm a<wait s<source1 a<wait a<wait",
    );
}

#[test]
fn a_living_fetcher_that_nobody_reaches_for_long_loses_its_grant() {
    let alive = "s progresses 1; after 5000;".repeat(4);
    let script = format!("s seeds 0; a joins; a registers; s registers; {alive}");
    let waits = "a<wait ".repeat(5);
    check(
        &script,
        &format!("s<warm a<wait s<source1 {waits}a<source2(s) s<wait s<a!a"),
    );
}

#[test]
fn a_new_fetcher_has_time_to_be_of_use_to_those_who_starved_by_the_one_before() {
    let alive = "s progresses 1; after 5000;".repeat(4);
    let script = format!(
        "s seeds 0; a joins; b joins; a registers; b registers; a blames b; s registers; {alive}"
    );
    let mut engine = Engine::new(limits(), Vec::new());
    let (told, now) = play(&mut engine, epoch(), &script);
    assert!(told.contains("b<source2(s)"), "{told}");
    assert!(!told.contains("a<source"), "{told}");
    let more = "b progresses 1; after 5000; b progresses 1; after 5000";
    let (told, _) = play(&mut engine, now, more);
    assert_eq!(told.replace("a<wait", "").trim(), "", "{told}");
}

#[test]
fn who_can_be_fed_by_its_own_children_alone_lets_them_go() {
    let alive = "s progresses 1; after 2000;".repeat(2);
    check(
        &format!(
            "s seeds 1; a joins; b joins; s registers; a registers; b registers; a blames s; {alive}"
        ),
        "s<source1 a<s b<a a<wait a<b b<s",
    );
}

#[test]
fn where_nobody_holds_the_whole_no_slot_is_waited_for() {
    let chains = "s seeds 3; s registers; a joins 1; b joins 1; c joins 1; d joins 1; a registers; \
                  a loads 1; b registers; b loads 1; s loads 3; a loads 0; c registers; c loads 1; \
                  b loads 0; d registers; d loads 1;";
    check(
        &format!("{chains} s leaves"),
        "s<source1 a<s b<s c<a d<b a<source2 b<wait c<a!a d<b!a",
    );
}

#[test]
fn who_alone_has_no_way_to_a_living_fetcher_for_long_asks_alone() {
    let alive = "s progresses 1; after 5000;".repeat(4);
    let cut_off = "a blames s; a blames b";
    let script = format!(
        "s seeds; a joins; b joins; s registers; b registers; a registers; {cut_off}; {alive}"
    );
    let mut engine = Engine::new(limits(), Vec::new());
    let (told, _) = play(&mut engine, epoch(), &script);
    assert!(told.ends_with("a<wait a<alone:Unavailable"), "{told}");
}

#[test]
fn where_all_fetchers_failed_one_after_another_asks_alone() {
    let limits = Limits {
        attempts_max: 1,
        failure_memory: Duration::from_millis(250),
        ..limits()
    };
    let herd = ["a", "b", "c", "d", "e", "f"].map(|host| format!("{host} joins; "));
    let all = ["a", "b", "c", "d", "e", "f"].map(|host| format!("{host} registers; "));
    let script = format!(
        "{}{}a fails; after 200; after 100",
        herd.concat(),
        all.concat()
    );
    let mut engine = Engine::new(limits, Vec::new());
    let (told, _) = play(&mut engine, epoch(), &script);
    let after = told.split_once("f<").unwrap().1;
    let alone: Vec<_> = after
        .split(' ')
        .filter(|told| told.contains("alone"))
        .collect();
    assert_eq!(
        alone,
        [
            "b<alone:Unavailable",
            "c<alone:Unavailable",
            "d<alone:Unavailable"
        ]
    );
    // Those who had to wait profit from the next try for all.
    assert!(after.ends_with("e<source2 f<e!e"), "{after}");
}

#[test]
fn tasks_that_failed_together_take_turns_at_the_upstream() {
    let limits = Limits {
        attempts_max: 1,
        ..limits()
    };
    let mut engine = Engine::new(limits, Vec::new());
    let tasks = [b"one", b"two"].map(|bytes| TaskId(Digest::sha256_of(bytes)));
    let now = epoch();
    for (name, task) in ["a", "b", "c", "d", "e", "f", "g", "h"]
        .iter()
        .zip(tasks.iter().cycle())
    {
        engine.handle(now, Event::Joined(hello(name, false, 8)));
        let up = Up::Register {
            task: *task,
            origin: origin(),
            wants: Vec::new(),
        };
        engine.handle(now, Event::Said(name.parse().unwrap(), up));
    }
    for (name, task) in ["a", "b"].iter().zip(tasks) {
        let outcome = Outcome::Failed(Failure::Unavailable);
        let up = Up::Finished { task, outcome };
        engine.handle(now, Event::Said(name.parse().unwrap(), up));
    }
    let mut alone = |now| {
        engine.handle_timeout(now);
        let told = std::iter::from_fn(|| engine.poll_command());
        let alone = told.filter(|command| matches!(command.down, Down::OnYourOwn { .. }));
        let hosts: Vec<String> = alone.map(|command| command.host.to_string()).collect();
        hosts.concat()
    };
    let turns = (0..6).map(|turn| alone(now + Duration::from_millis(100) * turn));
    assert_eq!(turns.collect::<Vec<_>>(), ["c", "e", "d", "g", "f", "h"]);
}

#[test]
fn a_turn_at_the_upstream_that_nobody_takes_passes() {
    let limits = Limits {
        attempts_max: 1,
        ..limits()
    };
    let mut engine = Engine::new(limits, Vec::new());
    let script = "a joins; b joins; c joins; a registers; b registers; c registers; a fails; \
                  h joins 1; h loads 1; h holds";
    let (told, now) = play(&mut engine, epoch(), script);
    assert!(told.ends_with("b<alone:Unavailable c<wait"), "{told}");
    let its_turn = engine.poll_timeout().unwrap();
    assert_eq!(its_turn, now + Duration::from_millis(100));
    engine.handle_timeout(its_turn);
    assert!(engine.poll_timeout().is_some_and(|at| its_turn < at));
}

#[test]
fn a_seed_that_lives_has_time_to_begin() {
    let (first, second) = ring();
    let alive = format!("after 3000; {first} loads 0;").repeat(5);
    check(
        &format!("s seeds; t seeds; a joins; a registers; {alive} {first} registers"),
        &format!("{first}<warm a<wait a<wait a<wait a<wait {first}<source1 a<{first}"),
    );
    let alive = format!("after 3000; {first} loads 0;").repeat(22);
    let mut engine = Engine::new(limits(), Vec::new());
    let script = format!("s seeds; t seeds; a joins; a registers; {alive}");
    let (told, _) = play(&mut engine, epoch(), &script);
    assert!(told.contains(&format!("{second}<warm")), "{told}");
}

#[test]
fn no_parent_is_given_to_its_own_descendant() {
    check(
        "s seeds 1; a joins 1; b joins 1; a registers; s registers; b registers; s leaves",
        "s<warm a<wait s<source1 a<s b<a a<source2 b<a!a",
    );
}

#[test]
fn beyond_the_bounds_a_host_asks_alone() {
    let one = || Limits {
        tasks_per_host_max: 0,
        ..limits()
    };
    check_with(one(), "a joins; a registers", "a<alone:Local");
    let one = || Limits {
        tasks_max: 0,
        ..limits()
    };
    check_with(one(), "a joins; a registers; a holds", "a<alone:Local");
    let one = || Limits {
        peers_per_task_max: 1,
        ..limits()
    };
    check_with(
        one(),
        "a joins; b joins; a registers; b registers",
        "a<source1 b<alone:Local",
    );
    let one = || Limits {
        hosts_max: 1,
        ..limits()
    };
    check_with(one(), "a joins; b joins; b registers", "");
}

#[test]
fn what_nobody_wants_is_forgotten() {
    let mut engine = Engine::new(limits(), Vec::new());
    let script = "s seeds; a joins; a registers; a stops; after 6000; s holds; s drops";
    let (_, now) = play(&mut engine, epoch(), script);
    let script = "a joins; b joins; a registers; b registers; a stops; b stops; after 700000";
    play(&mut engine, now, script);
    assert_eq!(engine.counts(), (3, 0));
    assert!(engine.timers.is_empty());
}

#[test]
fn why_this_parent_can_be_asked() {
    let mut engine = Engine::new(limits(), Vec::new());
    let script = "s seeds; s holds; z joins 0; z holds; a joins; a registers; b joins; b registers; \
                  b blames a";
    let (_, now) = play(&mut engine, epoch(), script);
    let explained = engine.explain(now, task(), &"b".parse().unwrap(), 9);
    let refusals: Vec<_> = explained
        .iter()
        .map(|one| (one.candidate.as_str(), one.verdict.err()))
        .collect();
    assert_eq!(
        refusals,
        [
            ("s", None),
            ("z", Some(Refusal::ServesNobody)),
            ("a", Some(Refusal::FailedForChild)),
            ("b", Some(Refusal::Itself)),
        ]
    );
    let score = explained[0].verdict.unwrap();
    // All pieces, three of four slots free, no rate shown, nobody failed, a seed, no place told.
    let expect = 0.25 + 0.20 * 0.75 + 0.15 * 0.5 + 0.10 + 0.10;
    assert!((score.total() - expect).abs() < 1e-9, "{score:?}");
}

#[test]
fn who_has_few_parents_is_given_those_that_come_later() {
    check(
        "s seeds; s holds; a joins; a registers; h joins; h holds",
        "a<s a<s+h",
    );
    check(
        "s seeds; s holds; a joins; b joins; a registers; b registers; b completes; b drops",
        "a<s b<s+a a<s+b a<s",
    );
}

#[test]
fn a_near_parent_is_better_than_a_far_one() {
    let mut engine = Engine::new(limits(), Vec::new());
    let now = epoch();
    for (name, idc) in [("far", "x"), ("near", "y"), ("a", "y")] {
        let hello = Hello {
            idc: Some(idc.to_owned()),
            ..hello(name, false, 8)
        };
        engine.handle(now, Event::Joined(hello));
    }
    let (told, _) = play(&mut engine, now, "far holds; near holds; a registers");
    assert_eq!(told, "a<near+far");
}
