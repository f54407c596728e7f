//! The read-only cases of the OCI distribution conformance suite, against the running binary.
//!
//! The names are those of the suite on the main branch of opencontainers/distribution-spec
//! (`conformance/`, commit 4fc4ecbefaaa6e4e1682f59f5ac445d076cf642d), without the `OCI Conformance
//! Test/` that stands before each. The suite is a program in Go; here each name is mapped to a
//! check of ours that asks what the suite asks and wants at least what it wants.
//!
//! Out of scope, since a mirror takes no writes: all of `push`, `delete`, `tag-delete`,
//! `manifest-delete`, `blob-delete`, the uploads under `sha256 blobs` and `sha512 blobs`, `mount*`,
//! `bad digest *`, `invalid-digest-format/manifest-put`, and the data sets that differ from others
//! only in how they are pushed (`tag-param-sha256`, `tag-param-sha512`, `bad-digest-image`). For
//! those [`WRITES`] holds that a mirror answers `405 UNSUPPORTED`; by an explicit name they reach the
//! registry itself, which `push.rs` tries. What the uploads read back
//! (`post+put/blob-head` and the like) is what `blob-head` and `blob-get` read of the data sets.
//!
//! Referrers, sha512 and empty blobs need a registry of our own behind Darter; all that Debian's
//! docker-registry carries is asked with that behind it too, as the suite's `read-only` data set.

mod checks;
mod data;

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use registry_compat_tests::{
    can_run,
    content::digest_of,
    darter::{Darter, Home},
    image::{INDEX_TYPE, Image, MANIFEST_TYPE},
    own_registry::{Blob, Content, Manifest, OwnRegistry},
    registry::Registry,
};

use self::{
    checks::Subject,
    data::{
        Algorithm::{self, Sha256, Sha512},
        DataSet, Maker,
    },
};
use crate::{herd::alone, stage::workspace};

