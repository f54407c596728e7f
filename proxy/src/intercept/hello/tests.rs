//! ClientHellos of a real library, whole, in parts, and spoiled.

use std::sync::Arc;

use proptest::prelude::{any, prop_assert, proptest};
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};

use super::*;

/// What rustls sends first to `name`.
fn client_hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The messages of `bytes` in records of `length` bytes.
fn split(bytes: &[u8], length: usize) -> Vec<u8> {
    let messages = handshake(bytes).unwrap();
    let records = messages.chunks(length).flat_map(|chunk| {
        let length = u16::try_from(chunk.len()).unwrap().to_be_bytes();
        [&[22, 3, 1, length[0], length[1]], chunk].concat()
    });
    records.collect()
}

/// A ClientHello with these extensions and nothing else of interest.
fn with_extensions(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let sized = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length, bytes].concat()
    };
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, value)| [&kind.to_be_bytes(), sized(value).as_slice()].concat())
        .collect();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(sized(&extensions));
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1, 0, length[0], length[1]], body.as_slice()].concat();
    [&[22, 3, 1], sized(&message).as_slice()].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    let length = name.len() as u8;
    [&[0, length + 3, 0, 0, length], name].concat()
}

/// What is read of `bytes`, with no shape.
fn read(bytes: &[u8]) -> Opening {
    match super::read(bytes) {
        Opening::Tls(hello) => Opening::Tls(Hello { shape: 0, ..hello }),
        other => other,
    }
}

fn shape(bytes: &[u8]) -> u64 {
    match super::read(bytes) {
        Opening::Tls(hello) => hello.shape,
        other => panic!("{other:?}"),
    }
}

fn named(sni: Option<&str>, has_ech: bool) -> Opening {
    Opening::Tls(Hello {
        sni: sni.map(str::to_owned),
        has_ech,
        shape: 0,
    })
}

#[test]
fn a_real_client_hello_names_its_server() {
    let whole = client_hello("Registry.Example");
    assert_eq!(read(&whole), named(Some("registry.example"), false));
    assert_eq!(read(&client_hello("10.0.0.7")), named(None, false));
    let early_data = [whole.as_slice(), b"\x17\x03\x03\x00\x01x"].concat();
    assert_eq!(read(&early_data), read(&whole));
}

#[test]
fn every_beginning_of_it_is_incomplete_and_however_it_is_cut_into_records() {
    let whole = client_hello("registry.example");
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), Opening::Incomplete, "{length}");
    }
    for length in [1, 3, 4, 64, 1000] {
        let split = split(&whole, length);
        assert_eq!(read(&split), named(Some("registry.example"), false));
        assert_eq!(read(&split[..split.len() - 1]), Opening::Incomplete);
    }
}

#[test]
fn what_is_no_client_hello_is_told_at_once() {
    for other in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0-x",
        b"\x16\x02\x00\x00\x05",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ] {
        assert_eq!(read(other), Opening::Other, "{other:?}");
    }
}

#[test]
fn extensions_are_read_for_the_name_and_for_an_encrypted_one() {
    let name = sni(b"Registry.Example.");
    assert_eq!(
        read(&with_extensions(&[(43, b"\x02\x03\x04"), (0, &name)])),
        named(Some("registry.example"), false)
    );
    assert_eq!(
        read(&with_extensions(&[(0xfe0d, b"x"), (0, &name)])),
        named(Some("registry.example"), true)
    );
    assert_eq!(read(&with_extensions(&[])), named(None, false));
    for bad in [
        &sni(b"")[..],
        &sni(b"a b"),
        &sni(b"\xff"),
        b"",
        b"\x00\x09\x00",
    ] {
        assert_eq!(read(&with_extensions(&[(0, bad)])), Opening::Other);
    }
}

#[test]
fn the_connections_of_one_program_have_one_shape_and_those_of_another_have_another() {
    let first = shape(&client_hello("registry.example"));
    assert_eq!(first, shape(&client_hello("other.example")));
    assert_eq!(first, shape(&client_hello("10.0.0.7")));
    let (name, other_name) = (sni(b"a.example"), sni(b"b.example"));
    let plain = shape(&with_extensions(&[(0, &name), (43, b"x"), (10, b"y")]));
    let resumed = [
        (10, &b"y"[..]),
        (43, b"z"),
        (0, &other_name),
        (41, b"ticket"),
    ];
    assert_eq!(plain, shape(&with_extensions(&resumed)));
    let greased = [(0x1a1a, &b""[..]), (43, b"x"), (10, b"y"), (0xfafa, b"0")];
    assert_eq!(plain, shape(&with_extensions(&greased)));
    assert_ne!(plain, shape(&with_extensions(&[(43, b"x")])));
    assert_ne!(plain, first);
}

#[test]
fn a_hello_without_end_is_given_up() {
    let endless = b"\x16\x03\x01\x00\x01\x01".repeat(OPENING_LEN_MAX / 6 + 1);
    assert_eq!(read(&endless), Opening::Other);
    let mut waiting = b"\x16\x03\x01\x40\x00\x01\x00\x7f\xff".to_vec();
    waiting.resize(1000, 0);
    assert_eq!(read(&waiting), Opening::Incomplete);
}

proptest! {
    #[test]
    fn garbage_and_spoiled_hellos_are_read_without_harm(
        garbage in proptest::collection::vec(any::<u8>(), 0..600),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        read(&garbage);
        read(&[b"\x16\x03\x01".as_slice(), &garbage].concat());
        let mut spoiled = client_hello("registry.example");
        let at = at.index(spoiled.len());
        spoiled[at] = byte;
        let seen = read(&spoiled);
        prop_assert!(at < 9 || seen != Opening::Incomplete, "{} {}", at, byte);
    }
}
