//! The conductor by data: a script of events, and the actions it must cause.

use std::ops::Range;

use proptest::{
    collection::vec,
    prelude::{Strategy, prop_assert, prop_oneof, proptest},
};

use super::*;

const KIB256: u64 = 256 << 10;

/// One step of a script: an event, or the clock reaching the next deadline.
enum Step {
    Is(Event),
    Wait,
}
use Step::{Is, Wait};

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

fn holds(name: &str, pieces: Range<u32>) -> Step {
    Is(Event::ParentHolds(host(name), PieceSet::of_range(pieces)))
}

fn candidates(names: &[&str]) -> Step {
    Is(Event::Candidates(
        names.iter().map(|name| host(name)).collect(),
    ))
}

fn had(index: u32) -> Step {
    Is(Event::Had(PieceIndex(index)))
}

fn limits() -> Limits {
    Limits {
        runs_per_parent: 2,
        run_bytes: 2 * KIB256,
        source_runs: 2,
        soon_bytes: 4 * KIB256,
        ..Limits::default()
    }
}

/// Plays `script` and renders each action it causes, space-separated.
#[track_caller]
fn check(script: Vec<Step>, expect: &str) {
    let mut now = epoch();
    let mut conductor = Conductor::new(limits(), PieceSet::default());
    let mut seen = Vec::new();
    for step in script {
        match step {
            Is(event) => conductor.handle(now, event),
            Wait => {
                now = conductor.poll_timeout().expect("nothing to wait for");
                conductor.handle_timeout(now);
            }
        }
        seen.extend(std::iter::from_fn(|| conductor.poll_action()).map(render));
    }
    assert_eq!(seen.join(" "), expect);
}

fn render(action: Action) -> String {
    match action {
        Action::Follow(parent) => format!("+{parent}"),
        Action::Leave(parent, failure) => format!("-{parent}:{failure:?}"),
        Action::Fetch { parent, first, end } => format!("{first}..{end}<-{parent}"),
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
        Action::GoToSource => "alone".to_owned(),
    }
}

#[expect(clippy::disallowed_methods, reason = "any origin will do")]
fn epoch() -> Instant {
    Instant::now()
}

#[test]
fn a_whole_body_is_one_request_to_the_source() {
    check(
        vec![
            whole(),
            Is(Event::AtSource),
            begun(3),
            had(0),
            had(1),
            had(2),
        ],
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
        vec![whole(), Is(Event::AtSource), begun(9), second, had(0)],
        "0..<-source#0",
    );
}

#[test]
fn a_read_far_ahead_gets_a_range_that_the_main_fetch_skips() {
    let ahead = Interest::Span {
        offset: 8 * KIB256,
        end: 10 * KIB256,
    };
    let mut script = vec![whole(), Is(Event::AtSource), begun(20)];
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
        vec![whole(), Is(Event::AtSource), begun(20), joined],
        "0..<-source#0",
    );
}

#[test]
fn an_open_range_asks_for_a_window_only() {
    let window = (interest::WINDOW / KIB256) as u32;
    let follow = reader(Interest::Follow { offset: 5 * KIB256 });
    let expect = format!("5..{}<-source#0", 5 + window);
    check(vec![begun(400), Is(Event::AtSource), follow], &expect);
}

#[test]
fn the_size_is_learnt_first_when_nobody_reads_from_the_start() {
    let sized = |size: Option<u64>| Is(Event::Sized(size.map(|size| Layout::for_size(Some(size)))));
    let tail = || reader(Interest::Tail { length: 10 });
    check(
        vec![tail(), Is(Event::AtSource), sized(Some(5 * KIB256))],
        "size? 4..<-source#0",
    );
    check(
        vec![tail(), Is(Event::AtSource), sized(None)],
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
    let gone = Is(Event::ParentFailed(host("a"), ParentFailure::Unreachable));
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
        ],
        "+a 0..2<-a -a:Slow alone 0..<-source#0",
    );
}

