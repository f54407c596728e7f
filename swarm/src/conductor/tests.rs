//! The conductor by data: a script of events, and the actions it must cause.

use std::ops::Range;

use super::*;

mod properties;

const KIB256: u64 = 256 << 10;

/// One step of a script: an event, or the clock reaching the next deadline.
enum Step {
    Is(Event),
    Wait,
    /// So many milliseconds pass, and nothing is due.
    Pass(u64),
}
use Step::{Is, Pass, Wait};

fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

fn reader(interest: Interest) -> Step {
    Is(Event::ReaderJoined(ReaderId(1), interest))
}

fn whole() -> Step {
    reader(Interest::ToEnd { offset: 0 })
}

fn begun(pieces: u64) -> Step {
    Is(Event::Begun(Layout::for_size(Some(pieces * KIB256))))
}

fn at_source() -> Step {
    Is(Event::AtSource(Vec::new()))
}

fn holds(name: &str, pieces: Range<u32>) -> Step {
    Is(Event::Holds(host(name), PieceSet::of_range(pieces)))
}

fn candidates(names: &[&str]) -> Step {
    related(names, Relation::Parent)
}

fn siblings(names: &[&str]) -> Step {
    related(names, Relation::Sibling)
}

fn related(names: &[&str], relation: Relation) -> Step {
    let candidates = names.iter().map(|name| (host(name), relation));
    Is(Event::Candidates(candidates.collect()))
}

fn brought(name: &str, index: u32) -> Step {
    Is(Event::Brought(host(name), PieceIndex(index)))
}

fn had(index: u32) -> Step {
    Is(Event::Had(PieceIndex(index)))
}

fn limits() -> Limits {
    Limits {
        runs_per_supplier: 2,
        run_bytes: 2 * KIB256,
        near_bytes: 64 * KIB256,
        source_runs: 2,
        soon_bytes: 4 * KIB256,
        ..Limits::default()
    }
}

/// Plays `script` and renders each action it causes, space-separated.
#[track_caller]
fn check(script: Vec<Step>, expect: &str) {
    check_with(limits(), script, expect);
}

#[track_caller]
fn check_with(limits: Limits, script: Vec<Step>, expect: &str) {
    let mut now = epoch();
    let mut conductor = Conductor::new(limits, 0, PieceSet::default());
    let mut seen = Vec::new();
    for step in script {
        match step {
            Is(event) => conductor.handle(now, event),
            Wait => {
                now = conductor.poll_timeout(now).expect("nothing to wait for");
                conductor.handle_timeout(now);
            }
            Pass(milliseconds) => now += Duration::from_millis(milliseconds),
        }
        seen.extend(std::iter::from_fn(|| conductor.poll_action()).map(render));
    }
    assert_eq!(seen.join(" "), expect);
}

fn render(action: Action) -> String {
    match action {
        Action::Follow(parent) => format!("+{parent}"),
        Action::Leave(parent, failure) => format!("-{parent}:{failure:?}"),
        Action::Fetch {
            supplier, pieces, ..
        } => format!("{}..{}<-{supplier}", pieces.start, pieces.end),
        Action::Cancel { supplier, first } => format!("cancel-{first}<-{supplier}"),
        Action::StartSource {
            run,
            first,
            end: Some(end),
        } => format!("{first}..{end}<-source#{}", run.0),
        Action::StartSource {
            run,
            first,
            end: None,
        } => format!("{first}..<-source#{}", run.0),
        Action::StopSource(run) => format!("stop#{}", run.0),
        Action::LearnSize => "size?".to_owned(),
        Action::AskElsewhere => "else".to_owned(),
    }
}

#[expect(clippy::disallowed_methods, reason = "any origin will do")]
fn epoch() -> Instant {
    Instant::now()
}

#[test]
fn a_reader_at_its_end_and_one_past_every_end_want_nothing() {
    let mut conductor = Conductor::new(limits(), 0, PieceSet::default());
    let (offset, end) = (0, KIB256);
    let far = Interest::ToEnd { offset: u64::MAX };
    let span = Interest::Span { offset, end };
    conductor.handle(epoch(), Event::ReaderJoined(ReaderId(1), far));
    conductor.handle(epoch(), Event::ReaderJoined(ReaderId(2), span));
    assert_eq!(conductor.wants(), [span.want()]);
    conductor.handle(epoch(), Event::ReaderMoved(ReaderId(2), end));
    assert_eq!(conductor.wants(), []);
}

