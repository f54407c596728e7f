//! The data sets of the conformance suite, under its names: what each has of tags, manifests,
//! blobs and referrers. Small, and the same on every machine.

use anyhow::Result;
use bytes::Bytes;
use registry_compat_tests::{
    image::{INDEX_TYPE, MANIFEST_TYPE},
    own_registry::{Blob, Content, Manifest, artifact_type},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

/// What a digest is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha256,
    Sha512,
}

/// One data set: what the suite would ask for of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct DataSet {
    pub(crate) name: &'static str,
    /// Tag and digest.
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) manifests: Vec<String>,
    pub(crate) blobs: Vec<String>,
    /// Descriptors of what refers to a subject, by the subject's digest.
    pub(crate) referrers: Vec<(String, Value)>,
}

/// Fills a registry with data sets.
#[derive(Debug)]
pub(crate) struct Maker<'a> {
    content: &'a mut Content,
    set: DataSet,
    algorithm: Algorithm,
}

const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const FOREIGN_TYPE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const EXAMPLE_TYPES: [&str; 2] = [
    "application/vnd.example.oci.conformance.1.config",
    "application/vnd.example.oci.conformance.2.config",
];

/// Annotations that make a manifest of almost 4 MB, as the suite's.
const LARGE: (usize, usize) = (390, 10_000);

// === impl Algorithm ===

impl Algorithm {
    pub(crate) fn digest_of(self, bytes: &[u8]) -> String {
        match self {
            Self::Sha256 => format!("sha256:{}", hex::encode(Sha256::digest(bytes))),
            Self::Sha512 => format!("sha512:{}", hex::encode(Sha512::digest(bytes))),
        }
    }
}

// === impl Maker ===

impl<'a> Maker<'a> {
    pub(crate) fn new(content: &'a mut Content, name: &'static str, algorithm: Algorithm) -> Self {
        let set = DataSet {
            name,
            ..DataSet::default()
        };
        Self {
            content,
            set,
            algorithm,
        }
    }

    /// A blob and its descriptor.
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = self.algorithm.digest_of(bytes);
        let blob = Blob::Bytes(Bytes::copy_from_slice(bytes));
        self.content.blobs.insert(digest.clone(), blob);
        if !self.set.blobs.contains(&digest) {
            self.set.blobs.push(digest.clone());
        }
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn layer(&mut self, media_type: &str, number: usize) -> Value {
        let text = format!("layer {number} of {}", self.set.name);
        self.blob(media_type, text.repeat(40).as_bytes())
    }

    /// A manifest or an index, and its descriptor.
    fn manifest(&mut self, manifest: &Value) -> Value {
        let bytes = Bytes::from(manifest.to_string());
        let digest = self.algorithm.digest_of(&bytes);
        let media_type = manifest["mediaType"].as_str().unwrap_or_default();
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        if let Some(subject) = manifest["subject"]["digest"].as_str() {
            let mut referrer = descriptor.clone();
            referrer["artifactType"] = json!(artifact_type(manifest));
            referrer["annotations"] = manifest["annotations"].clone();
            self.set.referrers.push((subject.to_owned(), referrer));
        }
        let kept = Manifest {
            media_type: media_type.to_owned(),
            bytes,
        };
        self.content.manifests.insert(digest.clone(), kept);
        self.set.manifests.push(digest);
        descriptor
    }

