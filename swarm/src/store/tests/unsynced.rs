//! Power loss under a running store: of what it has written and not synced, any blocks may be gone.
//!
//! The store never syncs, so at any moment each block of each file is as it was written or as if
//! nobody had. The directory of a store that runs is copied without some of them, as a disk would
//! have it.

use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{crash::right_pieces, *};

const SEEDS: u64 = 50;

/// What a file system writes at once. A log is smaller, and is lost by smaller parts.
const BLOCK: usize = 4096;
const SECTOR: usize = 64;

/// Bodies of one piece, of some, and with a short last one.
const SIZES: [usize; 3] = [100, 2 * PIECE, 3 * PIECE + 77];

/// A task on its way into a store.
struct Coming {
    body: Vec<u8>,
    handle: Arc<StoredTask>,
}

// === impl Coming ===

impl Coming {
    /// Lands any piece, and tells of the end now and then; in no order, as pieces come.
    fn go_on(&self, random: &mut StdRng) {
        let count = self.body.chunks(PIECE).count();
        let index = random.random_range(0..count);
        let piece = self.body.chunks(PIECE).nth(index).unwrap();
        let number = PieceIndex(index as u32);
        match random.random_range(0..3) {
            0 => {
                self.handle.land(number, piece).unwrap();
            }
            1 => {
                let (start, cut) = (index * PIECE, piece.len() / 2);
                self.handle
                    .write_partial(start as u64, &piece[..cut])
                    .unwrap();
                self.handle
                    .write_partial((start + cut) as u64, &piece[cut..])
                    .unwrap();
                let digest = *blake3::hash(piece).as_bytes();
                self.handle.land_written(number, digest).unwrap();
            }
            _ => match self.handle.complete() {
                Ok(()) | Err(StoreError::NotHeld { .. }) => {}
                Err(error) => panic!("{error}"),
            },
        }
    }
}

/// `bytes` as a disk has them that has not written all of its blocks, nor perhaps the length.
fn lossy(mut bytes: Vec<u8>, block: usize, random: &mut StdRng) -> Vec<u8> {
    let lost_percent = [0, 10, 50, 100][random.random_range(0..4)];
    for part in bytes.chunks_mut(block) {
        if random.random_range(0..100) < lost_percent {
            part.fill(0);
        }
    }
    if random.random_range(0..4) == 0 {
        bytes.truncate(random.random_range(0..=bytes.len()));
    }
    bytes
}

/// Copies what lies below `from`, without some of what was written to tasks.
fn copy_lossy(from: &Path, to: &Path, random: &mut StdRng) {
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().map(Result::unwrap).collect();
    // The order of a directory is not the same in every run.
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_lossy(&source, &target, random);
            continue;
        }
        let bytes = fs::read(&source).unwrap();
        let kept = match entry.file_name().to_str() {
            Some("data") => lossy(bytes, BLOCK, random),
            Some("log") => lossy(bytes, SECTOR, random),
            _ => bytes,
        };
        fs::write(target, kept).unwrap();
    }
}

/// One store that loses power; tells how many pieces it had, and how many it still has.
fn lose_power(seed: u64) -> (usize, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let (dir, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = open(&dir);
    let coming = SIZES.iter().enumerate().map(|(index, size)| {
        let body = body(index as u8, *size);
        let handle = begin(&store, &body);
        Coming { body, handle }
    });
    let coming: Vec<_> = coming.collect();
    for _ in 0..random.random_range(0..30) {
        coming[random.random_range(0..coming.len())].go_on(&mut random);
    }
    let had = coming
        .iter()
        .map(|task| task.handle.held().len() as usize)
        .sum();
    copy_lossy(dir.path(), copy.path(), &mut random);
    let after = open(&copy);
    after.scan();
    let right = coming
        .iter()
        .map(|task| right_pieces(&after, task.handle.task(), &task.body))
        .sum();
    // What was lost can be had again, over what is left.
    for task in &coming {
        let handle = after.lookup(task.handle.task());
        let handle = handle.unwrap_or_else(|| begin(&after, &task.body));
        land_all(&handle, &task.body);
        handle.complete().unwrap();
        let pieces = task.body.chunks(PIECE).count();
        assert_eq!(right_pieces(&after, handle.task(), &task.body), pieces);
    }
    (had, right)
}

#[test]
fn whatever_was_not_synced_and_is_lost_no_wrong_byte_is_read() {
    let (mut had, mut right) = (0, 0);
    for seed in 0..SEEDS {
        // A panic inside tells its seed.
        let told = std::panic::catch_unwind(|| lose_power(seed));
        let (before, after) = told.unwrap_or_else(|_| panic!("seed {seed}"));
        (had, right) = (had + before, right + after);
    }
    // Neither everything nor nothing is lost, or this would show little.
    assert!(
        had / 20 < right && right < had * 19 / 20,
        "{right} of {had}"
    );
}