/// What one official case asks.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Ping,
    EmptyTagList,
    EmptyReferrers,
    MissingBlob(Algorithm),
    Range(Algorithm, &'static str, Option<(usize, usize)>),
    BlobHead(Algorithm, &'static [u8]),
    BlobGet(Algorithm, &'static [u8]),
    MissingManifest,
    MissingTag,
    BadDigest,
}

/// What one official case asks of a data set.
type AskOfData = fn(&Subject<'_>, &DataSet) -> Result<()>;

const EMPTY: &[u8] = b"";
const EMPTY_JSON: &[u8] = b"{}";

/// Bytes of the blob whose ranges are asked for.
const RANGED: usize = 2048;

/// The cases that need no data set.
const CASES: [(&str, Ask); 28] = [
    ("ping", Ask::Ping),
    ("empty/tag list", Ask::EmptyTagList),
    ("empty/referrers", Ask::EmptyReferrers),
    ("sha256 blobs/get-missing", Ask::MissingBlob(Sha256)),
    (
        "sha256 blobs/range requests/range 500-1499",
        Ask::Range(Sha256, "500-1499", Some((500, 1500))),
    ),
    (
        "sha256 blobs/range requests/range 500-",
        Ask::Range(Sha256, "500-", Some((500, RANGED))),
    ),
    (
        "sha256 blobs/range requests/range -500",
        Ask::Range(Sha256, "-500", Some((RANGED - 500, RANGED))),
    ),
    (
        "sha256 blobs/range requests/range 2000-5000",
        Ask::Range(Sha256, "2000-5000", Some((2000, RANGED))),
    ),
    (
        "sha256 blobs/range requests/range 500-0",
        Ask::Range(Sha256, "500-0", None),
    ),
    (
        "sha256 blobs/range requests/range 5000-10000",
        Ask::Range(Sha256, "5000-10000", None),
    ),
    ("sha256 blobs/empty/blob-head", Ask::BlobHead(Sha256, EMPTY)),
    ("sha256 blobs/empty/blob-get", Ask::BlobGet(Sha256, EMPTY)),
    (
        "sha256 blobs/emptyJSON/blob-head",
        Ask::BlobHead(Sha256, EMPTY_JSON),
    ),
    (
        "sha256 blobs/emptyJSON/blob-get",
        Ask::BlobGet(Sha256, EMPTY_JSON),
    ),
    ("sha512 blobs/get-missing", Ask::MissingBlob(Sha512)),
    (
        "sha512 blobs/range requests/range 500-1499",
        Ask::Range(Sha512, "500-1499", Some((500, 1500))),
    ),
    (
        "sha512 blobs/range requests/range 500-",
        Ask::Range(Sha512, "500-", Some((500, RANGED))),
    ),
    (
        "sha512 blobs/range requests/range -500",
        Ask::Range(Sha512, "-500", Some((RANGED - 500, RANGED))),
    ),
    (
        "sha512 blobs/range requests/range 2000-5000",
        Ask::Range(Sha512, "2000-5000", Some((2000, RANGED))),
    ),
    (
        "sha512 blobs/range requests/range 500-0",
        Ask::Range(Sha512, "500-0", None),
    ),
    (
        "sha512 blobs/range requests/range 5000-10000",
        Ask::Range(Sha512, "5000-10000", None),
    ),
    ("sha512 blobs/empty/blob-head", Ask::BlobHead(Sha512, EMPTY)),
    ("sha512 blobs/empty/blob-get", Ask::BlobGet(Sha512, EMPTY)),
    (
        "sha512 blobs/emptyJSON/blob-head",
        Ask::BlobHead(Sha512, EMPTY_JSON),
    ),
    (
        "sha512 blobs/emptyJSON/blob-get",
        Ask::BlobGet(Sha512, EMPTY_JSON),
    ),
    ("missing-manifest/by-digest", Ask::MissingManifest),
    ("missing-manifest/by-tag", Ask::MissingTag),
    ("invalid-digest-format/manifest-get", Ask::BadDigest),
];

/// The cases of every data set, after its name and a slash.
const CASES_OF_DATA: [(&str, AskOfData); 8] = [
    ("tag-list", |subject, set| subject.lists_tags(set)),
    ("head/manifest-head-by-tag", |subject, set| {
        by_tag(subject, set, "HEAD")
    }),
    ("head/manifest-head-by-digest", |subject, set| {
        by_digest(subject, set, "HEAD")
    }),
    ("head/blob-head", |subject, set| blobs(subject, set, "HEAD")),
    ("pull/manifest-by-tag", |subject, set| {
        by_tag(subject, set, "GET")
    }),
    ("pull/manifest-by-digest", |subject, set| {
        by_digest(subject, set, "GET")
    }),
    ("pull/blob-get", |subject, set| blobs(subject, set, "GET")),
    ("referrers", |subject, set| subject.lists_referrers(set)),
];

/// The data sets that are more than another way to push.
const DATA: [&str; 18] = [
    "image",
    "image-uncompressed",
    "large-manifest",
    "index",
    "nested-index",
    "empty-index",
    "artifact",
    "artifact-index",
    "artifact-without-layers",
    "artifacts-with-subject",
    "index-with-subject",
    "missing-subject",
    "data-field",
    "non-distributable-layers",
    "custom-fields",
    "no-layers",
    "sparse",
    "sha512",
];

/// What the suite's writes begin with.
const WRITES: [(&str, &str, &str); 8] = [
    (
        "sha256 blobs/post only",
        "POST",
        "blobs/uploads/?digest=sha256:00",
    ),
    ("sha256 blobs/post+put", "POST", "blobs/uploads/"),
    ("sha256 blobs/chunked multi", "PATCH", "blobs/uploads/1"),
    (
        "sha256 blobs/mount",
        "POST",
        "blobs/uploads/?mount=sha256:00&from=other",
    ),
    ("image/push/manifest-by-tag", "PUT", "manifests/new"),
    ("image/delete/tag-delete", "DELETE", "manifests/image-top"),
    (
        "image/delete/manifest-delete",
        "DELETE",
        "manifests/image-top",
    ),
    ("image/delete/blob-delete", "DELETE", "blobs/sha256:00"),
];

fn by_tag(subject: &Subject<'_>, set: &DataSet, method: &str) -> Result<()> {
    let mut tags = set.tags.iter();
    tags.try_for_each(|(tag, digest)| subject.manifest_is(method, tag, digest))
}

fn by_digest(subject: &Subject<'_>, set: &DataSet, method: &str) -> Result<()> {
    let mut manifests = set.manifests.iter();
    manifests.try_for_each(|digest| subject.manifest_is(method, digest, digest))
}

fn blobs(subject: &Subject<'_>, set: &DataSet, method: &str) -> Result<()> {
    let mut blobs = set.blobs.iter();
    blobs.try_for_each(|digest| subject.blob(method, digest))
}

// === impl Ask ===

impl Ask {
    fn check(self, subject: &Subject<'_>) -> Result<()> {
        match self {
            Self::Ping => subject.ping(),
            Self::EmptyTagList => subject.tags("").map(drop),
            Self::EmptyReferrers => subject.has_no_referrers(&digest_of(b"nobody's subject")),
            Self::MissingBlob(algorithm) => subject.has_no_blob(&algorithm.digest_of(b"missing")),
            Self::Range(algorithm, asked, part) => {
                let digest = algorithm.digest_of(&ranged());
                subject.range(&digest, asked, part.map(|(start, end)| start..end))
            }
            Self::BlobHead(algorithm, bytes) => subject.blob("HEAD", &algorithm.digest_of(bytes)),
            Self::BlobGet(algorithm, bytes) => subject.blob("GET", &algorithm.digest_of(bytes)),
            Self::MissingManifest => {
                let digest = digest_of(b"missing manifest");
                subject.has_no_manifest(&digest, (404, "MANIFEST_UNKNOWN"))
            }
            Self::MissingTag => subject.has_no_manifest("missing-tag", (404, "MANIFEST_UNKNOWN")),
            Self::BadDigest => {
                subject.has_no_manifest("sha256:baddigeststring", (400, "DIGEST_INVALID"))
            }
        }
    }

    /// Whether docker-registry 2.8 can be behind it.
    fn is_for_docker_registry(self) -> bool {
        match self {
            Self::Ping
            | Self::EmptyTagList
            | Self::MissingManifest
            | Self::MissingTag
            | Self::BadDigest => true,
            Self::EmptyReferrers => false,
            Self::MissingBlob(algorithm) | Self::Range(algorithm, ..) => algorithm == Sha256,
            Self::BlobHead(algorithm, bytes) | Self::BlobGet(algorithm, bytes) => {
                algorithm == Sha256 && !bytes.is_empty()
            }
        }
    }
}

/// A blob in which no two parts are alike.
fn ranged() -> Vec<u8> {
    let numbers = (0..RANGED / 2).flat_map(|number| (number as u16).to_be_bytes());
    numbers.collect()
}

/// Runs `cases` of the table and all cases of `sets`: cold, then again from what is held; by a
/// bare name and by one that has the registry before it. Tells of all that fail.
fn run(
    registry: SocketAddr,
    content: &Content,
    (cases, sets): (&[(&str, Ask)], &[DataSet]),
) -> Result<()> {
    let home = Home::new()?;
    let config = alone(&home, registry).replace(
        "[proxy]\n",
        "[proxy]\ndefault_registry = \"registry.test\"\n",
    );
    let darter = Darter::run(&config, &home)?;
    let proxy = darter.proxy()?;
    let mut failed = Vec::new();
    for repository in ["conformance/data", "registry.test/conformance/data"] {
        let subject = Subject {
            proxy,
            repository,
            content,
        };
        for round in ["cold", "held"] {
            let mut note = |name: &str, told: Result<()>| {
                if let Err(error) = told {
                    failed.push(format!("{name} ({repository}, {round}): {error:#}"));
                }
            };
            for (name, ask) in cases {
                note(name, ask.check(&subject));
            }
            for set in sets {
                for (name, check) in CASES_OF_DATA {
                    note(&format!("{}/{name}", set.name), check(&subject, set));
                }
            }
            // An explicit name is the registry's own.
            let is_mirrored = !repository.starts_with("registry.test/");
            for (name, method, path) in WRITES.iter().filter(|_| is_mirrored) {
                note(name, subject.refuses(method, path));
            }
        }
    }
    if !failed.is_empty() {
        bail!("{}\n{}", failed.join("\n"), darter.log()?);
    }
    darter.stop()
}

#[test]
fn every_read_of_the_conformance_suite_is_answered_as_it_wants() -> Result<()> {
    if !can_run(&["setpriv"])? {
        return Ok(());
    }
    let mut content = Content::default();
    let mut sets = Vec::new();
    for name in DATA {
        let algorithm = if name == "sha512" { Sha512 } else { Sha256 };
        sets.push(Maker::new(&mut content, name, algorithm).make()?);
    }
    for algorithm in [Sha256, Sha512] {
        for bytes in [EMPTY.to_vec(), EMPTY_JSON.to_vec(), ranged()] {
            let digest = algorithm.digest_of(&bytes);
            content.blobs.insert(digest, Blob::Bytes(bytes.into()));
        }
    }
    let registry = OwnRegistry::start(content.clone())?;
    run(registry.address(), &content, (&CASES, &sets))
}

#[test]
fn so_is_every_one_that_docker_registry_can_carry() -> Result<()> {
    if !can_run(&["docker-registry", "gzip", "setpriv"])? {
        return Ok(());
    }
    let directory = workspace()?;
    let image = Image::small(&directory.path().join("image"), "conformance")?;
    let registry = Registry::start(&directory.path().join("registry"))?;
    registry.push(&image, "conformance/data")?;
    let (mut content, set) = read_only(&image)?;
    for bytes in [EMPTY_JSON.to_vec(), ranged()] {
        let digest = digest_of(&bytes);
        let file = directory.path().join("blob");
        fs::write(&file, &bytes)?;
        registry.push_blob("conformance/data", &digest, &file)?;
        content.blobs.insert(digest, Blob::Bytes(bytes.into()));
    }
    let cases: Vec<_> = CASES
        .into_iter()
        .filter(|(_, ask)| ask.is_for_docker_registry())
        .collect();
    run(registry.address(), &content, (&cases, &[set]))
}

/// The suite's data set of what a registry has already.
fn read_only(image: &Image) -> Result<(Content, DataSet)> {
    let mut content = Content::default();
    let mut set = DataSet {
        name: "read-only",
        tags: vec![("latest".to_owned(), image.index.digest.clone())],
        ..DataSet::default()
    };
    let of_platforms = image.platforms.iter().map(|platform| &platform.manifest);
    let of_platforms = of_platforms.map(|manifest| (&manifest.digest, MANIFEST_TYPE));
    for (digest, media_type) in of_platforms.chain([(&image.index.digest, INDEX_TYPE)]) {
        let manifest = Manifest {
            media_type: media_type.to_owned(),
            bytes: Bytes::from(image.bytes(digest)?),
        };
        content.manifests.insert(digest.clone(), manifest);
        set.manifests.push(digest.clone());
    }
    for blob in image.blobs() {
        let bytes = image.bytes(&blob.digest).context("a blob of the image")?;
        content
            .blobs
            .insert(blob.digest.clone(), Blob::Bytes(bytes.into()));
        set.blobs.push(blob.digest);
    }
    Ok((content, set))
}
