//! The store through its public calls, on a directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::{
    content::{AttemptId, Content, ContentKind, TaskId, Visibility},
    digest::Digest,
    layout::{Layout, PieceIndex},
};
use tempfile::TempDir;

use super::{Config, ScrubStep, Store, StoreError, StoredTask};

mod crash;
mod eviction;
mod model;
mod unsynced;

const PIECE: usize = 256 * 1024;

fn config(dir: &Path) -> Config {
    let quota = 1 << 40;
    Config {
        dir: dir.to_owned(),
        storage_quota: quota,
        manifest_quota: quota,
        min_free: 0,
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn open(dir: &TempDir) -> Store {
    Store::open(config(dir.path()), at(4_000_000_000)).unwrap()
}

/// Bytes that differ from piece to piece and from seed to seed.
fn body(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn task_of(body: &[u8]) -> TaskId {
    TaskId(Digest::Sha256(*blake3::hash(body).as_bytes()))
}

fn content(size: Option<u64>) -> Content {
    Content {
        attempt: AttemptId(7),
        layout: Layout::for_size(size),
        media_type: Some("application/x-test".to_owned()),
        visibility: Visibility::Private {
            origins: vec!["r.example:5000".parse().unwrap()],
        },
    }
}

fn begin(store: &Store, body: &[u8]) -> std::sync::Arc<StoredTask> {
    let content = content(Some(body.len() as u64));
    store
        .create(task_of(body), ContentKind::Blob, &content)
        .unwrap()
}

/// Stores `body` whole.
fn put(store: &Store, body: &[u8]) -> TaskId {
    let task = begin(store, body);
    land_all(&task, body);
    task.complete().unwrap();
    task.task()
}

fn land_all(task: &StoredTask, body: &[u8]) {
    for (index, piece) in body
        .chunks(task.content().layout.piece_len() as usize)
        .enumerate()
    {
        task.land(PieceIndex(index as u32), piece).unwrap();
    }
}

fn read(task: &StoredTask, start: usize, end: usize) -> Result<Vec<u8>, StoreError> {
    let mut buffer = Vec::new();
    task.read(start as u64..end as u64, &mut buffer)
        .map(|()| buffer)
}

fn path_of(dir: &TempDir, task: TaskId, file: &str) -> PathBuf {
    let encoded = task.0.encoded();
    dir.path()
        .join("v1")
        .join(task.0.algorithm())
        .join(&encoded[..2])
        .join(encoded)
        .join(file)
}

#[test]
fn what_is_landed_is_read_back_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let body = body(1, 2 * PIECE + 100);
    let store = open(&dir);
    let task = put(&store, &body);
    let handle = store.lookup(task).unwrap();
    handle.append_batch(b"first").unwrap();
    handle.append_batch(b"second").unwrap();
    let digest = handle.digest_of(PieceIndex(2));
    drop((store, handle));

    let store = open(&dir);
    assert!(
        store.lookup_open(task).is_none(),
        "nothing is opened before it is asked for"
    );
    let handle = store.lookup(task).unwrap();
    assert_eq!(handle.content(), content(Some(body.len() as u64)));
    assert_eq!(
        handle.batches().unwrap(),
        [b"first".to_vec(), b"second".to_vec()]
    );
    assert_eq!(handle.digest_of(PieceIndex(2)), digest);
    assert!(handle.is_complete() && handle.held().len() == 3);
    assert_eq!(
        read(&handle, PIECE - 5, 2 * PIECE + 7).unwrap(),
        body[PIECE - 5..2 * PIECE + 7]
    );
    assert_eq!(read(&handle, 0, body.len()).unwrap(), body);
    assert_eq!(handle.held_to(3), body.len() as u64);
}

#[test]
fn what_is_read_at_once_is_verified_and_right() {
    let dir = tempfile::tempdir().unwrap();
    let body = body(1, 2 * PIECE + 5);
    let store = open(&dir);
    let task = begin(&store, &body);
    let mut buffer = vec![0; PIECE];
    assert!(!task.read_at_once(0, &mut buffer), "nothing is held");
    land_all(&task, &body);
    task.complete().unwrap();
    let middle = PIECE / 2;
    // A file system that cannot tell what is in memory may say no, and never anything wrong.
    if task.read_at_once(middle as u64, &mut buffer) {
        assert_eq!(buffer, body[middle..middle + PIECE]);
    }
    let last = body.len() as u64 - 1;
    assert!(!task.read_at_once(last, &mut [0; 2]), "past the end");
    let name = task.task();
    drop((task, store));
    let task = open(&dir).lookup(name).unwrap();
    assert!(!task.read_at_once(0, &mut buffer), "not verified yet");
    read(&task, 0, PIECE).unwrap();
    if task.read_at_once(0, &mut buffer) {
        assert_eq!(buffer, body[..PIECE]);
    }
    assert!(!task.read_at_once(1, &mut buffer), "the next piece is not");
}

#[test]
fn a_body_with_no_size_grows_until_it_ends() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let body = body(3, (2 << 20) + 10);
    let id = task_of(&body);
    let task = store.create(id, ContentKind::Blob, &content(None)).unwrap();
    task.land(PieceIndex(0), &body[..1 << 20]).unwrap();
    task.write_partial(1 << 20, &body[1 << 20..]).unwrap();
    let mut partial = Vec::new();
    task.read_partial((1 << 20) + 3..(2 << 20) + 10, &mut partial)
        .unwrap();
    assert_eq!(partial, body[(1 << 20) + 3..]);
    assert!(task.complete().is_err());
    assert!(task.end_at(5).is_err(), "a piece is held past it");
    task.end_at(body.len() as u64).unwrap();
    for piece in [1, 2] {
        let range = task.content().layout.bytes_of(PieceIndex(piece));
        let digest = blake3::hash(&body[range.start as usize..range.end as usize]);
        task.land_written(PieceIndex(piece), *digest.as_bytes())
            .unwrap();
    }
    task.complete().unwrap();
    drop((task, store));
    let task = open(&dir).lookup(id).unwrap();
    assert!(task.is_complete());
    assert_eq!(read(&task, 0, body.len()).unwrap(), body);
}

#[test]
fn an_empty_body_and_one_past_4_gib_work() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let empty = put(&store, b"");
    assert_eq!(read(&store.lookup(empty).unwrap(), 0, 0).unwrap(), b"");

    let size = 5u64 << 30;
    let layout = Layout::for_size(Some(size));
    let id = task_of(b"large");
    let task = store
        .create(id, ContentKind::Blob, &content(Some(size)))
        .unwrap();
    let last = PieceIndex(layout.piece_count().unwrap() - 1);
    let piece = body(4, layout.piece_len() as usize);
    task.land(last, &piece).unwrap();
    drop((task, store));
    let store = open(&dir);
    let task = store.lookup(id).unwrap();
    let mut buffer = Vec::new();
    task.read(size - 10..size, &mut buffer).unwrap();
    assert_eq!(buffer, piece[piece.len() - 10..]);
    assert!(store.usage().blobs.bytes < 64 << 20, "holes take no room");
}

