//! The conductor under any order of events: what must hold after each of them, and that a reader
//! gets everything in the end.

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, prop_assert, prop_oneof, proptest},
};

use std::collections::BTreeMap;

use super::*;

const COUNT: u32 = 40;

#[derive(Debug, Clone)]
enum Any {
    Reader(u64, u64, u64),
    Left(u64),
    Supplier(u8, Range<u32>, Relation),
    Failed(u8),
    Refused(usize),
    Arrive(usize),
    Source,
    GrantLost,
    Wait(u64),
    Follower(u64, u64),
    Lost(u32),
    Throttled,
    Tick,
}

fn any_step() -> impl Strategy<Value = Any> {
    let relation = prop_oneof![Just(Relation::Parent), Just(Relation::Sibling)];
    prop_oneof![
        (0..4u64, 0..40u64, 0..3u64).prop_map(|(id, at, form)| Any::Reader(id, at, form)),
        (0..4u64).prop_map(Any::Left),
        (0..5u8, 0..40u32, 0..40u32, relation).prop_map(|(id, a, b, relation)| Any::Supplier(
            id,
            a.min(b)..a.max(b),
            relation
        )),
        (0..5u8).prop_map(Any::Failed),
        (0..8usize).prop_map(Any::Refused),
        (0..8usize).prop_map(Any::Arrive),
        Just(Any::Source),
        Just(Any::GrantLost),
        (0..20u64).prop_map(Any::Wait),
        (4..8u64, 0..40u64).prop_map(|(id, at)| Any::Follower(id, at)),
        (0..COUNT).prop_map(Any::Lost),
        Just(Any::Throttled),
        Just(Any::Tick),
    ]
}

/// A request that the world has been told to make, and what it still has to bring.
#[derive(Debug)]
struct Asked {
    who: Who,
    first: u32,
    left: Range<u32>,
}

#[derive(Debug, Clone, PartialEq)]
enum Who {
    Supplier(HostId),
    Source(RunId),
}

/// Carries out what the conductor asks, piece by piece, in the order that `Any::Arrive` picks.
struct World {
    conductor: Conductor,
    now: Instant,
    asked: Vec<Asked>,
}

impl World {
    fn drain(&mut self) -> Result<(), String> {
        while let Some(action) = self.conductor.poll_action() {
            match action {
                Action::Fetch {
                    supplier, pieces, ..
                } => self.ask(Who::Supplier(supplier), pieces)?,
                Action::StartSource { run, first, end } => {
                    self.ask(Who::Source(run), first..end.unwrap_or(COUNT))?;
                }
                Action::StopSource(run) => {
                    self.asked.retain(|asked| asked.who != Who::Source(run));
                }
                Action::Cancel { supplier, first } => self.asked.retain(|asked| {
                    asked.first != first || asked.who != Who::Supplier(supplier.clone())
                }),
                Action::Leave(supplier, _) => {
                    let who = Who::Supplier(supplier);
                    self.asked.retain(|asked| asked.who != who);
                }
                Action::Follow(_) | Action::LearnSize | Action::AskElsewhere => {}
            }
        }
        Ok(())
    }

    fn ask(&mut self, who: Who, pieces: Range<u32>) -> Result<(), String> {
        let had = |index| self.conductor.had.contains(PieceIndex(index));
        if matches!(who, Who::Supplier(_)) && pieces.clone().any(had) {
            return Err(format!("{pieces:?} was had already"));
        }
        // A request to the source that another cuts short is stopped when it comes there.
        let is_source = matches!(who, Who::Source(_));
        let overlapping = self.asked.iter().filter(|asked| {
            matches!(asked.who, Who::Supplier(_))
                && !is_source
                && asked.left.start < pieces.end
                && pieces.start < asked.left.end
        });
        match overlapping.count() {
            0 => {}
            // At the end, one late piece is asked of one more.
            1 if pieces.len() == 1 && self.is_endgame() => {}
            _ => return Err(format!("{who:?}: {pieces:?} is in flight already")),
        }
        let first = pieces.start;
        self.asked.push(Asked {
            who,
            first,
            left: pieces,
        });
        Ok(())
    }

    fn is_endgame(&self) -> bool {
        let picker = self.conductor.picker(self.now);
        picker.is_some_and(|picker| picker.is_endgame())
    }

    fn arrive(&mut self, pick: usize) {
        if self.asked.is_empty() {
            return;
        }
        let at = pick % self.asked.len();
        let asked = &mut self.asked[at];
        let piece = PieceIndex(asked.left.start);
        asked.left.start += 1;
        let who = asked.who.clone();
        let is_over = asked.left.is_empty();
        if is_over {
            self.asked.remove(at);
        }
        let event = match &who {
            Who::Supplier(id) => Event::Brought(id.clone(), piece),
            Who::Source(_) => Event::Had(piece),
        };
        self.conductor.handle(self.now, event);
        if let (Who::Source(run), true) = (who, is_over) {
            self.conductor.handle(self.now, Event::SourceRunEnded(run));
        }
    }

    fn refuse(&mut self, pick: usize) {
        let at_suppliers = |asked: &&Asked| matches!(asked.who, Who::Supplier(_));
        let refused: Vec<_> = self.asked.iter().filter(at_suppliers).collect();
        if refused.is_empty() {
            return;
        }
        let (who, first) = {
            let asked = refused[pick % refused.len()];
            (asked.who.clone(), asked.first)
        };
        self.asked
            .retain(|asked| asked.who != who || asked.first != first);
        if let Who::Supplier(id) = who {
            self.conductor
                .handle(self.now, Event::RunRefused(id, first));
        }
    }

