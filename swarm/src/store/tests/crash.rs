//! Whatever has happened to the files, no wrong byte is read.

use super::*;

const LEN: usize = 2 * PIECE + 77;

/// Reads every piece; a piece may be lost, but none may be wrong. Tells how many are right.
#[track_caller]
pub(super) fn right_pieces(store: &Store, task: TaskId, body: &[u8]) -> usize {
    let Some(handle) = store.lookup(task) else {
        return 0;
    };
    let cuts = body.chunks(PIECE).enumerate();
    cuts.filter(|(index, piece)| {
        let start = index * PIECE;
        match read(&handle, start, start + piece.len()) {
            Ok(bytes) => {
                assert!(bytes == *piece, "piece {index} is wrong");
                true
            }
            Err(StoreError::NotHeld { .. } | StoreError::Corrupt { .. }) => {
                assert!(!handle.held().contains(PieceIndex(*index as u32)));
                assert!(!handle.is_complete());
                false
            }
            Err(error) => panic!("{error}"),
        }
    })
    .count()
}

fn stored() -> (TempDir, Vec<u8>, TaskId) {
    let dir = TempDir::new().unwrap();
    let body = body(20, LEN);
    let task = put(&open(&dir), &body);
    (dir, body, task)
}

#[test]
fn a_log_cut_at_any_byte_loses_pieces_and_makes_none() {
    let (dir, body, task) = stored();
    let log = path_of(&dir, task, "log");
    let whole = fs::read(&log).unwrap();
    let data = fs::read(path_of(&dir, task, "data")).unwrap();
    let mut before = 0;
    for len in 0..=whole.len() {
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::write(path_of(&dir, task, "data"), &data).unwrap();
        fs::write(&log, &whole[..len]).unwrap();
        let store = open(&dir);
        let right = right_pieces(&store, task, &body);
        assert!(before <= right, "a longer log holds as much");
        before = right;
        // What was lost can be had again, and the log goes on from where it was cut.
        if let Some(handle) = store.lookup(task) {
            land_all(&handle, &body);
            handle.complete().unwrap();
            drop((handle, store));
            assert_eq!(right_pieces(&open(&dir), task, &body), 3);
        }
    }
    assert_eq!(before, 3);
}

#[test]
fn a_flipped_bit_in_the_log_is_found() {
    let (dir, body, task) = stored();
    let log = path_of(&dir, task, "log");
    let whole = fs::read(&log).unwrap();
    let data = fs::read(path_of(&dir, task, "data")).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::write(path_of(&dir, task, "data"), &data).unwrap();
        fs::write(&log, &flipped).unwrap();
        let store = open(&dir);
        right_pieces(&store, task, &body);
        assert!(
            store
                .lookup(task)
                .is_none_or(|handle| !handle.is_complete()),
            "byte {at}"
        );
    }
}

#[test]
fn bytes_that_never_reached_the_disk_are_found() {
    let (dir, body, task) = stored();
    let data = path_of(&dir, task, "data");
    let mut bytes = fs::read(&data).unwrap();
    bytes[PIECE + 100..PIECE + 4196].fill(0);
    fs::write(&data, &bytes).unwrap();
    let store = open(&dir);
    assert!(
        store.lookup(task).unwrap().is_complete(),
        "nobody has looked yet"
    );
    assert_eq!(right_pieces(&store, task, &body), 2);
    assert_eq!(store.usage().damaged, 1);
    drop(store);

    let store = open(&dir);
    let handle = store.lookup(task).unwrap();
    assert_eq!(handle.held().len(), 2, "the loss is remembered");
    assert!(
        handle.digest_of(PieceIndex(1)).is_some(),
        "and so is what to look for"
    );
    handle.land(PieceIndex(1), &body[PIECE..2 * PIECE]).unwrap();
    handle.complete().unwrap();
    assert_eq!(right_pieces(&store, task, &body), 3);
}