#[test]
fn who_contradicts_the_layout_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let body = body(5, PIECE + 1);
    let task = begin(&store, &body);
    let is_contradiction = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::Contradiction(_))))
    };
    is_contradiction(task.land(PieceIndex(2), b"x").map(drop));
    is_contradiction(task.land(PieceIndex(1), b"xy").map(drop));
    is_contradiction(task.land_written(PieceIndex(2), [0; 32]));
    is_contradiction(task.write_partial(PIECE as u64, b"xy"));
    is_contradiction(task.write_partial(u64::MAX, b"xy"));
    is_contradiction(task.end_at(1));
    is_contradiction(read(&task, 0, PIECE + 2).map(drop));
    assert!(matches!(
        read(&task, 0, 1),
        Err(StoreError::NotHeld {
            piece: PieceIndex(0)
        })
    ));
    assert!(matches!(
        task.complete(),
        Err(StoreError::NotHeld {
            piece: PieceIndex(0)
        })
    ));
    let unknown = store
        .create(task_of(b"?"), ContentKind::Blob, &content(None))
        .unwrap();
    is_contradiction(unknown.read_partial(u64::MAX - 4..u64::MAX, &mut Vec::new()));
    is_contradiction(unknown.write_partial(u64::MAX - 4, b"x"));
}

