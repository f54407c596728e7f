//! Pure: the media type of a manifest, as its clients need it: no parameters, and true.
//!
//! Some registries answer with `text/plain` or `application/octet-stream` (or with nothing); then
//! the document itself says what it is. Documents are read, never written again.

use serde::Deserialize;

/// What is read of a document.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What registries take the manifest of an image by.
pub(crate) const IMAGES: [&str; 2] = [
    OCI_MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
];

const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The media type that the upstream told, if it can be one of a manifest.
pub(crate) fn told(content_type: Option<&str>) -> Option<String> {
    let bare = content_type?.split(';').next()?.trim().to_ascii_lowercase();
    let is_manifest = bare.starts_with("application/vnd.");
    is_manifest.then_some(bare)
}

/// The media type that the document itself tells.
pub(crate) fn read(document: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<Document>(document) else {
        return OCI_MANIFEST.to_owned();
    };
    match document {
        Document {
            media_type: Some(media_type),
            ..
        } => media_type,
        Document {
            manifests: Some(_), ..
        } => OCI_INDEX.to_owned(),
        Document {
            fs_layers: Some(_), ..
        } => DOCKER_SCHEMA_1.to_owned(),
        Document { .. } => OCI_MANIFEST.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_left_out_and_types_of_no_manifest_are_not_believed() {
        let seen = |text| told(Some(text));
        assert_eq!(
            seen("application/vnd.oci.image.index.v1+json; charset=utf-8").as_deref(),
            Some(OCI_INDEX)
        );
        for text in [
            "text/plain",
            "application/octet-stream",
            "application/json",
            "",
        ] {
            assert_eq!(seen(text), None, "{text}");
        }
        assert_eq!(told(None), None);
    }

    #[test]
    fn a_document_says_what_it_is() {
        assert_eq!(
            read(br#"{"mediaType":"application/vnd.x+json","manifests":[]}"#),
            "application/vnd.x+json"
        );
        assert_eq!(read(br#"{"schemaVersion":2,"manifests":[]}"#), OCI_INDEX);
        assert_eq!(
            read(br#"{"schemaVersion":2,"config":{},"layers":[]}"#),
            OCI_MANIFEST
        );
        assert_eq!(
            read(br#"{"schemaVersion":1,"fsLayers":[]}"#),
            DOCKER_SCHEMA_1
        );
        assert_eq!(read(b"no json"), OCI_MANIFEST);
    }
}
