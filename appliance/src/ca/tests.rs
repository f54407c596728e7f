//! Authorities on a real disk, and their leaves before verifiers that are not ours.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use proxy::Certificates as _;
use rustls::{RootCertStore, client::WebPkiServerVerifier, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};

use super::*;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn now() -> SystemTime {
    UNIX_EPOCH + 60 * YEAR
}

fn at(when: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(when.duration_since(UNIX_EPOCH).unwrap())
}

fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).unwrap()
}

fn registry(text: &str) -> Owner {
    Owner::Registry(text.parse().unwrap())
}

/// Whether a client that trusts `authority` takes `leaf` for `host`.
fn is_taken(authority: &str, leaf: &CertificateDer<'_>, host: &str, when: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let verified = rustls::client::danger::ServerCertVerifier::verify_server_cert(
        verifier.as_ref(),
        leaf,
        &[],
        &name(host),
        &[],
        at(when),
    );
    verified.is_ok()
}

#[test]
fn a_leaf_is_taken_for_its_own_name_while_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let authorities = Authorities::new(directory.path());
    for (owner, host) in [
        (registry("r.example:5000"), "r.example"),
        (registry("docker.io"), "registry-1.docker.io"),
        (registry("docker.io"), "index.docker.io"),
        (registry("10.0.0.7:5000"), "10.0.0.7"),
        (registry("[fd00::7]"), "fd00::7"),
        (Owner::Loopback, "localhost"),
        (Owner::Loopback, "127.0.0.1"),
        (Owner::Loopback, "::1"),
    ] {
        let authority = authorities.open(&owner, now()).unwrap();
        let leaf = issue::leaf(&owner, &authority.key, &name(host), now()).unwrap();
        let taken = |when| is_taken(&authority.certificate, &leaf.certificate, host, when);
        assert!(taken(now()), "{host}");
        assert!(taken(now() - Duration::from_secs(30 * 60)), "{host}");
        assert!(taken(leaf.renew_at), "{host}");
        assert!(!taken(now() + Duration::from_secs(8 * 24 * 3600)), "{host}");
        let other = issue::leaf(&owner, &authority.key, &name("other.example"), now());
        assert!(other.is_err());
    }
}

#[test]
fn a_key_is_kept_for_its_owner_alone_and_serves_again() {
    let directory = tempfile::tempdir().unwrap();
    let authorities = Authorities::new(directory.path());
    let first = authorities.open(&registry("r.example"), now()).unwrap();
    let own = directory.path().join("ca/r.example");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&own.join("key.pem")), 0o600);
    assert_eq!(mode(&own), 0o700);
    let again = authorities.open(&registry("r.example"), now()).unwrap();
    assert_eq!(again.certificate, first.certificate);
    assert_eq!(authorities.made().unwrap(), [registry("r.example")]);
}

#[test]
fn an_authority_is_renewed_in_time_and_what_trusts_the_last_one_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let authorities = Authorities::new(directory.path());
    let owner = registry("r.example");
    let first = authorities.open(&owner, now()).unwrap();
    let later = now() + 4 * YEAR + Duration::from_secs(3600);
    let second = authorities.open(&owner, later).unwrap();
    assert_ne!(second.certificate, first.certificate);
    assert!(second.not_after > first.not_after);
    let leaf = issue::leaf(&owner, &second.key, &name("r.example"), later).unwrap();
    for authority in [&first, &second] {
        let taken = is_taken(
            &authority.certificate,
            &leaf.certificate,
            "r.example",
            later,
        );
        assert!(taken);
    }
}

#[test]
fn what_a_power_cut_left_is_made_whole() {
    let directory = tempfile::tempdir().unwrap();
    let authorities = Authorities::new(directory.path());
    let owner = registry("r.example");
    authorities.open(&owner, now()).unwrap();
    let own = directory.path().join("ca/r.example");
    fs::remove_file(own.join("ca.pem")).unwrap();
    let second = authorities.open(&owner, now()).unwrap();
    let other = issue::new_key().unwrap();
    let foreign = issue::authority(&owner, &other, now()).unwrap();
    fs::write(own.join("ca.pem"), foreign).unwrap();
    let third = authorities.open(&owner, now()).unwrap();
    let leaf = issue::leaf(&owner, &third.key, &name("r.example"), now()).unwrap();
    let trusted = [&second, &third].map(|authority| &authority.certificate);
    for authority in trusted {
        assert!(is_taken(authority, &leaf.certificate, "r.example", now()));
    }
    fs::write(own.join("key.pem"), "spoiled").unwrap();
    assert!(
        authorities.open(&owner, now()).is_err(),
        "no key is thrown away"
    );
}

#[test]
fn names_that_a_pattern_lets_in_make_no_end_of_authorities() {
    let directory = tempfile::tempdir().unwrap();
    let authorities = Authorities::new(directory.path());
    for number in 0..1024 {
        let own = directory.path().join(format!("ca/r{number}.example"));
        fs::create_dir_all(own).unwrap();
    }
    assert!(
        authorities
            .open(&registry("one.more.example"), now())
            .is_err()
    );
    assert!(authorities.open(&registry("r7.example"), now()).is_ok());
}

#[test]
fn many_at_once_are_given_one_authority() {
    let directory = tempfile::tempdir().unwrap();
    let authorities = Authorities::new(directory.path());
    let opened: Vec<_> = std::thread::scope(|scope| {
        let open = || authorities.open(&registry("r.example"), now()).unwrap();
        let running: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        let ended = running.into_iter().map(|one| one.join().unwrap());
        ended.map(|authority| authority.certificate).collect()
    });
    assert!(opened.iter().all(|one| *one == opened[0]));
}

#[tokio::test]
async fn a_certificate_is_made_once_and_anew_for_a_new_authority() {
    let directory = tempfile::tempdir().unwrap();
    let leaves = Leaves::new(Authorities::new(directory.path()), now);
    let owner = registry("r.example");
    let tls = || async { leaves.tls(&owner, &name("r.example")).await.unwrap() };
    let first = tls().await;
    assert!(Arc::ptr_eq(&first, &tls().await));
    fs::remove_dir_all(directory.path().join("ca/r.example")).unwrap();
    let second = tls().await;
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &tls().await));
    let foreign = leaves.tls(&owner, &name("other.example")).await;
    assert!(foreign.is_err());
}
