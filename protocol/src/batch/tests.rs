//! Every way in which a batch may be forged, replayed, cut or garbled is tried here.

use std::time::Duration;

use proptest::{
    collection::vec,
    prelude::{any, prop_assert_eq, proptest},
    sample::Index,
};

use super::*;
use crate::{digest::Digest, host::Roles, identity::Authority};

const CLUSTER: &str = "main";

fn now() -> UnixTime {
    UnixTime::now()
}

fn host(authority: &Authority, id: &str, roles: &[Role]) -> Identity {
    let issued = authority
        .issue(&id.parse().unwrap(), roles.iter().copied().collect())
        .unwrap();
    Identity::from_pem(authority.ca_pem(), &issued.certificate, &issued.key).unwrap()
}

fn batch() -> PieceBatch {
    PieceBatch {
        task: TaskId(Digest::sha256_of(b"layer")),
        attempt: AttemptId(7),
        layout: Layout::for_size(Some(1 << 20)),
        visibility: Visibility::Public,
        digests: (0..4)
            .map(|index| (PieceIndex(index), [index as u8; 32]))
            .collect(),
    }
}

fn private_batch() -> PieceBatch {
    let origins = vec![
        "docker.io".parse().unwrap(),
        "r.example:5000".parse().unwrap(),
    ];
    let task = TaskId(Digest::Sha512([9; 64]));
    let visibility = Visibility::Private { origins };
    PieceBatch {
        task,
        visibility,
        layout: Layout::for_size(None),
        ..batch()
    }
}

/// Signs [`batch`] as a seed, lets `tamper` loose on it, and says what another host makes of it.
#[track_caller]
fn check(tamper: impl FnOnce(&mut SignedBatch), expect: Result<(), BatchError>) {
    let authority = Authority::new(CLUSTER).unwrap();
    let seed = host(&authority, "seed-1", &[Role::Seed]);
    let reader = host(&authority, "node-1", &[Role::Proxy]);
    let mut signed = batch().sign(&seed);
    tamper(&mut signed);
    assert_eq!(signed.verify(&reader, None, now()).map(|_| ()), expect);
}

#[test]
fn the_word_of_a_seed_holds() {
    check(|_| (), Ok(()));
}

#[test]
fn a_batch_cannot_be_changed_or_replayed_into_another() {
    let forged = || Err(BatchError::Signature);
    check(|signed| signed.batch.digests[2].1[31] ^= 1, forged());
    check(
        |signed| signed.batch.task = TaskId(Digest::sha256_of(b"other")),
        forged(),
    );
    check(|signed| signed.batch.attempt = AttemptId(8), forged());
    check(
        |signed| signed.batch.layout = Layout::for_size(Some((1 << 20) - 1)),
        forged(),
    );
    check(
        |signed| signed.batch.layout = Layout::for_size(None),
        forged(),
    );
    check(
        |signed| signed.batch.visibility = private_batch().visibility,
        forged(),
    );
    check(|signed| signed.batch.digests.truncate(3), forged());
    check(|signed| signed.signature[5] ^= 1, forged());
    check(|signed| signed.signature.truncate(1), forged());
    check(|signed| signed.signature[1] ^= 1, forged());
    let swapped = |signed: &mut SignedBatch| {
        let digest = signed.batch.digests[0].1;
        signed.batch.digests[0].1 = signed.batch.digests[1].1;
        signed.batch.digests[1].1 = digest;
    };
    check(swapped, forged());
}

#[test]
fn a_batch_in_another_order_is_malformed() {
    let disorder = BatchError::Malformed("its pieces are not in ascending order");
    check(
        |signed| signed.batch.digests.swap(0, 1),
        Err(disorder.clone()),
    );
    check(
        |signed| signed.batch.digests[1].0 = PieceIndex(0),
        Err(disorder),
    );
    let past = BatchError::Malformed("it has a piece past the end of the task");
    check(
        |signed| signed.batch.digests[3].0 = PieceIndex(4),
        Err(past),
    );
}