#[test]
fn a_data_file_that_is_shorter_or_flipped_loses_those_pieces() {
    let (dir, body, task) = stored();
    let data = path_of(&dir, task, "data");
    let whole = fs::read(&data).unwrap();
    for (at, right) in [(0, 2), (PIECE - 1, 2), (PIECE, 2), (LEN - 1, 2)] {
        let log = fs::read(path_of(&dir, task, "log")).unwrap();
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&data, &flipped).unwrap();
        assert_eq!(right_pieces(&open(&dir), task, &body), right);
        fs::write(path_of(&dir, task, "log"), &log).unwrap();
        fs::write(&data, &whole[..at]).unwrap();
        assert_eq!(right_pieces(&open(&dir), task, &body), at / PIECE);
        fs::write(path_of(&dir, task, "log"), &log).unwrap();
    }
}

#[test]
fn a_data_file_cut_under_a_running_store_is_found() {
    let (dir, body, task) = stored();
    let store = open(&dir);
    assert_eq!(right_pieces(&store, task, &body), 3);
    fs::File::options()
        .write(true)
        .open(path_of(&dir, task, "data"))
        .unwrap()
        .set_len(9)
        .unwrap();
    assert_eq!(right_pieces(&store, task, &body), 0);
}

#[test]
fn a_damaged_piece_is_healed_by_parts_too() {
    let (dir, body, task) = stored();
    fs::write(path_of(&dir, task, "data"), vec![0; LEN]).unwrap();
    let store = open(&dir);
    let handle = store.lookup(task).unwrap();
    handle.write_partial(0, &body[..PIECE]).unwrap();
    handle
        .land_written(PieceIndex(0), *blake3::hash(&body[..PIECE]).as_bytes())
        .unwrap();
    // Nobody wrote this one: what lies there is not what its digest says.
    assert!(handle.land_written(PieceIndex(1), [7; 32]).is_ok());
    drop((handle, store));
    assert_eq!(right_pieces(&open(&dir), task, &body), 1);
}

#[test]
fn the_log_of_another_task_is_not_believed() {
    let (dir, body, task) = stored();
    let other = put(&open(&dir), b"other");
    fs::copy(path_of(&dir, other, "log"), path_of(&dir, task, "log")).unwrap();
    let store = open(&dir);
    assert_eq!(right_pieces(&store, task, &body), 0);
    assert_eq!(store.usage().unreadable, 1);
    assert!(!path_of(&dir, task, "data").exists());
}

#[test]
fn half_of_a_task_is_cleared_away_by_the_scan() {
    let (dir, _, task) = stored();
    let other = put(&open(&dir), b"other");
    fs::remove_file(path_of(&dir, task, "log")).unwrap();
    let grave = dir.path().join("v1/trash/1-1");
    fs::create_dir(&grave).unwrap();
    fs::write(grave.join("data"), b"left over").unwrap();
    let store = open(&dir);
    store.scan();
    assert!(!grave.exists() && !path_of(&dir, task, "data").exists());
    assert_eq!(store.usage().blobs.tasks, 1);
    assert!(store.lookup(other).is_some());
}

#[test]
fn the_scrub_finds_what_nobody_reads() {
    let (dir, _, task) = stored();
    let data = path_of(&dir, task, "data");
    let mut bytes = fs::read(&data).unwrap();
    bytes[3] ^= 1;
    fs::write(&data, &bytes).unwrap();
    let store = open(&dir);
    store.scan();
    let mut dropped = 0;
    let mut checked = 0;
    loop {
        match store.scrub_step() {
            ScrubStep::Checked { .. } => checked += 1,
            ScrubStep::Dropped { piece, .. } => dropped += piece.0 + 1,
            ScrubStep::Done => break,
        }
    }
    assert_eq!((dropped, checked), (1, 2));
    assert_eq!(store.lookup(task).unwrap().held().len(), 2);
}
