//! Who goes when there is no room.

use super::*;
use crate::store::Pinned;

/// What one stored piece takes at most, with its log and directory.
const ONE: u64 = PIECE as u64 + 16 * 1024;

fn open_with(dir: &TempDir, storage_quota: u64) -> Store {
    let config = Config {
        storage_quota,
        manifest_quota: 40 * 1024,
        ..config(dir.path())
    };
    Store::open(config, at(4_000_000_000)).unwrap()
}

fn put_at(store: &Store, seed: u8, seconds: u64) -> TaskId {
    let task = put(store, &body(seed, PIECE));
    store
        .lookup(task)
        .unwrap()
        .touch(at(3_000_000_000 + seconds));
    task
}

#[track_caller]
fn holds(store: &Store, tasks: &[TaskId], expect: &[bool]) {
    let held: Vec<_> = tasks
        .iter()
        .map(|task| store.lookup(*task).is_some())
        .collect();
    assert_eq!(held, expect);
}

#[test]
fn the_least_recently_used_goes_first() {
    let dir = TempDir::new().unwrap();
    let store = open_with(&dir, 3 * ONE);
    let tasks = [
        put_at(&store, 1, 30),
        put_at(&store, 2, 10),
        put_at(&store, 3, 20),
    ];
    holds(&store, &tasks, &[true, true, true]);
    let fourth = put_at(&store, 4, 40);
    holds(
        &store,
        &[tasks[0], tasks[1], tasks[2], fourth],
        &[true, false, true, true],
    );
    assert_eq!(store.take_removals(), [tasks[1]]);
    let usage = store.usage();
    assert!(usage.blobs.bytes <= usage.blobs.quota && usage.evicted == 1);
}

#[test]
fn what_is_in_use_stays_and_then_there_is_no_room() {
    let dir = TempDir::new().unwrap();
    let store = open_with(&dir, 2 * ONE);
    let tasks = [put_at(&store, 1, 1), put_at(&store, 2, 2)];
    let first = store.lookup(tasks[0]).unwrap();
    put_at(&store, 3, 3);
    holds(&store, &tasks, &[true, false]);
    let third = store.lookup(task_of(&body(3, PIECE))).unwrap();
    let refused = store.create(
        task_of(b"x"),
        ContentKind::Blob,
        &content(Some(PIECE as u64)),
    );
    assert!(matches!(refused, Err(StoreError::NoRoom { .. })));
    assert_eq!(store.usage().evicted, 1, "nothing goes in vain");
    drop((first, third));
    let too_large = store.create(task_of(b"x"), ContentKind::Blob, &content(Some(3 * ONE)));
    assert!(matches!(too_large, Err(StoreError::NoRoom { .. })));
    assert_eq!(store.usage().evicted, 1, "nothing goes in vain");
}

#[test]
fn manifests_and_blobs_have_shares_of_their_own() {
    let dir = TempDir::new().unwrap();
    let store = open_with(&dir, 2 * ONE);
    let blob = put_at(&store, 1, 1);
    let manifests: Vec<TaskId> = (0..6u8)
        .map(|seed| {
            let body = [seed; 100];
            let task = task_of(&body);
            let handle = store
                .create(task, ContentKind::Manifest, &content(Some(100)))
                .unwrap();
            handle.land(PieceIndex(0), &body).unwrap();
            handle.complete().unwrap();
            handle.touch(at(3_000_000_000 + u64::from(seed)));
            task
        })
        .collect();
    holds(
        &store,
        &[blob, manifests[0], manifests[5]],
        &[true, false, true],
    );
    let usage = store.usage();
    assert!(usage.manifests.bytes <= usage.manifests.quota && usage.manifests.tasks < 6);
}

#[test]
fn an_abandoned_part_gives_back_what_it_did_not_use() {
    let dir = TempDir::new().unwrap();
    let store = open_with(&dir, 4 * ONE);
    let part = begin(&store, &body(1, 3 * PIECE)).task();
    assert!(3 * PIECE as u64 <= store.usage().blobs.bytes);
    let tasks = [put_at(&store, 2, 2), put_at(&store, 3, 3)];
    holds(&store, &[part, tasks[0], tasks[1]], &[true, true, true]);
    assert!(store.usage().blobs.bytes <= 2 * ONE + 16 * 1024);
}

#[test]
fn a_body_with_no_size_takes_room_as_it_grows() {
    let dir = TempDir::new().unwrap();
    let store = open_with(&dir, (2 << 20) + 16 * 1024);
    let task = store
        .create(task_of(b"grows"), ContentKind::Blob, &content(None))
        .unwrap();
    let piece = body(9, 1 << 20);
    task.land(PieceIndex(0), &piece).unwrap();
    task.write_partial(1 << 20, &piece[..5]).unwrap();
    task.land(PieceIndex(1), &piece).unwrap();
    let refused = task.land(PieceIndex(2), &piece);
    assert!(
        matches!(refused, Err(StoreError::NoRoom { .. })),
        "{refused:?}"
    );
    assert_eq!(read(&task, 0, 2 << 20).unwrap().len(), 2 << 20);
}

#[test]
fn the_file_system_is_not_filled_up() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let task = put(&store, &body(1, PIECE));
    drop(store);
    let config = Config {
        min_free: u64::MAX / 2,
        ..config(dir.path())
    };
    let store = Store::open(config, at(4_000_000_000)).unwrap();
    let refused = store.create(task_of(b"x"), ContentKind::Blob, &content(Some(5)));
    assert!(matches!(refused, Err(StoreError::NoRoom { .. })));
    holds(&store, &[task], &[true]);
}