#[test]
fn signing_puts_the_pieces_in_order() {
    let authority = Authority::new(CLUSTER).unwrap();
    let seed = host(&authority, "seed-1", &[Role::Seed]);
    let mut shuffled = batch();
    shuffled.digests.reverse();
    assert_eq!(shuffled.sign(&seed).batch, batch());
}

#[test]
fn a_signer_needs_the_seed_role_or_the_grant() {
    let authority = Authority::new(CLUSTER).unwrap();
    let node = host(&authority, "node-2", &[Role::Proxy]);
    let reader = host(&authority, "node-1", &[Role::Proxy]);
    let signed = batch().sign(&node);
    let no_right = Err(BatchError::NoRight(node.id().clone()));
    assert_eq!(signed.verify(&reader, None, now()), no_right);
    assert_eq!(signed.verify(&reader, Some(reader.id()), now()), no_right);
    let held = signed.verify(&reader, Some(node.id()), now()).unwrap();
    assert_eq!(
        held,
        PeerIdentity {
            id: node.id().clone(),
            roles: node.roles()
        }
    );
}

#[test]
fn a_certificate_of_another_authority_or_cluster_gives_no_right() {
    let reader = host(&Authority::new(CLUSTER).unwrap(), "node-1", &[Role::Proxy]);
    let foreign = host(&Authority::new(CLUSTER).unwrap(), "seed-1", &[Role::Seed]);
    let error = batch()
        .sign(&foreign)
        .verify(&reader, None, now())
        .unwrap_err();
    assert!(matches!(error, BatchError::Certificate(_)), "{error}");
}

#[test]
fn the_certificate_of_somebody_else_does_not_fit_the_signature() {
    let authority = Authority::new(CLUSTER).unwrap();
    let node = host(&authority, "node-2", &[Role::Proxy]);
    let seed = host(&authority, "seed-1", &[Role::Seed]);
    let mut signed = batch().sign(&node);
    signed.certificate = seed.certificate();
    assert_eq!(
        signed.verify(&seed, None, now()),
        Err(BatchError::Signature)
    );
    signed.certificate.clear();
    assert!(matches!(
        signed.verify(&seed, None, now()),
        Err(BatchError::Certificate(_))
    ));
}

/// A seed whose certificate holds for a minute, and the time after that.
fn short_lived(authority: &Authority) -> (Identity, UnixTime) {
    let issued = authority
        .issue_for(
            &"seed-1".parse().unwrap(),
            [Role::Seed].into_iter().collect(),
            Duration::from_secs(60),
        )
        .unwrap();
    let seed = Identity::from_pem(authority.ca_pem(), &issued.certificate, &issued.key).unwrap();
    let later = Duration::from_secs(now().as_secs() + 120);
    (seed, UnixTime::since_unix_epoch(later))
}

#[test]
fn what_an_ended_certificate_has_signed_is_no_lie_and_what_it_has_not_is() {
    let authority = Authority::new(CLUSTER).unwrap();
    let reader = host(&authority, "node-1", &[Role::Proxy]);
    let (seed, later) = short_lived(&authority);
    let signed = batch().sign(&seed);
    assert!(signed.verify(&reader, None, now()).is_ok());
    let judged = |signed: &SignedBatch| signed.verify(&reader, None, later).unwrap_err();
    assert_eq!(judged(&signed), BatchError::Untimely);
    let mut forged = signed.clone();
    forged.batch.digests[0].1 = [9; 32];
    assert_eq!(judged(&forged), BatchError::Signature);
    let (stranger, _) = short_lived(&Authority::new(CLUSTER).unwrap());
    let foreign = judged(&batch().sign(&stranger));
    assert!(matches!(foreign, BatchError::Certificate(_)), "{foreign}");
    // A clock that is behind makes nobody a liar either.
    let earlier = UnixTime::since_unix_epoch(Duration::from_secs(now().as_secs() - 3600));
    let early = signed.verify(&reader, None, earlier).unwrap_err();
    assert_eq!(early, BatchError::Untimely);
    assert!(!early.is_lie());
    for lie in [judged(&forged), foreign] {
        assert!(lie.is_lie(), "{lie}");
    }
}

