//! Pure: which contents a manifest vouches for. Whoever may read the manifest may read them in its
//! repository.
//!
//! What the registry need not have looked for when it took the manifest is not among them: what lies
//! elsewhere (`urls`), what the manifest is about (`subject`), the manifests of an index, which may be
//! sparse, and all of a document that is of two kinds at once or that a reader of another language may
//! read otherwise: some take a key in any case, and of two the last.

use std::collections::BTreeMap;

use protocol::Digest;
use serde::{Deserialize, de::IgnoredAny};

use crate::manifest::media::IMAGES;

/// Contents of one manifest that are remembered; an image of more is asked for one by one.
pub(crate) const LISTED_MAX: usize = 4096;

/// A manifest of an image (OCI image specification, "Image Manifest Specification"; docker's schema 2),
/// and what only documents of other kinds have.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Manifest {
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    manifests: Option<IgnoredAny>,
    blobs: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    urls: Option<Vec<String>>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

/// What counts in a manifest, and in a descriptor.
const MANIFEST_KEYS: [&str; 6] = [
    "mediatype",
    "config",
    "layers",
    "manifests",
    "blobs",
    "fslayers",
];
const DESCRIPTOR_KEYS: [&str; 2] = ["digest", "urls"];

/// The digests that `document` vouches for, which the registry gave as `media_type`: [`LISTED_MAX`] at
/// most, and none where it is no manifest of an image and nothing else.
pub(crate) fn listed(document: &[u8], media_type: &str) -> Vec<Digest> {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(document) else {
        return Vec::new();
    };
    let types = [Some(media_type), manifest.media_type.as_deref()];
    let is_an_image = types.into_iter().flatten().all(|of| IMAGES.contains(&of));
    let others = [manifest.manifests, manifest.blobs, manifest.fs_layers];
    if !is_an_image || others.iter().any(Option::is_some) {
        return Vec::new();
    }
    let descriptors: Vec<_> = manifest.config.into_iter().chain(manifest.layers).collect();
    let mut each = descriptors.iter();
    let is_ambiguous = may_be_another(&manifest.others, &MANIFEST_KEYS)
        || each.any(|descriptor| may_be_another(&descriptor.others, &DESCRIPTOR_KEYS));
    if is_ambiguous {
        return Vec::new();
    }
    let descriptors = descriptors.into_iter();
    descriptors
        .filter(|descriptor| descriptor.urls.as_ref().is_none_or(Vec::is_empty))
        .filter_map(|descriptor| descriptor.digest.parse().ok())
        .take(LISTED_MAX)
        .collect()
}

/// Whether some reader takes one of `others` for one of `known`, which are in lower case.
fn may_be_another(others: &BTreeMap<String, IgnoredAny>, known: &[&str]) -> bool {
    let is_another =
        |key: &String| !key.is_ascii() || known.contains(&key.to_ascii_lowercase().as_str());
    others.keys().any(is_another)
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
        check_as(IMAGES[0], document, expect);
    }

    #[track_caller]
    fn check_as(media_type: &str, document: &str, expect: &[&str]) {
        let document = ["a", "b", "c"]
            .iter()
            .fold(document.to_owned(), |text, name| {
                text.replace(&format!("<{name}>"), &digest(name).to_string())
            });
        let expect: Vec<_> = expect.iter().map(|name| digest(name)).collect();
        let seen = listed(document.as_bytes(), media_type);
        assert_eq!(seen, expect, "{document}");
    }

    #[test]
    fn a_manifest_of_an_image_vouches_for_its_configuration_and_its_layers() {
        let document = r#"{"config":{"digest":"<a>","size":1},"layers":[{"digest":"<b>"},{"digest":"<c>","urls":[]}]}"#;
        check(document, &["a", "b", "c"]);
        check_as(IMAGES[1], document, &["a", "b", "c"]);
        let of_docker = format!("{{\"mediaType\":\"{}\",{}", IMAGES[1], &document[1..]);
        check(&of_docker, &["a", "b", "c"]);
    }

    #[test]
    fn a_document_whose_lists_the_registry_need_not_have_checked_vouches_for_nothing() {
        let index = "application/vnd.oci.image.index.v1+json";
        let layers = r#""layers":[{"digest":"<b>"}]"#;
        check_as(index, r#"{"manifests":[{"digest":"<b>"}]}"#, &[]);
        check_as(index, &format!("{{{layers}}}"), &[]);
        check_as("application/vnd.x", &format!("{{{layers}}}"), &[]);
        check(&format!("{{\"mediaType\":\"{index}\",{layers}}}"), &[]);
        for other in ["manifests", "blobs", "fsLayers"] {
            check(&format!("{{\"{other}\":[],{layers}}}"), &[]);
        }
    }

    #[test]
    fn a_document_that_may_be_read_otherwise_vouches_for_nothing() {
        let own = r#"{"digest":"<a>"}"#;
        for document in [
            r#"{"layers":[{"digest":"<b>"}],"Layers":[OWN]}"#,
            r#"{"layers":[{"digest":"<b>"}],"layers":[OWN]}"#,
            r#"{"layers":[{"digest":"<b>","Digest":"<a>"}]}"#,
            r#"{"layers":[{"digest":"<b>","digest":"<a>"}]}"#,
            r#"{"layers":[{"digest":"<b>","URLs":["https://x/"]}]}"#,
            r#"{"config":OWN,"CONFIG":{"digest":"<b>"}}"#,
            r#"{"layers":[OWN],"MediaType":"application/vnd.oci.image.index.v1+json"}"#,
            "{\"layers\":[{\"digest\":\"<b>\"}],\"layer\u{17f}\":[OWN]}",
        ] {
            check(&document.replace("OWN", own), &[]);
        }
        // Whatever else a manifest has is no matter.
        check(
            r#"{"schemaVersion":2,"layers":[{"digest":"<a>","size":1,"annotations":{"X":"y"}}],"annotations":{"Layers":"z"}}"#,
            &["a"],
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
        assert_eq!(listed(document.as_bytes(), IMAGES[0]).len(), LISTED_MAX);
    }

    proptest! {
        #[test]
        fn no_document_makes_the_reader_fall(document in any::<Vec<u8>>()) {
            let _ = listed(&document, IMAGES[0]);
        }
    }
}
