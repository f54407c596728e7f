//! What reads texts of strangers in this crate, for any input, each with the property that it is to
//! keep: the entry points of the fuzz targets, and of the test that replays their corpora.
//!
//! Every function panics where its property does not hold.

use std::net::IpAddr;

use http::{Method, Uri};
use protocol::{RegistryName, Repository};
use swarm::open::Wanted;

use crate::{
    intercept,
    range::{self, Asked, Parts},
    rights::listed::{LISTED_MAX, listed},
    route::{Reference, RegistryRequest, Resource, RouteError, Router, Tag},
};

const OWN_PORT: u16 = 65001;
const OWN_NAME: &str = "node7.example:65001";

/// `input` is a method and a target, and below them values of `Via`. Names that are read are legal
/// and not this proxy's own; what is told of the others has no password in it.
pub fn router(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default();
    let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else {
        return;
    };
    let default: RegistryName = "docker.io".parse().expect("it is a registry's name");
    let own: RegistryName = OWN_NAME.parse().expect("it is a registry's name");
    let router = Router::new(default, OWN_PORT, vec![own], "darter-7f".to_owned());
    match router.route(&method, &uri, lines) {
        Ok(RegistryRequest::Read(target, resource)) => {
            assert!(method == Method::GET || method == Method::HEAD);
            is_registry_of_others(&target.registry);
            is_repository(&target.repository);
            if let Resource::Manifest(reference) = resource {
                is_reference(&reference);
            }
        }
        Ok(RegistryRequest::Through(through)) => {
            is_registry_of_others(&through.registry);
            assert!(through.path.starts_with('/'), "{}", through.path);
            if let Some((repository, reference)) = through.writes {
                is_repository(&repository);
                is_reference(&reference);
            }
        }
        Ok(
            RegistryRequest::Ping
            | RegistryRequest::Token
            | RegistryRequest::Write
            | RegistryRequest::Connect,
        ) => {}
        Err(error) => hides_passwords(&error),
    }
}

/// `input` is the size of a body, and below it the `Range` headers. A part lies inside of the body
/// and is not empty, several are no longer together than the body, and what was understood is
/// understood again as it is written.
pub fn range(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.lines();
    let Some(size) = lines.next().and_then(|line| line.parse::<u64>().ok()) else {
        return;
    };
    let asked = range::parse(lines, None, "");
    let parts = match &asked {
        Asked::One(Wanted::Whole) => Vec::new(),
        Asked::One(wanted) => wanted.resolve(size).into_iter().collect(),
        Asked::Several(several) => match several.resolve(size) {
            Parts::Each(parts) => parts,
            Parts::Whole | Parts::NotSatisfiable => Vec::new(),
        },
    };
    let sum: u128 = parts
        .iter()
        .map(|part| u128::from(part.end - part.start))
        .sum();
    assert!(sum <= u128::from(size), "{asked:?}");
    for part in parts {
        assert!(part.start < part.end && part.end <= size, "{asked:?}");
    }
    if let Some(header) = asked.header() {
        assert_eq!(range::parse([header.as_str()], None, ""), asked);
    }
}

/// `input` is a document. It lists no more than is remembered of one.
pub fn manifest(input: &[u8]) {
    assert!(listed(input, "application/vnd.oci.image.manifest.v1+json").len() <= LISTED_MAX);
}

/// `input` are the first bytes of a connection. A name is visible text in lower case, not empty and
/// without a dot at its end; and what was understood stays so when more bytes come.
pub fn sni(input: &[u8]) {
    let opening = intercept::hello::read(input);
    match &opening {
        intercept::hello::Opening::Tls(hello) => {
            if let Some(name) = &hello.sni {
                let is_lower = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
                assert!(!name.is_empty() && name.bytes().all(is_lower), "{name:?}");
                assert!(!name.ends_with('.'), "{name:?}");
            }
            let more = [input, &[0; 3]].concat();
            assert_eq!(intercept::hello::read(&more), opening);
        }
        intercept::hello::Opening::Incomplete => {
            assert!(input.len() < intercept::hello::OPENING_LEN_MAX);
        }
        intercept::hello::Opening::Other => {}
    }
}

#[track_caller]
fn is_registry_of_others(registry: &RegistryName) {
    assert_eq!(registry.as_str().parse().as_ref(), Ok(registry));
    let port = registry.as_str()[registry.host().len()..].trim_start_matches(':');
    let host = registry.host().trim_matches(['[', ']']);
    let is_here = host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address.is_unspecified());
    let is_own = registry.as_str() == OWN_NAME || (is_here && port.parse() == Ok(OWN_PORT));
    assert!(!is_own, "{registry}");
}

#[track_caller]
fn is_repository(repository: &Repository) {
    assert_eq!(repository.as_str().parse().as_ref(), Ok(repository));
}

#[track_caller]
fn is_reference(reference: &Reference) {
    match reference {
        Reference::Tag(tag) => assert_eq!(tag.as_str().parse::<Tag>().as_ref(), Ok(tag)),
        Reference::Digest(digest) => assert_eq!(digest.to_string().parse().as_ref(), Ok(digest)),
    }
}

#[track_caller]
fn hides_passwords(error: &RouteError) {
    let told = error.to_string().replace("what holds an `@`", "");
    assert!(!told.contains('@') && !told.contains("%40"), "{told}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every file of a corpus through `target`.
    fn replay(corpus: &str, target: fn(&[u8])) {
        let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let mut count = 0;
        for entry in std::fs::read_dir(corpora.join(corpus)).unwrap() {
            let path = entry.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            let ended = std::panic::catch_unwind(|| target(&input));
            assert!(ended.is_ok(), "{} fails", path.display());
            count += 1;
        }
        assert!(count > 0, "the corpus {corpus} is empty");
    }

    #[test]
    fn every_request_line_of_the_corpus_keeps_its_property() {
        replay("router", router);
    }

    #[test]
    fn every_range_of_the_corpus_keeps_its_property() {
        replay("range", range);
    }

    #[test]
    fn every_manifest_of_the_corpus_keeps_its_property() {
        replay("manifest", manifest);
    }

    #[test]
    fn every_opening_of_the_corpus_keeps_its_property() {
        replay("sni", sni);
    }
}
