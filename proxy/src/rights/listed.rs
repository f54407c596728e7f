//! Pure: which contents a manifest vouches for. Whoever may read the manifest may read them in its
//! repository.
//!
//! What lies elsewhere (`urls`) and what the manifest is about (`subject`) is not among them: the
//! registry need not have checked that its writer has a right to those.

use protocol::Digest;
use serde::Deserialize;

/// Contents of one manifest that are remembered; an image of more is asked for one by one.
pub(crate) const LISTED_MAX: usize = 4096;

/// Every kind of manifest, as far as it lists something (OCI image specification, "Image Manifest
/// Specification" and "Image Index Specification"; docker's schema 1 and 2).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Manifest {
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
    blobs: Vec<Descriptor>,
    fs_layers: Vec<FsLayer>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: String,
}

/// The digests that `document` lists, [`LISTED_MAX`] at most; none where it is no manifest.
pub(crate) fn listed(document: &[u8]) -> Vec<Digest> {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(document) else {
        return Vec::new();
    };
    let own = |descriptor: &Descriptor| descriptor.urls.as_ref().is_none_or(Vec::is_empty);
    let descriptors = manifest
        .config
        .into_iter()
        .chain(manifest.layers)
        .chain(manifest.manifests)
        .chain(manifest.blobs);
    let digests = descriptors.filter(own).map(|descriptor| descriptor.digest);
    let sums = manifest.fs_layers.into_iter().map(|layer| layer.blob_sum);
    digests
        .chain(sums)
        .filter_map(|digest| digest.parse().ok())
        .take(LISTED_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn digest(of: &str) -> Digest {
        Digest::sha256_of(of.as_bytes())
    }

    #[track_caller]
    fn check(document: &str, expect: &[&str]) {
        let document = ["a", "b", "c"]
            .iter()
            .fold(document.to_owned(), |text, name| {
                text.replace(&format!("<{name}>"), &digest(name).to_string())
            });
        let expect: Vec<_> = expect.iter().map(|name| digest(name)).collect();
        assert_eq!(listed(document.as_bytes()), expect, "{document}");
    }

    #[test]
    fn each_kind_of_manifest_lists_its_own() {
        check(
            r#"{"config":{"digest":"<a>","size":1},"layers":[{"digest":"<b>"},{"digest":"<c>","urls":[]}]}"#,
            &["a", "b", "c"],
        );
        check(r#"{"manifests":[{"digest":"<b>","platform":{}}]}"#, &["b"]);
        check(r#"{"blobs":[{"digest":"<b>"}]}"#, &["b"]);
        check(
            r#"{"fsLayers":[{"blobSum":"<b>"},{"blobSum":"<a>"}]}"#,
            &["b", "a"],
        );
    }

    #[test]
    fn what_lies_elsewhere_and_the_subject_are_not_listed() {
        check(
            r#"{"layers":[{"digest":"<a>","urls":["https://x/"]},{"digest":"<b>"}],"subject":{"digest":"<c>"}}"#,
            &["b"],
        );
    }

    #[test]
    fn what_is_no_manifest_lists_nothing() {
        for text in [
            "",
            "{",
            "[]",
            "7",
            r#"{"layers":7}"#,
            r#"{"layers":[{"digest":"x"}]}"#,
        ] {
            check(text, &[]);
        }
    }

    #[test]
    fn no_more_than_a_bound_is_taken() {
        let layer = format!("{{\"digest\":\"{}\"}}", digest("a"));
        let layers = vec![layer; LISTED_MAX + 9].join(",");
        let document = format!("{{\"layers\":[{layers}]}}");
        assert_eq!(listed(document.as_bytes()).len(), LISTED_MAX);
    }

    proptest! {
        #[test]
        fn no_document_makes_the_reader_fall(document in any::<Vec<u8>>()) {
            let _ = listed(&document);
        }
    }
}