#[test]
fn of_another_attempt_nothing_is_known_to_be_held() {
    check(
        vec![
            whole(),
            candidates(&["p", "q"]),
            begun(8),
            holds("p", 0..1),
            Is(Event::Anew),
            begun(8),
            holds("q", 0..1),
        ],
        "+p +q 0..1<-p cancel-0<-p 0..1<-q",
    );
}

#[test]
fn a_whole_body_is_one_request_to_the_source() {
    check(
        vec![whole(), at_source(), begun(3), had(0), had(1), had(2)],
        "0..<-source#0",
    );
}

#[test]
fn a_second_reader_causes_no_second_request() {
    let second = Is(Event::ReaderJoined(
        ReaderId(2),
        Interest::ToEnd { offset: 0 },
    ));
    check(
        vec![whole(), at_source(), begun(9), second, had(0)],
        "0..<-source#0",
    );
}

#[test]
fn a_read_far_ahead_gets_a_range_that_the_main_fetch_skips() {
    let ahead = Interest::Span {
        offset: 8 * KIB256,
        end: 10 * KIB256,
    };
    let mut script = vec![whole(), at_source(), begun(20)];
    script.push(Is(Event::ReaderJoined(ReaderId(2), ahead)));
    script.extend([had(8), had(9)]);
    script.extend((0..8).map(had));
    script.extend((10..20).map(had));
    check(
        script,
        "0..<-source#0 8..10<-source#1 stop#1 stop#0 10..<-source#2",
    );
}

#[test]
fn a_read_a_little_ahead_waits() {
    let near = Interest::Span {
        offset: 3 * KIB256,
        end: 4 * KIB256,
    };
    let joined = Is(Event::ReaderJoined(ReaderId(2), near));
    check(
        vec![whole(), at_source(), begun(20), joined],
        "0..<-source#0",
    );
}

#[test]
fn an_open_range_asks_for_a_window_only() {
    let window = (interest::WINDOW / KIB256) as u32;
    let follow = reader(Interest::Follow { offset: 5 * KIB256 });
    let expect = format!("5..{}<-source#0", 5 + window);
    check(vec![begun(400), at_source(), follow], &expect);
}

#[test]
fn the_size_is_learnt_first_when_nobody_reads_the_whole() {
    let sized = |size: Option<u64>| Is(Event::Sized(size.map(|size| Layout::for_size(Some(size)))));
    let tail = || reader(Interest::Tail { length: 10 });
    let (offset, end) = (0, KIB256 + 1);
    let head = reader(Interest::Span { offset, end });
    check(
        vec![head, at_source(), sized(Some(5 * KIB256))],
        "size? 0..2<-source#0",
    );
    check(
        vec![tail(), at_source(), sized(Some(5 * KIB256))],
        "size? 4..<-source#0",
    );
    check(
        vec![tail(), at_source(), sized(None)],
        "size? 0..<-source#0",
    );
}

#[test]
fn the_least_busy_parent_is_asked() {
    check(
        vec![
            whole(),
            Is(Event::Asked),
            candidates(&["a", "b"]),
            begun(8),
            holds("a", 0..8),
            holds("b", 0..8),
        ],
        "+a +b 0..2<-a 2..4<-a 4..6<-b 6..8<-b",
    );
}

#[test]
fn a_run_ends_at_what_the_parent_lacks() {
    check(
        vec![
            whole(),
            candidates(&["a"]),
            begun(8),
            holds("a", 0..1),
            holds("a", 3..4),
        ],
        "+a 0..1<-a 3..4<-a",
    );
}

#[test]
fn what_a_lost_parent_owes_is_asked_of_another() {
    let gone = Is(Event::SupplierFailed(host("a"), ParentFailure::Unreachable));
    check(
        vec![
            whole(),
            candidates(&["a", "b"]),
            begun(2),
            holds("a", 0..2),
            holds("b", 0..2),
            gone,
        ],
        "+a +b 0..2<-a -a:Unreachable 0..2<-b",
    );
}

#[test]
fn a_silent_parent_is_left_and_at_last_the_source_is_asked() {
    check(
        vec![
            whole(),
            candidates(&["a"]),
            begun(2),
            holds("a", 0..2),
            Wait,
            Wait,
            at_source(),
        ],
        "+a 0..2<-a -a:Slow else 0..<-source#0",
    );
}