#[test]
fn a_host_renews_its_own_word_alone() {
    let authority = Authority::new(CLUSTER).unwrap();
    let (seed, later) = short_lived(&authority);
    let reader = host(&authority, "node-1", &[Role::Proxy]);
    let ended = batch().sign(&seed);
    assert_eq!(ended.renewed(&seed, later), None, "it is shown still");
    let newer = host(&authority, "seed-1", &[Role::Seed]);
    seed.renew(seed.renewal(&newer).unwrap());
    let renewed = ended.renewed(&seed, later).unwrap();
    assert_eq!(renewed.batch, ended.batch);
    assert!(renewed.verify(&reader, None, later).is_ok());
    assert_eq!(ended.renewed(&reader, later), None);
    let mut forged = ended;
    forged.batch.digests[0].1 = [9; 32];
    assert_eq!(forged.renewed(&seed, later), None);
}

#[test]
fn what_is_written_is_read_back_and_nothing_shorter_or_longer() {
    let seed = Identity::ephemeral("seed-1".parse().unwrap(), CLUSTER, Roles::default()).unwrap();
    for batch in [
        batch(),
        private_batch(),
        PieceBatch {
            digests: Vec::new(),
            ..batch()
        },
    ] {
        let signed = batch.sign(&seed);
        let mut bytes = signed.to_bytes();
        assert_eq!(SignedBatch::from_bytes(&bytes), Ok(signed));
        for end in 0..bytes.len() {
            assert!(
                SignedBatch::from_bytes(&bytes[..end]).is_err(),
                "cut at {end}"
            );
        }
        bytes.push(0);
        assert!(SignedBatch::from_bytes(&bytes).is_err());
    }
}

#[test]
fn a_batch_past_its_bounds_is_not_read() {
    let seed = Identity::ephemeral("seed-1".parse().unwrap(), CLUSTER, Roles::default()).unwrap();
    let pieces = 0..=BATCH_PIECES_MAX as u32;
    let many = pieces.map(|index| (PieceIndex(index), [0; 32])).collect();
    let long = PieceBatch {
        digests: many,
        layout: Layout::for_size(None),
        ..batch()
    }
    .sign(&seed);
    assert!(SignedBatch::from_bytes(&long.to_bytes()).is_err());
    assert!(matches!(
        long.verify(&seed, None, now()),
        Err(BatchError::Malformed(_))
    ));
    let origins = vec!["a.example".parse().unwrap(); BATCH_ORIGINS_MAX + 1];
    let visibility = Visibility::Private { origins };
    let wide = PieceBatch {
        visibility,
        ..batch()
    }
    .sign(&seed);
    assert!(SignedBatch::from_bytes(&wide.to_bytes()).is_err());
    let mut fat = batch().sign(&seed);
    fat.certificate = vec![0; 1 << 20];
    assert!(SignedBatch::from_bytes(&fat.to_bytes()).is_err());
}

proptest! {
    #[test]
    fn garbage_is_refused(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(signed) = SignedBatch::from_bytes(&bytes) {
            prop_assert_eq!(signed.to_bytes(), bytes);
        }
    }

    /// Whatever a flipped byte is read as, it is never a second encoding of the same batch.
    #[test]
    fn a_flipped_byte_makes_another_batch_or_none(at in any::<Index>(), flip in 1u8..) {
        let certificate = vec![1; 40];
        let signed = SignedBatch { batch: private_batch(), certificate, signature: vec![2; 66] };
        let mut bytes = signed.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(other) = SignedBatch::from_bytes(&bytes) {
            prop_assert_eq!(other.to_bytes(), bytes);
        }
    }
}