/// A store on a file system of memory, on which next to nobody writes but this test; `min_free`
/// leaves it `room` bytes and a little for others.
fn open_with_room(room: u64) -> (TempDir, Store, u64) {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let min_free = available(&dir) - room - PIECE as u64 / 2;
    let config = Config {
        min_free,
        ..config(dir.path())
    };
    let store = Store::open(config, at(4_000_000_000)).unwrap();
    (dir, store, min_free)
}

fn available(dir: &TempDir) -> u64 {
    let told = rustix::fs::statvfs(dir.path()).unwrap();
    told.f_bavail * told.f_frsize
}

#[test]
fn the_least_recently_used_goes_to_keep_the_file_system_free() {
    let (dir, store, min_free) = open_with_room(3 * ONE);
    let mut tasks = vec![
        put_at(&store, 1, 30),
        put_at(&store, 2, 10),
        put_at(&store, 3, 20),
    ];
    holds(&store, &tasks, &[true, true, true]);
    tasks.push(put_at(&store, 4, 40));
    tasks.push(put_at(&store, 5, 50));
    holds(&store, &tasks, &[true, false, false, true, true]);
    assert_eq!(store.usage().evicted, 2);
    assert!(min_free <= available(&dir));
}

#[test]
fn a_body_with_no_size_grows_until_the_file_system_must_be_kept_free() {
    let (dir, store, min_free) = open_with_room((3 << 20) + 16 * 1024);
    let older = put_at(&store, 1, 1);
    let task = store
        .create(task_of(b"grows"), ContentKind::Blob, &content(None))
        .unwrap();
    let piece = body(9, 1 << 20);
    for index in 0..3 {
        task.land(PieceIndex(index), &piece).unwrap();
    }
    // Its growth was worth more than what nobody has used since.
    holds(&store, &[older], &[false]);
    let refused = task.land(PieceIndex(3), &piece);
    assert!(
        matches!(refused, Err(StoreError::NoRoom { .. })),
        "{refused:?}"
    );
    assert!(min_free <= available(&dir));
    assert_eq!(read(&task, 0, 3 << 20).unwrap().len(), 3 << 20);
}

#[test]
fn the_scan_finds_what_earlier_runs_left_and_keeps_the_quota() {
    let dir = TempDir::new().unwrap();
    let store = open_with(&dir, 9 * ONE);
    let tasks = [
        put_at(&store, 1, 30),
        put_at(&store, 2, 10),
        put_at(&store, 3, 20),
    ];
    let before = store.usage().blobs;
    drop(store);
    let store = open_with(&dir, 9 * ONE);
    assert_eq!(store.usage().blobs.bytes, 0);
    store.scan();
    assert_eq!(store.usage().blobs, before);
    drop(store);
    let store = open_with(&dir, 2 * ONE);
    store.scan();
    assert!(store.usage().scanned);
    holds(&store, &tasks, &[true, false, true]);
}

#[test]
fn idle_tasks_do_not_keep_descriptors_without_end() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let count = super::super::table::IDLE_OPEN_MAX + 20;
    let bodies: Vec<Vec<u8>> = (0..count).map(|n| n.to_le_bytes().to_vec()).collect();
    let tasks: Vec<TaskId> = bodies.iter().map(|body| put(&store, body)).collect();
    let open_count = tasks
        .iter()
        .filter(|task| store.lookup_open(**task).is_some())
        .count();
    assert!(
        open_count <= super::super::table::IDLE_OPEN_MAX + 1,
        "{open_count}"
    );
    // A task that was closed needs no verification again: only this process has its files.
    fs::write(path_of(&dir, tasks[0], "data"), b"tampered").unwrap();
    assert_eq!(
        read(&store.lookup(tasks[0]).unwrap(), 0, 8).unwrap(),
        b"tampered"
    );
    assert_eq!(store.usage().blobs.tasks as usize, count);
}

#[test]
fn what_is_pinned_stays_also_after_a_restart_until_it_is_unpinned() {
    let dir = TempDir::new().unwrap();
    let store = open_with(&dir, 5 * ONE);
    let (pinned, other) = (put_at(&store, 1, 1), put_at(&store, 2, 2));
    assert_eq!(store.pin(pinned).unwrap(), Pinned::Stays);
    assert_eq!(store.pin(other).unwrap(), Pinned::Stays);
    let third = put_at(&store, 3, 3);
    assert_eq!(store.pin(third).unwrap(), Pinned::NoShare);
    assert_eq!(store.pin(task_of(b"never seen")).unwrap(), Pinned::Missing);
    assert!(store.unpin(other).unwrap() && !store.unpin(other).unwrap());
    for seed in 4..9 {
        put_at(&store, seed, u64::from(seed));
    }
    holds(&store, &[pinned, other, third], &[true, false, false]);
    drop(store);
    let store = open_with(&dir, 5 * ONE);
    store.scan();
    for seed in 10..15 {
        put_at(&store, seed, u64::from(seed));
    }
    holds(&store, &[pinned], &[true]);
    store.unpin(pinned).unwrap();
    for seed in 15..20 {
        put_at(&store, seed, u64::from(seed));
    }
    holds(&store, &[pinned], &[false]);
}

#[test]
fn what_is_retained_goes_after_what_was_used_before_that_time() {
    let dir = TempDir::new().unwrap();
    let store = open_with(&dir, 2 * ONE);
    let retained = put_at(&store, 1, 1);
    store.lookup(retained).unwrap().touch(at(3_000_000_100));
    let later = [put_at(&store, 2, 50), put_at(&store, 3, 60)];
    holds(
        &store,
        &[retained, later[0], later[1]],
        &[true, false, true],
    );
    put_at(&store, 4, 200);
    put_at(&store, 5, 201);
    holds(&store, &[retained], &[false]);
}
