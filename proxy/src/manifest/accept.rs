//! Pure: what a client says that it takes (`Accept`, RFC 9110, section 12.5.1), and what it is given of an
//! index that it does not.
//!
//! `Accept` is never a reason to refuse a manifest: most clients that leave a type out take it all the
//! same. An index alone is narrowed, to the manifest of this node's platform, and only for a client that
//! takes such a manifest and says so.

use protocol::Digest;
use serde::Deserialize;

use super::media;

/// The indexes among media types.
const INDEXES: [&str; 2] = [
    media::OCI_INDEX,
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// An index, as far as it tells the platforms of what it lists (OCI image specification, "Image Index").
#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// Whether who sent these lines of `Accept` is to be given a manifest in place of an index of
/// `media_type`.
pub(super) fn is_narrow(lines: &[&str], media_type: &str) -> bool {
    let takes = |wanted: &str| takes(lines, wanted);
    INDEXES.contains(&media_type)
        && !INDEXES.iter().any(|index| takes(index))
        && media::IMAGES.iter().any(|image| takes(image))
}

/// Whether one of the ranges in `lines` has the media type `wanted`, and the most exact one does not
/// weigh it at nothing.
fn takes(lines: &[&str], wanted: &str) -> bool {
    let ranges = lines.iter().flat_map(|line| line.split(','));
    let best = ranges.filter_map(|range| read(range, wanted)).max();
    best.is_some_and(|(_, is_taken)| is_taken)
}

/// How exactly `range` has the media type `wanted`, and whether it is taken; `None` where it has another.
fn read(range: &str, wanted: &str) -> Option<(u8, bool)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?.to_ascii_lowercase();
    let exactness = match name.as_str() {
        "*/*" => 0,
        "application/*" => 1,
        exact if exact == wanted => 2,
        _ => return None,
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let is_nothing =
        weight.is_some_and(|text| text.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
    Some((exactness, !is_nothing))
}

/// The manifest of `document` for Linux on `architecture`, as Go names it.
pub(super) fn chosen(document: &[u8], architecture: &str) -> Option<Digest> {
    let index: Index = serde_json::from_slice(document).ok()?;
    let is_own =
        |platform: &Platform| platform.os == "linux" && platform.architecture == architecture;
    let mut own = index
        .manifests
        .iter()
        .filter(|listed| listed.platform.as_ref().is_some_and(is_own));
    own.next()?.digest.parse().ok()
}

/// The architecture of this node, as Go names it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const OF_DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const LIST: &str = INDEXES[1];

    #[track_caller]
    fn check(lines: &[&str], expect: bool) {
        let seen = is_narrow(lines, media::OCI_INDEX);
        assert_eq!(seen, expect, "{lines:?}");
    }

    #[test]
    fn an_index_is_narrowed_for_who_takes_manifests_alone() {
        check(&[MANIFEST], true);
        check(&[OF_DOCKER, "application/json"], true);
        check(&[&format!("{OF_DOCKER}; q=0.5, text/plain")], true);
        check(&[MANIFEST, &format!("{};q=0", media::OCI_INDEX)], true);
        check(&[&MANIFEST.to_uppercase()], true);
    }

    #[test]
    fn who_takes_an_index_or_everything_or_says_nothing_is_given_it() {
        check(&[], false);
        check(&[""], false);
        check(&["*/*"], false);
        check(&[MANIFEST, "application/*"], false);
        check(&[MANIFEST, media::OCI_INDEX], false);
        check(&[MANIFEST, LIST], false);
        check(&[&format!("{MANIFEST}, */*;q=0.1")], false);
        check(&["text/html"], false);
        check(&[";;,q=,*"], false);
        let manifest = is_narrow(&[MANIFEST], MANIFEST);
        assert!(!manifest, "a manifest is given as it is");
    }

    #[test]
    fn the_manifest_of_a_platform_is_found() {
        let (one, other) = (Digest::sha256_of(b"1"), Digest::sha256_of(b"2"));
        let listed = |digest: Digest, os: &str, architecture: &str| {
            format!(
                "{{\"digest\":\"{digest}\",\"platform\":{{\"os\":\"{os}\",\"architecture\":\"{architecture}\"}}}}"
            )
        };
        let index = format!(
            "{{\"manifests\":[{{\"digest\":\"{other}\"}},{},{},{}]}}",
            listed(other, "windows", "amd64"),
            listed(other, "linux", "arm64"),
            listed(one, "linux", "amd64"),
        );
        assert_eq!(chosen(index.as_bytes(), "amd64"), Some(one));
        assert_eq!(chosen(index.as_bytes(), "arm64"), Some(other));
        for (text, architecture) in [(index.as_str(), "s390x"), ("{}", "amd64"), ("[", "amd64")] {
            assert_eq!(chosen(text.as_bytes(), architecture), None, "{text}");
        }
    }
}
