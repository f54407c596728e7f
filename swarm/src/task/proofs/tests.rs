//! Batches that were kept, also by hosts whose certificate has ended or was replaced since.

use std::{ops::Range, time::Duration};

use protocol::{
    AttemptId, ContentKind, Digest, Layout, Role, Visibility,
    identity::{Authority, LIFETIME},
};

use super::*;
use crate::store::{Config, Store};

const PIECES: u32 = 3;
const SIZE: u64 = 2 * (256 << 10) + 1;

fn batch(pieces: Range<u32>) -> PieceBatch {
    PieceBatch {
        task: TaskId(Digest::sha256_of(b"task")),
        attempt: AttemptId(1),
        layout: Layout::for_size(Some(1 << 30)),
        visibility: Visibility::Public,
        digests: pieces.map(|index| (PieceIndex(index), [0; 32])).collect(),
    }
}

fn unsigned(pieces: Range<u32>) -> SignedBatch {
    SignedBatch {
        batch: batch(pieces),
        certificate: Vec::new(),
        signature: Vec::new(),
    }
}

/// How many of `kept` are told and how many of them were checked, where those of one piece hold
/// and longer ones hold if `sums_hold`.
#[track_caller]
fn check(kept: &[Range<u32>], sums_hold: bool, expect: (usize, usize)) {
    let checked = Cell::new(0);
    let told = telling(kept.iter().cloned().map(unsigned).collect(), |signed| {
        checked.set(checked.get() + 1);
        (sums_hold || signed.batch.digests.len() == 1).then_some(signed)
    });
    assert_eq!((told.len(), checked.get()), expect);
}

#[test]
fn what_was_signed_once_more_all_together_stands_for_its_parts() {
    check(&[0..1, 1..2, 2..3, 0..3], true, (1, 1));
    check(&[0..1, 1..2, 2..3], true, (3, 3));
    check(&[0..1, 0..2, 3..4], true, (2, 2));
}

#[test]
fn a_sum_that_does_not_hold_stands_for_nothing() {
    check(&[0..1, 1..2, 0..2], false, (2, 3));
}

fn host(authority: &Authority, id: &str, role: Role, lifetime: Duration) -> Identity {
    let roles = [role].into_iter().collect();
    let issued = authority.issue_for(&id.parse().unwrap(), roles, lifetime);
    let issued = issued.unwrap();
    Identity::from_pem(authority.ca_pem(), &issued.certificate, &issued.key).unwrap()
}

/// What becomes of a batch that `signer` with `role` signed for a minute, at `host-1` of a
/// newer certificate, `later` than that: whether it is told as it was, anew, or not.
#[track_caller]
fn check_later(signer: &str, role: Role, later: Duration, expect: Option<(bool, Word)>) {
    let authority = Authority::new("main").unwrap();
    let signer = host(&authority, signer, role, Duration::from_secs(60));
    let here = host(&authority, "host-1", role, LIFETIME);
    let signed = batch(0..PIECES).sign(&signer);
    let now = Duration::from_secs(wall_clock().as_secs()) + later;
    let held = held_now(signed.clone(), &here, UnixTime::since_unix_epoch(now));
    let seen = held.map(|(held, word)| {
        assert_eq!(held.batch, signed.batch);
        let is_anew = here.shows(&held.certificate);
        assert!(is_anew || held == signed);
        (is_anew, word)
    });
    assert_eq!(seen, expect, "{} {role:?}", signer.id());
}

#[test]
fn a_host_tells_its_own_word_by_the_certificate_that_it_shows_now() {
    let (soon, late) = (Duration::ZERO, Duration::from_secs(120));
    for role in [Role::Seed, Role::Proxy] {
        check_later("host-1", role, soon, Some((true, Word::Vouched)));
        check_later("host-1", role, late, Some((true, Word::Vouched)));
    }
    check_later("host-2", Role::Seed, soon, Some((false, Word::Vouched)));
    check_later("host-2", Role::Proxy, soon, Some((false, Word::Anybodys)));
    check_later("host-2", Role::Seed, late, None);
    check_later("host-2", Role::Proxy, late, None);
}

#[test]
fn what_is_here_whole_is_signed_here_where_nobody_elses_word_holds_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let store = Config {
        dir: directory.path().to_owned(),
        storage_quota: 1 << 40,
        manifest_quota: 1 << 40,
        min_free: 0,
    };
    let store = Store::open(store, std::time::UNIX_EPOCH).unwrap();
    let content = Content {
        attempt: AttemptId(7),
        layout: Layout::for_size(Some(SIZE)),
        media_type: None,
        visibility: Visibility::Public,
    };
    let task = TaskId(Digest::sha256_of(b"whole"));
    let file = store.create(task, ContentKind::Blob, &content).unwrap();
    let authority = Authority::new("main").unwrap();
    let seed = host(&authority, "seed", Role::Seed, LIFETIME);
    for piece in (0..PIECES).map(PieceIndex) {
        assert_eq!(own_word(&file, &content, &seed), None);
        let bytes = content.layout.bytes_of(piece);
        let bytes = vec![piece.0 as u8; (bytes.end - bytes.start) as usize];
        file.land(piece, &bytes).unwrap();
    }
    assert_eq!(
        own_word(&file, &content, &seed),
        None,
        "its digest may not hold"
    );
    file.complete().unwrap();
    let told = own_word(&file, &content, &seed).unwrap();
    let [told] = told.as_slice() else {
        panic!("one batch has room for all: {told:?}");
    };
    let reader = host(&authority, "host-1", Role::Proxy, LIFETIME);
    assert!(told.verify(&reader, None, wall_clock()).is_ok());
    let last = (PieceIndex(2), *blake3::hash(&[2]).as_bytes());
    assert_eq!((told.batch.digests.len(), told.batch.digests[2]), (3, last));
}