#[test]
fn a_silent_scheduler_is_not_waited_for() {
    check(
        vec![
            whole(),
            Is(Event::Asked),
            Wait,
            candidates(&["s"]),
            Is(Event::SupplierFailed(host("s"), ParentFailure::Gone)),
            Wait,
            at_source(),
        ],
        "else +s -s:Gone else 0..<-source#0",
    );
}

#[test]
fn patience_is_renewed_while_the_fetcher_lives() {
    let wait = |secs| Is(Event::Wait(Duration::from_secs(secs)));
    check(
        vec![
            whole(),
            Is(Event::Asked),
            wait(5),
            wait(9),
            candidates(&["s"]),
        ],
        "+s",
    );
}

#[test]
fn who_has_lost_the_grant_gets_the_rest_from_others() {
    check(
        vec![
            whole(),
            at_source(),
            begun(4),
            Is(Event::Had(PieceIndex(0))),
            Is(Event::GrantLost),
            candidates(&["a"]),
            holds("a", 0..4),
        ],
        "0..<-source#0 stop#0 +a 1..3<-a 3..4<-a",
    );
}

#[test]
fn a_late_answer_does_not_call_back_from_the_source() {
    check(
        vec![whole(), at_source(), candidates(&["a"])],
        "0..<-source#0",
    );
}

#[test]
fn siblings_spare_the_uplink_of_a_parent() {
    check(
        vec![
            whole(),
            candidates(&["a"]),
            siblings(&["b"]),
            begun(4),
            holds("b", 0..2),
            holds("a", 0..4),
        ],
        "+a +b 0..2<-b 2..4<-a",
    );
}

#[test]
fn beyond_the_window_the_rarest_piece_comes_first() {
    let limits = Limits {
        near_bytes: KIB256,
        run_bytes: KIB256,
        runs_per_supplier: 1,
        ..limits()
    };
    check_with(
        limits,
        vec![
            candidates(&["a"]),
            siblings(&["b"]),
            begun(8),
            holds("a", 0..8),
            holds("b", 0..6),
            whole(),
            brought("b", 0),
        ],
        // In order for the reader, then what only `a` has, then any that both have.
        "+a +b 0..1<-b 7..8<-a 3..4<-b",
    );
}

#[test]
fn a_busy_supplier_is_asked_again_a_little_later() {
    let refused = Is(Event::RunRefused(host("a"), 0));
    check(
        vec![
            whole(),
            candidates(&["a"]),
            begun(2),
            holds("a", 0..2),
            refused,
            Wait,
        ],
        "+a 0..2<-a 0..2<-a",
    );
}

#[test]
fn a_supplier_that_is_always_busy_is_left() {
    let limits = Limits {
        refusals_max: 2,
        ..limits()
    };
    let refused = || Is(Event::RunRefused(host("a"), 0));
    check_with(
        limits,
        vec![
            whole(),
            candidates(&["a"]),
            begun(2),
            holds("a", 0..2),
            refused(),
            Wait,
            refused(),
        ],
        "+a 0..2<-a 0..2<-a -a:Busy",
    );
}

#[test]
fn what_is_late_is_asked_of_another_who_could() {
    let script = vec![
        whole(),
        candidates(&["a"]),
        begun(4),
        holds("a", 0..4),
        Pass(100),
        brought("a", 0),
        brought("a", 1),
        siblings(&["b"]),
        holds("b", 2..4),
        // `b` is idle and has what `a` owes: first one late piece as a hedge, then all of it.
        Wait,
        Wait,
        Wait,
    ];
    check(script, "+a 0..2<-a 2..4<-a +b 2..3<-b cancel-2<-a 3..4<-b");
}

/// `a` and `b` hold it all; `a` brings a piece in four seconds, `b` in a tenth of one.
fn slow_and_fast() -> Vec<Step> {
    vec![
        candidates(&["a", "b"]),
        begun(40),
        holds("a", 0..1),
        whole(),
        Pass(4_000),
        brought("a", 0),
        holds("b", 1..2),
        Pass(100),
        brought("b", 1),
    ]
}

#[test]
fn what_a_fast_supplier_will_have_brought_sooner_is_not_asked_of_a_slow_one() {
    let limits = Limits {
        runs_per_supplier: 1,
        run_bytes: KIB256,
        ..limits()
    };
    let both = [holds("b", 2..8), holds("a", 0..8), brought("b", 2)];
    let script = slow_and_fast().into_iter().chain(both).collect();
    check_with(limits, script, "+a +b 0..1<-a 1..2<-b 2..3<-b 3..4<-b");
}