#[test]
fn a_held_piece_is_not_written_again() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let body = body(6, 2 * PIECE);
    let task = begin(&store, &body);
    let digest = task.land(PieceIndex(0), &body[..PIECE]).unwrap();
    assert_eq!(task.land(PieceIndex(0), &vec![0; PIECE]).unwrap(), digest);
    task.write_partial(PIECE as u64 - 2, b"abcd").unwrap();
    assert_eq!(read(&task, 0, PIECE).unwrap(), body[..PIECE]);
    let mut partial = Vec::new();
    task.read_partial(PIECE as u64..PIECE as u64 + 2, &mut partial)
        .unwrap();
    assert_eq!(partial, b"cd");
}

#[test]
fn readers_go_on_while_pieces_land() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let body = body(7, 12 * PIECE + 9);
    let task = begin(&store, &body);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut seen = Vec::new();
                while seen.len() < body.len() {
                    let to = task.held_to(seen.len() as u64);
                    task.read(seen.len() as u64..to, &mut seen).unwrap();
                    std::thread::yield_now();
                }
                assert!(seen == body);
            });
        }
        land_all(&task, &body);
    });
}

#[test]
fn a_reader_of_a_replaced_attempt_finishes() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let body = body(8, PIECE);
    let id = put(&store, &body);
    let old = store.lookup(id).unwrap();
    let new = Content {
        attempt: AttemptId(8),
        ..content(Some(PIECE as u64))
    };
    let new = store.create(id, ContentKind::Blob, &new).unwrap();
    assert_eq!(read(&old, 0, PIECE).unwrap(), body);
    assert!(matches!(old.append_batch(b"x"), Err(StoreError::Removed)));
    assert!(!old.remove(), "it is not the current attempt");
    assert!(new.held().is_empty());
    new.land(PieceIndex(0), &vec![1; PIECE]).unwrap();
    assert_eq!(read(&old, 0, PIECE).unwrap(), body);
    assert_eq!(store.lookup(id).unwrap().content().attempt, AttemptId(8));
    assert!(new.remove());
    assert!(store.lookup(id).is_none());
    assert_eq!(store.take_removals(), [id, id]);
    drop((old, new));
    assert_eq!(store.usage().blobs.bytes, 0);
}

#[test]
fn the_list_tells_what_is_stored() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let whole = put(&store, &body(9, 10));
    let part = begin(&store, &body(10, PIECE)).task();
    store
        .lookup(whole)
        .unwrap()
        .set_visibility(&Visibility::Public)
        .unwrap();
    store.lookup(whole).unwrap().touch(at(5));
    let mut list: Vec<_> = store
        .list()
        .map(|item| (item.task, item.complete, item.size))
        .collect();
    list.sort_unstable_by_key(|item| item.2);
    assert_eq!(
        list,
        [(whole, true, Some(10)), (part, false, Some(PIECE as u64))]
    );
    let item = store.list().find(|item| item.task == whole).unwrap();
    assert_eq!(
        (item.visibility, item.last_used),
        (Visibility::Public, at(5))
    );
    assert!(store.remove(whole) && !store.remove(whole));
    assert_eq!(store.list().count(), 1);
}

#[test]
fn one_process_has_the_directory() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let refused = Store::open(config(dir.path()), at(0)).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    drop(store);
    open(&dir);
}

#[test]
fn a_directory_of_a_newer_release_or_none_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("v2")).unwrap();
    let refused = Store::open(config(dir.path()), at(0)).unwrap_err();
    assert!(
        matches!(refused, StoreError::NewerFormat { .. }),
        "{refused}"
    );
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let refused = Store::open(config(&file), at(0)).unwrap_err();
    assert!(matches!(refused, StoreError::Directory { .. }), "{refused}");
}