#[test]
fn a_silent_scheduler_is_not_waited_for() {
    check(vec![whole(), Is(Event::Asked), Wait], "alone 0..<-source#0");
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
fn a_late_answer_does_not_call_back_from_the_source() {
    check(
        vec![whole(), Is(Event::AtSource), candidates(&["a"])],
        "0..<-source#0",
    );
}

#[test]
fn an_empty_body_is_whole_at_once() {
    let mut conductor = Conductor::new(limits(), PieceSet::default());
    conductor.handle(epoch(), Event::Begun(Layout::for_size(Some(0))));
    assert!(conductor.is_whole());
}

#[derive(Debug, Clone)]
enum Any {
    Reader(u64, u64, u64),
    Left(u64),
    Parent(u8, Range<u32>),
    Failed(u8),
    Arrive(usize),
    Source,
    Tick,
}

fn any_step() -> impl Strategy<Value = Any> {
    prop_oneof![
        (0..4u64, 0..40u64, 0..3u64).prop_map(|(id, at, form)| Any::Reader(id, at, form)),
        (0..4u64).prop_map(Any::Left),
        (0..3u8, 0..40u32, 0..40u32).prop_map(|(id, a, b)| Any::Parent(id, a.min(b)..a.max(b))),
        (0..3u8).prop_map(Any::Failed),
        (0..8usize).prop_map(Any::Arrive),
        proptest::strategy::Just(Any::Source),
        proptest::strategy::Just(Any::Tick),
    ]
}

/// Carries out what the conductor asks, piece by piece, in the order that `Any::Arrive` picks.
struct World {
    conductor: Conductor,
    now: Instant,
    /// Pieces that somebody was asked for and has not brought; by parent, or `None` for the source.
    asked: Vec<(Option<HostId>, RunId, Range<u32>)>,
}

impl World {
    fn drain(&mut self) -> Result<(), String> {
        while let Some(action) = self.conductor.poll_action() {
            match action {
                Action::Fetch { parent, first, end } => {
                    self.ask(Some(parent), RunId(0), first..end)?
                }
                Action::StartSource { run, first, end } => {
                    self.ask(None, run, first..end.unwrap_or(40))?
                }
                Action::StopSource(run) => self
                    .asked
                    .retain(|(who, id, _)| who.is_some() || *id != run),
                Action::Leave(parent, _) => {
                    self.asked.retain(|(who, ..)| who.as_ref() != Some(&parent))
                }
                Action::Follow(_) | Action::LearnSize | Action::GoToSource => {}
            }
        }
        Ok(())
    }

    fn ask(&mut self, who: Option<HostId>, run: RunId, pieces: Range<u32>) -> Result<(), String> {
        if who.is_some()
            && pieces
                .clone()
                .any(|i| self.conductor.had.contains(PieceIndex(i)))
        {
            return Err(format!("{pieces:?} was had already"));
        }
        let overlaps = |other: &Range<u32>| other.start < pieces.end && pieces.start < other.end;
        let same_kind = |other: &Option<HostId>| other.is_some() && who.is_some();
        if self
            .asked
            .iter()
            .any(|(other, _, asked)| same_kind(other) && overlaps(asked))
        {
            return Err(format!("{pieces:?} is in flight already"));
        }
        self.asked.push((who, run, pieces));
        Ok(())
    }

    fn arrive(&mut self, pick: usize) {
        if self.asked.is_empty() {
            return;
        }
        let at = pick % self.asked.len();
        let (_, _, pieces) = &mut self.asked[at];
        let piece = PieceIndex(pieces.start);
        pieces.start += 1;
        if pieces.start >= pieces.end {
            self.asked.remove(at);
        }
        self.conductor.handle(self.now, Event::Had(piece));
    }

    fn step(&mut self, step: Any) -> Result<(), String> {
        let name = |id: u8| host(&format!("p{id}"));
        let event = match step {
            Any::Reader(id, at, form) => {
                let offset = at * KIB256;
                let interest = match form {
                    0 => Interest::ToEnd { offset },
                    1 => Interest::Span {
                        offset,
                        end: offset + 3 * KIB256,
                    },
                    _ => Interest::Follow { offset },
                };
                Event::ReaderJoined(ReaderId(id), interest)
            }
            Any::Left(id) => Event::ReaderLeft(ReaderId(id)),
            Any::Parent(id, pieces) => {
                self.conductor
                    .handle(self.now, Event::Candidates(vec![name(id)]));
                self.drain()?;
                Event::ParentHolds(name(id), PieceSet::of_range(pieces))
            }
            Any::Failed(id) => Event::ParentFailed(name(id), ParentFailure::Gone),
            Any::Source => Event::AtSource,
            Any::Arrive(pick) => {
                self.arrive(pick);
                return self.drain();
            }
            Any::Tick => {
                if let Some(at) = self.conductor.poll_timeout() {
                    self.now = self.now.max(at);
                    self.conductor.handle_timeout(self.now);
                }
                return self.drain();
            }
        };
        self.conductor.handle(self.now, event);
        self.drain()
    }
}

proptest! {
    /// Whatever happens in whatever order, nothing is asked twice at once, and a whole reader that
    /// is left at the source gets everything.
    #[test]
    fn everything_arrives_in_any_order_of_events(steps in vec(any_step(), 0..60)) {
        let mut world = World {
            conductor: Conductor::new(limits(), PieceSet::default()),
            now: epoch(),
            asked: Vec::new(),
        };
        world.conductor.handle(world.now, Event::Begun(Layout::for_size(Some(40 * KIB256))));
        let mut told = Ok(());
        for step in steps {
            told = told.and_then(|()| world.step(step));
        }
        for last in [Any::Reader(9, 0, 0), Any::Source] {
            told = told.and_then(|()| world.step(last));
        }
        for _ in 0..400 {
            told = told.and_then(|()| world.step(Any::Arrive(0)));
        }
        prop_assert!(told.is_ok(), "{told:?}");
        prop_assert!(world.conductor.is_whole(), "missing {:?}", world.conductor.had.first_missing(0));
    }
}