#[test]
fn one_that_is_slower_than_those_who_could_as_well_loses_its_pieces_to_them() {
    let limits = Limits {
        runs_per_supplier: 1,
        runs_max: 2,
        run_bytes: KIB256,
        ..limits()
    };
    // What only `a` holds is asked of it; when `b` has it too, `a` has no more time than `b` needs.
    let late = [holds("a", 0..3), Pass(2_500), holds("b", 1..3), Wait];
    let script = slow_and_fast().into_iter().chain(late).collect();
    check_with(
        limits,
        script,
        "+a +b 0..1<-a 1..2<-b 2..3<-a cancel-2<-a 2..3<-b",
    );
}

#[test]
fn nobody_is_slow_while_this_host_takes_no_more() {
    check(
        vec![
            whole(),
            candidates(&["a"]),
            begun(2),
            holds("a", 0..2),
            Pass(9_000),
            Is(Event::Throttled),
            Pass(9_000),
            brought("a", 0),
            Wait,
        ],
        "+a 0..2<-a -a:Slow",
    );
}

#[test]
fn a_parent_that_says_nothing_is_left_in_the_end() {
    check(vec![whole(), candidates(&["a"]), Wait], "+a -a:Slow");
    // Of half it says nothing; who reads slowly does not mind for as long as it has enough.
    let half = vec![whole(), candidates(&["a"]), begun(2), holds("a", 0..1)];
    let half = half.into_iter().chain([brought("a", 0), Wait]).collect();
    check(half, "+a 0..1<-a -a:Slow");
}

#[test]
fn what_is_late_is_asked_of_another_piece_by_piece_and_each_once() {
    let script = vec![
        whole(),
        candidates(&["a"]),
        begun(4),
        holds("a", 0..4),
        candidates(&["b"]),
        holds("b", 0..4),
        Wait,
        brought("b", 0),
        brought("b", 1),
        brought("b", 2),
        brought("b", 3),
    ];
    check(
        script,
        "+a 0..2<-a 2..4<-a +b 0..1<-b 1..2<-b cancel-0<-a 2..3<-b 3..4<-b cancel-2<-a",
    );
}

#[test]
fn the_first_of_two_copies_ends_the_other() {
    let script = vec![
        whole(),
        candidates(&["a"]),
        begun(1),
        holds("a", 0..1),
        siblings(&["b"]),
        holds("b", 0..1),
        Wait,
        brought("b", 0),
    ];
    check(script, "+a 0..1<-a +b 0..1<-b cancel-0<-a");
}

#[test]
fn a_new_fetcher_asks_the_source_for_what_nobody_holds() {
    check(
        vec![
            whole(),
            Is(Event::AtSource(vec![host("a")])),
            begun(6),
            holds("a", 0..4),
        ],
        "+a 0..2<-a 2..4<-a 4..<-source#0",
    );
    check(
        vec![whole(), Is(Event::AtSource(vec![host("a")])), Wait],
        "+a 0..<-source#0",
    );
}

#[test]
fn siblings_alone_are_enough_while_they_bring_something() {
    let gone = Is(Event::SupplierFailed(host("a"), ParentFailure::Unreachable));
    check(
        vec![
            whole(),
            candidates(&["a"]),
            siblings(&["b"]),
            begun(4),
            holds("b", 0..2),
            gone,
            brought("b", 0),
            holds("b", 2..4),
            brought("b", 1),
        ],
        "+a +b 0..2<-b -a:Unreachable 2..4<-b",
    );
}

#[test]
fn half_of_a_body_is_worth_the_rest_and_less_is_not() {
    for (pieces, had, expect) in [
        (1, 0, false),
        (1, 1, true),
        (3, 1, false),
        (3, 2, true),
        (99, 49, false),
        (99, 50, true),
        (199, 99, false),
    ] {
        let had = PieceSet::of_range(0..had);
        let mut conductor = Conductor::new(limits(), 0, had);
        assert!(!conductor.is_nearly_whole(), "its size is not known");
        let layout = Layout::for_size(Some(pieces * KIB256));
        conductor.handle(epoch(), Event::Begun(layout));
        assert_eq!(conductor.is_nearly_whole(), expect, "of {pieces}");
    }
}

#[test]
fn an_empty_body_is_whole_at_once() {
    let mut conductor = Conductor::new(limits(), 0, PieceSet::default());
    conductor.handle(epoch(), Event::Begun(Layout::for_size(Some(0))));
    assert!(conductor.is_whole());
}
