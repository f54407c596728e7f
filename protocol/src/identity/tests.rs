//! Identities of every kind of key, and every certificate that must not pass.

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};

use super::*;
use crate::host::Role;

const DAY: u64 = 24 * 3600;
const GOOD_URI: &str = "darter:roles:proxy+seed";
const GOOD_NAME: &str = "node-1.main.darter.internal";

fn authority() -> Authority {
    Authority::new("main").unwrap()
}

fn node() -> HostId {
    "node-1".parse().unwrap()
}

fn roles(roles: &[Role]) -> Roles {
    roles.iter().copied().collect()
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn load(authority: &Authority, issued: &IssuedPem) -> Result<Identity, IdentityError> {
    Identity::from_pem(authority.ca_pem(), &issued.certificate, &issued.key)
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// Loads a certificate with these names and renders who it names, or why it names nobody.
#[track_caller]
fn check(dns_names: &[&str], uris: &[&str], expect: &str) {
    let authority = authority();
    let issued = authority
        .issue_names(dns_names, uris, key(), (UnixTime::now(), LIFETIME))
        .unwrap();
    let seen = match load(&authority, &issued) {
        Ok(identity) => {
            let roles: Vec<_> = identity.roles().iter().map(Role::as_str).collect();
            format!(
                "{} of {}: {}",
                identity.id(),
                identity.cluster(),
                roles.join(" ")
            )
        }
        Err(error) => error.to_string(),
    };
    assert!(seen.contains(expect), "{seen}");
}

#[test]
fn a_certificate_names_one_host_and_its_roles() {
    check(&[GOOD_NAME], &[GOOD_URI], "node-1 of main: proxy seed");
    check(
        &["localhost", GOOD_NAME],
        &["urn:x", GOOD_URI],
        "node-1 of main: proxy seed",
    );
    check(&[GOOD_NAME], &["darter:roles:"], "node-1 of main: ");
    check(
        &[GOOD_NAME],
        &["darter:roles:oracle+seed"],
        "node-1 of main: seed",
    );
    check(&[], &[GOOD_URI], "it must have one DNS name");
    check(&["localhost"], &[GOOD_URI], "it must have one DNS name");
    check(
        &[GOOD_NAME, "b.main.darter.internal"],
        &[GOOD_URI],
        "it must have one DNS name",
    );
    check(
        &["main.darter.internal"],
        &[GOOD_URI],
        "lacks the id or the cluster",
    );
    check(
        &["a.b.main.darter.internal"],
        &[GOOD_URI],
        "cannot name a cluster",
    );
    check(
        &["*.main.darter.internal"],
        &[GOOD_URI],
        "a host id is a DNS label",
    );
    check(&[GOOD_NAME], &[], "it must have one URI");
    check(
        &[GOOD_NAME],
        &[GOOD_URI, "darter:roles:manager"],
        "it must have one URI",
    );
}

#[test]
fn an_ephemeral_identity_is_what_was_asked_for() {
    let identity = Identity::ephemeral(node(), "main", roles(&Role::ALL)).unwrap();
    assert_eq!((identity.id(), identity.cluster()), (&node(), "main"));
    assert_eq!(identity.roles(), roles(&Role::ALL));
    let error = Identity::ephemeral(node(), "Main.1", Roles::default()).unwrap_err();
    assert_eq!(error, IdentityError::Cluster("Main.1".to_owned()));
}

#[test]
fn every_kind_of_key_signs_and_is_checked() {
    let authority = authority();
    let reader = load(
        &authority,
        &authority.issue(&node(), Roles::default()).unwrap(),
    )
    .unwrap();
    for algorithm in [
        &PKCS_ED25519,
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let now = UnixTime::now();
        let issued = authority
            .issue_names(&[GOOD_NAME], &[GOOD_URI], key, (now, LIFETIME))
            .unwrap();
        let signer = load(&authority, &issued).unwrap();
        let Signed {
            certificate,
            signature,
        } = signer.sign(b"word");
        let peer = reader
            .verify(&certificate, b"word", &signature, now)
            .unwrap();
        assert_eq!(
            peer,
            PeerIdentity {
                id: node(),
                roles: signer.roles()
            }
        );
        assert_eq!(
            reader.verify(&certificate, b"other", &signature, now),
            Err(IdentityError::Signature)
        );
    }
}

#[test]
fn a_known_signer_still_expires() {
    let authority = authority();
    let identity = load(
        &authority,
        &authority.issue(&node(), Roles::default()).unwrap(),
    )
    .unwrap();
    let signed = identity.sign(b"word");
    let now = UnixTime::now().as_secs();
    let verify =
        |seconds| identity.verify(&signed.certificate, b"word", &signed.signature, at(seconds));
    assert!(verify(now).is_ok());
    assert!(verify(now + 29 * DAY).is_ok());
    let expired = IdentityError::Chain(ChainFault::Expired);
    assert_eq!(verify(now + 31 * DAY), Err(expired));
    let early = IdentityError::Chain(ChainFault::NotYet);
    assert_eq!(verify(now - DAY), Err(early));
    assert!(verify(now).is_ok());
}

#[test]
fn each_problem_with_the_three_texts_is_a_sentence() {
    let (ours, theirs) = (authority(), authority());
    let issued = ours.issue(&node(), Roles::default()).unwrap();
    let other = ours.issue(&node(), Roles::default()).unwrap();
    let told = |ca: &str, certificate: &str, key: &str| {
        Identity::from_pem(ca, certificate, key)
            .unwrap_err()
            .to_string()
    };
    let (ca, certificate, key) = (ours.ca_pem(), &issued.certificate, &issued.key);
    let prefix = "the certificate does not hold under the CA of this cluster: ";
    assert_eq!(
        told(ca, certificate, &other.key),
        "the key does not belong to the certificate"
    );
    assert_eq!(
        told(theirs.ca_pem(), certificate, key),
        format!("{prefix}another authority has issued it")
    );
    assert_eq!(
        told("", certificate, key),
        "the CA certificate is not PEM as it should be: it holds no certificate"
    );
    assert_eq!(
        told(ca, "", key),
        "the certificate is not PEM as it should be: it holds none"
    );
    assert_eq!(
        told(ca, certificate, ""),
        "the key is not PEM as it should be: it holds none"
    );
    assert_eq!(
        told(ca, key, certificate),
        "the certificate is not PEM as it should be: it holds none"
    );
    let stale = at(UnixTime::now().as_secs() - 40 * DAY);
    let expired = ours
        .issue_names(&[GOOD_NAME], &[GOOD_URI], self::key(), (stale, LIFETIME))
        .unwrap();
    assert_eq!(
        told(ca, &expired.certificate, &expired.key),
        format!("{prefix}it has expired")
    );
}

#[test]
fn a_peer_of_another_cluster_of_the_same_authority_is_refused() {
    let authority = authority();
    let ours = load(
        &authority,
        &authority.issue(&node(), Roles::default()).unwrap(),
    )
    .unwrap();
    let name = "node-2.other.darter.internal";
    let issued = authority
        .issue_names(&[name], &[GOOD_URI], key(), (UnixTime::now(), LIFETIME))
        .unwrap();
    let theirs = load(&authority, &issued).unwrap();
    let told = IdentityError::OtherCluster {
        told: "other".to_owned(),
        ours: "main".to_owned(),
    };
    let certificate = CertificateDer::from(theirs.certificate());
    assert_eq!(ours.peer(&[certificate]), Err(told.clone()));
    let signed = theirs.sign(b"word");
    let now = UnixTime::now();
    assert_eq!(
        ours.verify(&signed.certificate, b"word", &signed.signature, now),
        Err(told)
    );
    assert!(ours.peer(&[]).is_err());
}
