//! Any order of calls and restarts against a model that is a map.

use std::collections::BTreeMap;

use proptest::{
    collection::vec,
    prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest},
};

use super::*;

const TASKS: u8 = 2;
const PIECES: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Land(u8, u32),
    Part(u8, u32),
    Complete(u8),
    Batch(u8),
    Damage(u8, u32),
    Remove(u8),
    Read(u8),
    Restart,
    Scan,
    Scrub,
}

/// What should be known of a task.
#[derive(Debug, Default)]
struct Expected {
    held: std::collections::BTreeSet<u32>,
    damaged: std::collections::BTreeSet<u32>,
    batches: usize,
    complete: bool,
}

struct World {
    dir: TempDir,
    store: Option<Store>,
    tasks: BTreeMap<u8, Expected>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let piece = || (0..TASKS, 0..PIECES);
    vec(
        prop_oneof![
            1 => (0..TASKS).prop_map(Step::Create),
            8 => piece().prop_map(|(task, piece)| Step::Land(task, piece)),
            2 => piece().prop_map(|(task, piece)| Step::Part(task, piece)),
            2 => (0..TASKS).prop_map(Step::Complete),
            1 => (0..TASKS).prop_map(Step::Batch),
            3 => piece().prop_map(|(task, piece)| Step::Damage(task, piece)),
            1 => (0..TASKS).prop_map(Step::Remove),
            4 => (0..TASKS).prop_map(Step::Read),
            2 => Just(Step::Restart),
            1 => Just(Step::Scan),
            1 => Just(Step::Scrub),
        ],
        1..60,
    )
}

fn whole(task: u8) -> Vec<u8> {
    body(
        100 + task,
        (PIECES as usize - 1) * PIECE + 1000 + usize::from(task),
    )
}

fn part(body: &[u8], piece: u32) -> &[u8] {
    body.chunks(PIECE).nth(piece as usize).unwrap()
}

impl World {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Create(task) => {
                drop(begin(self.store(), &whole(task)));
                self.tasks.insert(task, Expected::default());
            }
            Step::Restart => {
                self.store = None;
                self.store = Some(open(&self.dir));
            }
            Step::Scan => self.store().scan(),
            Step::Scrub => drop(self.store().scrub_step()),
            Step::Remove(task) => {
                let removed = self.store().remove(task_of(&whole(task)));
                assert_eq!(removed, self.tasks.remove(&task).is_some());
            }
            Step::Land(task, _)
            | Step::Part(task, _)
            | Step::Complete(task)
            | Step::Batch(task)
            | Step::Damage(task, _)
            | Step::Read(task) => self.play_one(task, step),
        }
    }

    fn play_one(&mut self, id: u8, step: &Step) {
        let body = whole(id);
        let Some(task) = self.store().lookup(task_of(&body)) else {
            assert!(!self.tasks.contains_key(&id));
            return;
        };
        let expected = self.tasks.get_mut(&id).unwrap();
        match *step {
            Step::Land(_, piece) => {
                task.land(PieceIndex(piece), part(&body, piece)).unwrap();
                expected.held.insert(piece);
                if expected.damaged.remove(&piece) {
                    expected.complete = false;
                }
            }
            Step::Part(_, piece) => {
                let bytes = part(&body, piece);
                task.write_partial(u64::from(piece) * PIECE as u64, bytes)
                    .unwrap();
                task.land_written(PieceIndex(piece), *blake3::hash(bytes).as_bytes())
                    .unwrap();
                expected.held.insert(piece);
                if expected.damaged.remove(&piece) {
                    expected.complete = false;
                }
            }
            Step::Complete(_) => {
                let completed = task.complete().is_ok();
                assert_eq!(completed, task.held().len() == PIECES);
                expected.complete |= completed;
            }
            Step::Batch(_) => {
                task.append_batch(&[id]).unwrap();
                expected.batches += 1;
            }
            Step::Damage(_, piece) => {
                // Only between two runs: what this one has verified it need not doubt.
                drop(task);
                self.store = None;
                self.damage(id, piece);
                self.store = Some(open(&self.dir));
            }
            Step::Read(_) => expected.check(&task, &body),
            Step::Create(_) | Step::Remove(_) | Step::Restart | Step::Scan | Step::Scrub => {}
        }
    }

    fn damage(&mut self, id: u8, piece: u32) {
        let expected = self.tasks.get_mut(&id).unwrap();
        if expected.held.contains(&piece) && expected.damaged.insert(piece) {
            let path = path_of(&self.dir, task_of(&whole(id)), "data");
            let mut data = fs::read(&path).unwrap();
            data[piece as usize * PIECE + 5] ^= 4;
            fs::write(&path, data).unwrap();
        }
    }
}

impl Expected {
    fn check(&mut self, task: &StoredTask, body: &[u8]) {
        for piece in 0..PIECES {
            let bytes = part(body, piece);
            let start = piece as usize * PIECE;
            let seen = read(task, start, start + bytes.len());
            let right = self.held.contains(&piece) && !self.damaged.contains(&piece);
            assert_eq!(seen.is_ok(), right, "piece {piece}: {:?}", seen.map(drop));
            if right {
                assert!(read(task, start, start + bytes.len()).unwrap() == bytes);
            }
        }
        self.complete &= self.damaged.is_empty();
        self.held.retain(|piece| !self.damaged.contains(piece));
        self.damaged.clear();
        assert_eq!(task.is_complete(), self.complete);
        assert_eq!(task.batches().unwrap().len(), self.batches);
        assert_eq!(
            task.held().iter().map(|piece| piece.0).collect::<Vec<_>>(),
            Vec::from_iter(self.held.clone())
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_calls_is_as_the_model_says(steps in steps()) {
        let dir = TempDir::new().unwrap();
        let store = Some(open(&dir));
        let mut world = World { dir, store, tasks: BTreeMap::new() };
        for step in &steps {
            world.play(step);
        }
    }
}
