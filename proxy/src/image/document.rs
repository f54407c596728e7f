//! Pure: what an index or a manifest names. Documents are read, never written again.

use std::{fmt, str::FromStr};

use oci_spec::image::{self, ImageIndex, ImageManifest};
use protocol::Digest;

use super::Platforms;

/// A platform as indices and commands name it: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a platform is written os/architecture or os/architecture/variant, as in linux/arm/v7")]
pub struct PlatformError;

/// A document of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    Index(Vec<Entry>),
    Manifest {
        config: Descriptor,
        /// Those that lie in the registry: a layer with addresses of its own does not.
        layers: Vec<Descriptor>,
    },
}

/// A manifest or an index within an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) digest: Digest,
    pub(super) platform: Option<Platform>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

// === impl Platform ===

impl Platform {
    /// That of this very process.
    pub fn own() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: std::env::consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    /// Whether `wanted` means this one: no variant means any, and 64-bit ARM has one alone.
    fn is_meant_by(&self, wanted: &Self) -> bool {
        let own_variant = match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", None) => Some("v8"),
            (_, variant) => variant,
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_none() || wanted.variant.as_deref() == own_variant)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let elements: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match elements[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(PlatformError),
        };
        if elements.iter().any(|element| element.is_empty()) {
            return Err(PlatformError);
        }
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl From<&image::Platform> for Platform {
    fn from(told: &image::Platform) -> Self {
        Self {
            os: told.os().to_string(),
            architecture: told.architecture().to_string(),
            variant: told.variant().clone().filter(|variant| !variant.is_empty()),
        }
    }
}

// === impl Document ===

impl Document {
    /// # Errors
    /// It is neither, or names a content in a way that is not understood; the text says what.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        if let Ok(index) = ImageIndex::from_reader(bytes) {
            let entries = index.manifests().iter();
            return Ok(Self::Index(entries.map(entry).collect::<Result<_, _>>()?));
        }
        let manifest = ImageManifest::from_reader(bytes)
            .map_err(|error| format!("it is neither an index nor a manifest: {error}"))?;
        let is_here = |layer: &&image::Descriptor| layer.urls().as_ref().is_none_or(Vec::is_empty);
        let layers = manifest.layers().iter().filter(is_here);
        Ok(Self::Manifest {
            config: descriptor(manifest.config())?,
            layers: layers.map(descriptor).collect::<Result<_, _>>()?,
        })
    }
}

/// The entries for the platforms that are wanted.
pub(super) fn choose(entries: &[Entry], wanted: &Platforms) -> Vec<Entry> {
    let is_chosen = |entry: &&Entry| match (wanted, &entry.platform) {
        (Platforms::All, _) => true,
        (Platforms::These(wanted), Some(platform)) => {
            wanted.iter().any(|wanted| platform.is_meant_by(wanted))
        }
        (Platforms::These(_), None) => false,
    };
    entries.iter().filter(is_chosen).cloned().collect()
}

/// The platforms of an index, for a person.
pub(super) fn list(entries: &[Entry]) -> String {
    let platforms = entries.iter().filter_map(|entry| entry.platform.as_ref());
    let mut names: Vec<String> = platforms.map(ToString::to_string).collect();
    names.sort_unstable();
    names.dedup();
    match names.is_empty() {
        true => "none that it names".to_owned(),
        false => names.join(", "),
    }
}

fn entry(told: &image::Descriptor) -> Result<Entry, String> {
    Ok(Entry {
        digest: descriptor(told)?.digest,
        platform: told.platform().as_ref().map(Platform::from),
    })
}

fn descriptor(told: &image::Descriptor) -> Result<Descriptor, String> {
    let digest = told.digest().to_string();
    let parsed = digest.parse();
    Ok(Descriptor {
        digest: parsed.map_err(|error| format!("it names {digest}: {error}"))?,
        size: told.size(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_platform_without_a_variant_means_any() {
        let check = |has: &str, wanted: &str, expect: bool| {
            let is_meant = platform(has).is_meant_by(&platform(wanted));
            assert_eq!(is_meant, expect, "{wanted} for {has}");
        };
        check("linux/amd64", "linux/amd64", true);
        check("linux/arm/v7", "linux/arm", true);
        check("linux/arm/v7", "linux/arm/v6", false);
        check("linux/arm", "linux/arm/v7", false);
        check("linux/arm64", "linux/arm64/v8", true);
        check("linux/arm64/v8", "linux/arm64", true);
        check("windows/amd64", "linux/amd64", false);
        for bad in ["linux", "linux/", "/amd64", "a/b/c/d", ""] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError), "{bad}");
        }
    }

    #[test]
    fn a_document_is_an_index_or_a_manifest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let one = |more: &str| {
            format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":7{more}}}"#)
        };
        let amd64 = one(r#","platform":{"architecture":"amd64","os":"linux"}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{amd64},{}]}}"#, one(""));
        let Ok(Document::Index(entries)) = Document::read(index.as_bytes()) else {
            panic!("{index}");
        };
        assert_eq!(list(&entries), "linux/amd64");
        let these = |text: &str| choose(&entries, &Platforms::These(vec![platform(text)])).len();
        assert_eq!((these("linux/amd64"), these("linux/arm64")), (1, 0));
        assert_eq!(choose(&entries, &Platforms::All).len(), 2);
        // A foreign layer lies elsewhere.
        let layers = [one(""), one(r#","urls":["http://a/b"]"#)].join(",");
        let config = one("");
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#);
        let descriptor = Descriptor {
            digest: digest.parse().unwrap(),
            size: 7,
        };
        assert_eq!(
            Document::read(manifest.as_bytes()),
            Ok(Document::Manifest {
                config: descriptor,
                layers: vec![descriptor]
            })
        );
        for bad in ["", "{}", r#"{"schemaVersion":1,"fsLayers":[]}"#] {
            let told = Document::read(bad.as_bytes()).unwrap_err();
            assert!(told.contains("neither an index nor a manifest"), "{told}");
        }
    }
}