    fn step(&mut self, step: Any) -> Result<(), String> {
        let name = |id: u8| host(&format!("p{id}"));
        match step {
            Any::Reader(id, at, form) => {
                let offset = at * KIB256;
                let end = offset + 3 * KIB256;
                let interest = match form {
                    0 => Interest::ToEnd { offset },
                    1 => Interest::Span { offset, end },
                    _ => Interest::Follow { offset },
                };
                let joined = Event::ReaderJoined(ReaderId(id), interest);
                self.conductor.handle(self.now, joined);
            }
            Any::Left(id) => self
                .conductor
                .handle(self.now, Event::ReaderLeft(ReaderId(id))),
            Any::Supplier(id, pieces, relation) => {
                let candidates = Event::Candidates(vec![(name(id), relation)]);
                self.conductor.handle(self.now, candidates);
                self.drain()?;
                let holds = Event::Holds(name(id), PieceSet::of_range(pieces));
                self.conductor.handle(self.now, holds);
            }
            Any::Failed(id) => {
                let failed = Event::SupplierFailed(name(id), ParentFailure::Gone);
                self.conductor.handle(self.now, failed);
            }
            Any::Refused(pick) => self.refuse(pick),
            Any::Source => self.conductor.handle(self.now, Event::AtSource(Vec::new())),
            Any::GrantLost => self.conductor.handle(self.now, Event::GrantLost),
            Any::Wait(seconds) => {
                let patience = Duration::from_secs(seconds);
                self.conductor.handle(self.now, Event::Wait(patience));
            }
            Any::Follower(id, at) => {
                let offset = at * KIB256;
                let wants = Interest::Span {
                    offset,
                    end: offset + KIB256,
                };
                let follows = Event::FollowerWants(ReaderId(id), wants);
                self.conductor.handle(self.now, follows);
            }
            Any::Lost(piece) => {
                // Only what was had can turn out to be unreadable.
                if self.conductor.had.contains(PieceIndex(piece)) {
                    self.conductor
                        .handle(self.now, Event::Lost(PieceIndex(piece)));
                }
            }
            Any::Throttled => self.conductor.handle(self.now, Event::Throttled),
            Any::Arrive(pick) => self.arrive(pick),
            Any::Tick => {
                if let Some(at) = self.conductor.poll_timeout(self.now) {
                    self.now = self.now.max(at);
                    self.conductor.handle_timeout(self.now);
                }
            }
        }
        self.drain()?;
        self.is_within_bounds()
    }

    fn is_within_bounds(&self) -> Result<(), String> {
        let (limits, mut by_supplier) = (limits(), BTreeMap::new());
        let mut at_source = 0;
        for asked in &self.asked {
            match &asked.who {
                Who::Supplier(id) => *by_supplier.entry(id).or_insert(0) += 1,
                Who::Source(_) => at_source += 1,
            }
        }
        let runs: usize = by_supplier.values().sum();
        let most = by_supplier.values().copied().max().unwrap_or(0);
        let is_within = runs <= limits.runs_max + limits.hedges_max
            && most <= limits.runs_per_supplier + limits.hedges_max
            && at_source <= limits.source_runs
            && self.conductor.source.are_apart();
        is_within
            .then_some(())
            .ok_or_else(|| format!("{:?}", self.asked))
    }
}

fn begun_world() -> World {
    let mut world = World {
        conductor: Conductor::new(limits(), 0, PieceSet::default()),
        now: epoch(),
        asked: Vec::new(),
    };
    let layout = Layout::for_size(Some(u64::from(COUNT) * KIB256));
    world.conductor.handle(world.now, Event::Begun(layout));
    world
}

/// Plays `steps`, then `last`, and then whatever was asked for comes, before time passes.
fn ends_whole(steps: Vec<Any>, last: Vec<Any>) -> Result<(), String> {
    let mut world = begun_world();
    for step in steps.into_iter().chain(last) {
        world.step(step)?;
    }
    for _ in 0..400 {
        world.step(match world.asked.is_empty() {
            true => Any::Tick,
            false => Any::Arrive(0),
        })?;
    }
    let missing = world.conductor.had.first_missing(0);
    world
        .conductor
        .is_whole()
        .then_some(())
        .ok_or_else(|| format!("missing {missing}"))
}

proptest! {
    /// Whatever happens in whatever order, nothing is asked twice at once, and a whole reader that
    /// is left at the source gets everything.
    #[test]
    fn everything_arrives_in_any_order_of_events(steps in vec(any_step(), 0..60)) {
        let told = ends_whole(steps, vec![Any::Reader(9, 0, 0), Any::Source]);
        prop_assert!(told.is_ok(), "{told:?}");
    }

    /// So does one who is given a parent that holds it all.
    #[test]
    fn everything_arrives_from_a_parent_that_holds_it(steps in vec(any_step(), 0..60)) {
        let holder = Any::Supplier(9, 0..COUNT, Relation::Parent);
        let told = ends_whole(steps, vec![Any::Reader(9, 0, 0), Any::GrantLost, holder]);
        prop_assert!(told.is_ok(), "{told:?}");
    }
}
