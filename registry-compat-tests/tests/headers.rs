//! A pull asks the registry in Darter's own words, whatever headers came with it.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise},
    image::MANIFEST_TYPE,
};

use crate::faults::{Asker, Stage};

/// What clients, and what is between them and a mirror, send beside what it needs.
const OF_CLIENTS: [(&str, &str); 15] = [
    ("Accept-Language", "de"),
    ("Baggage", "trigger=api"),
    ("Cookie", "session=1"),
    ("Docker-Distribution-Api-Version", "registry/2.0"),
    ("Forwarded", "for=10.0.0.1"),
    ("If-Modified-Since", "Wed, 21 Oct 2015 07:28:00 GMT"),
    ("If-None-Match", "\"other\""),
    ("Origin", "http://localhost"),
    ("Referer", "http://localhost/a"),
    ("Traceparent", "00-1-2-01"),
    ("X-Dragonfly-Filter", "a"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("X-Meta-A", "b"),
    ("X-Real-Ip", "10.0.0.1"),
    ("X-Request-Id", "7"),
];

/// All that Darter itself says to a registry.
const OWN: [&str; 6] = [
    "accept",
    "accept-encoding",
    "host",
    "range",
    "user-agent",
    "via",
];

#[test]
fn a_pull_asks_the_registry_with_headers_of_darters_own() -> Result<()> {
    let stage = Stage::start(&[])?;
    for asker in Asker::ALL {
        let bytes = noise(&format!("headers {asker:?}"), 700_000)?;
        let digest = digest_of(&bytes);
        stage.registry.put_blob(&digest, bytes);
        let manifest = format!("{{\"schemaVersion\":2,\"asker\":\"{asker:?}\"}}");
        let (tag, manifest_digest) = (format!("{asker:?}"), digest_of(manifest.as_bytes()));
        stage.registry.put_manifest(&tag, MANIFEST_TYPE, manifest);
        for (method, rest) in [
            ("HEAD", format!("manifests/{tag}")),
            ("GET", format!("manifests/{tag}")),
            ("GET", format!("manifests/{manifest_digest}")),
            ("HEAD", format!("blobs/{digest}")),
            ("GET", format!("blobs/{digest}")),
            ("GET", format!("referrers/{manifest_digest}")),
        ] {
            let mut request = asker
                .request(method, &rest)
                .header("Range", "bytes=300000-300009");
            for (name, value) in OF_CLIENTS {
                request = request.header(name, value);
            }
            let status = request.fetch(stage.proxy)?.status;
            ensure!(status < 300, "{method} {rest} as {asker:?}: {status}");
        }
    }
    let mut seen = BTreeSet::new();
    for asked in stage.registry.asked("") {
        let is_own = asked.agent.starts_with("darter/");
        ensure!(is_own, "{} of {}", asked.agent, asked.path);
        seen.extend(asked.headers);
    }
    let own = BTreeSet::from(OWN.map(str::to_owned));
    let others: Vec<_> = seen.difference(&own).collect();
    ensure!(others.is_empty(), "the registry was told {others:?}");
    ensure!(seen.contains("range"), "no part was asked for: {seen:?}");
    stage.darter.stop()
}