    /// An image of these layers with `extra` fields.
    fn image_of(&mut self, layers: &[Value], extra: &Value) -> Value {
        let config = json!({"architecture": "amd64", "os": "linux", "of": self.set.name});
        let config = self.blob(CONFIG_TYPE, config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config,
            "layers": layers,
        });
        self.manifest(&merged(manifest, extra))
    }

    fn image(&mut self, media_type: &str, extra: &Value) -> Value {
        let layers = [1, 2].map(|number| self.layer(media_type, number));
        self.image_of(&layers, extra)
    }

    fn artifact(&mut self, artifact_type: &str, layers: &[Value], extra: &Value) -> Value {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": artifact_type,
            "config": self.blob(EMPTY_TYPE, b"{}"),
            "layers": layers,
        });
        self.manifest(&merged(manifest, extra))
    }

    /// An index over two images that differ in their annotations.
    fn index(&mut self, extra: &Value) -> Value {
        let platforms = ["amd64", "arm64"].map(|architecture| {
            let annotations = json!({"annotations": {"architecture": architecture}});
            self.image(GZIP_TYPE, &annotations)
        });
        self.index_of(&platforms, extra)
    }

    fn index_of(&mut self, manifests: &[Value], extra: &Value) -> Value {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": manifests,
        });
        self.manifest(&merged(index, extra))
    }

    fn tag(&mut self, tag: &str, descriptor: &Value) {
        let digest = text_of(&descriptor["digest"]);
        // One registry has all sets, so each has tags of its own.
        let tag = format!("{}-{tag}", self.set.name);
        self.content.tags.insert(tag.clone(), digest.clone());
        self.set.tags.push((tag, digest));
    }

    /// The data set of this name; the suite's own description stands above its code for each.
    pub(crate) fn make(mut self) -> Result<DataSet> {
        let none = json!({});
        let top = match self.set.name {
            "image" => self.image(GZIP_TYPE, &none),
            "image-uncompressed" => self.image(LAYER_TYPE, &none),
            "large-manifest" => self.image(GZIP_TYPE, &large_annotations()),
            "index" => self.index(&none),
            "nested-index" => {
                let inner = [1, 2]
                    .map(|number| self.index(&json!({"annotations": {"n": number.to_string()}})));
                self.index_of(&inner, &none)
            }
            "empty-index" => self.index_of(&[], &none),
            "artifact" => {
                let layer = self.layer(EXAMPLE_TYPES[0], 1);
                self.artifact(EXAMPLE_TYPES[0], &[layer], &none)
            }
            "artifact-index" => self.index(&json!({"artifactType": EXAMPLE_TYPES[0]})),
            "artifact-without-layers" => {
                let layer = self.blob(EMPTY_TYPE, b"{}");
                self.artifact(EXAMPLE_TYPES[0], &[layer], &none)
            }
            "artifacts-with-subject" => {
                let subject = self.image(GZIP_TYPE, &none);
                self.referrers_of(&subject);
                subject
            }
            "index-with-subject" => {
                let subject = self.index(&none);
                let extra = json!({"artifactType": EXAMPLE_TYPES[0], "subject": subject});
                let referrer = self.index(&extra);
                self.tag("tagged-artifact", &referrer);
                subject
            }
            "missing-subject" => {
                let digest = self.algorithm.digest_of(b"missing content");
                let subject = json!({"mediaType": MANIFEST_TYPE, "digest": digest, "size": 123});
                let layer = self.layer(EXAMPLE_TYPES[0], 1);
                self.artifact(EXAMPLE_TYPES[0], &[layer], &json!({"subject": subject}))
            }
            "data-field" => {
                let mut layer = self.blob(EMPTY_TYPE, b"{}");
                layer["data"] = json!("e30=");
                self.image_of(&[layer], &none)
            }
            "non-distributable-layers" => {
                let foreign = self.foreign_layer();
                let own = self.layer(GZIP_TYPE, 1);
                self.image_of(&[foreign, own], &none)
            }
            "custom-fields" => self.index(&json!({"org.example.unknown": {"field": 1}})),
            "no-layers" => self.image_of(&[], &none),
            "sparse" => {
                let absent = |media_type: &str| {
                    let digest = self.algorithm.digest_of(media_type.as_bytes());
                    json!({"mediaType": media_type, "digest": digest, "size": 1024})
                };
                let (layer, manifest) = (absent(LAYER_TYPE), absent(MANIFEST_TYPE));
                let image = self.image_of(&[layer], &none);
                self.index_of(&[image, manifest], &none)
            }
            "sha512" => self.index(&none),
            other => anyhow::bail!("the suite has no data set {other}"),
        };
        self.tag("top", &top);
        Ok(self.set)
    }

    fn referrers_of(&mut self, subject: &Value) {
        self.image(GZIP_TYPE, &json!({"subject": subject}));
        for (number, artifact_type) in EXAMPLE_TYPES.iter().enumerate() {
            let layer = self.layer(artifact_type, number);
            let annotations = json!({"org.opencontainers.conformance": format!("hello {number}")});
            let extra = json!({"subject": subject, "annotations": annotations});
            let referrer = self.artifact(artifact_type, &[layer], &extra);
            self.tag(&format!("tagged-artifact{number}"), &referrer);
        }
    }

    /// The descriptor of a layer that lies elsewhere.
    fn foreign_layer(&self) -> Value {
        let digest = self.algorithm.digest_of(b"elsewhere");
        let url = format!("https://store.example.com/blobs/{digest}");
        json!({"mediaType": FOREIGN_TYPE, "digest": digest, "size": 123_456, "urls": [url]})
    }
}

/// What makes a manifest of almost 4 MB.
fn large_annotations() -> Value {
    let value = "A".repeat(LARGE.1);
    let annotations: serde_json::Map<String, Value> = (0..LARGE.0)
        .map(|number| (format!("large-annotation-{number}"), json!(value)))
        .collect();
    json!({ "annotations": annotations })
}

/// A JSON string's text.
pub(crate) fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn merged(mut manifest: Value, extra: &Value) -> Value {
    for (key, value) in extra.as_object().into_iter().flatten() {
        manifest[key] = value.clone();
    }
    manifest
}
