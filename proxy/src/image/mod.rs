//! An image as a list of contents: what a preheat has to have.
//!
//! Its documents are read through the swarm like those of any pull, so whoever resolves an image
//! has warmed them. Nobody's credential is used: a private image is refused.

mod document;
mod name;

use std::collections::BTreeSet;

use protocol::{ContentKind, Digest, Origin, TaskId};

use self::document::{Descriptor, Document};
pub use self::{
    document::{Platform, PlatformError},
    name::ImageName,
};
use crate::{
    error::{Fault, Refusal},
    route::Reference,
    serve::Proxy,
};

/// Contents of one image; an image of more is refused.
pub const PARTS_MAX: usize = 1024;

/// Indices within one another.
const DEPTH_MAX: u32 = 3;

/// Which platforms of an index are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    All,
    These(Vec<Platform>),
}

/// An image whose documents were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageContent {
    /// What its name stands for.
    pub digest: Digest,
    /// Every content once, documents before what they name.
    pub parts: Vec<ImagePart>,
}

/// One content of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePart {
    pub task: TaskId,
    pub origin: Origin,
    pub kind: PartKind,
    /// Bytes.
    pub size: u64,
    /// The first platform that has it, where an index says so.
    pub platform: Option<Platform>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartKind {
    Index,
    Manifest,
    Config,
    Layer,
}

/// Why an image cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("{0:?} is no image name: {1}")]
    Name(String, String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}; this version preheats public images only, since it has no credential for others")]
    Private(String),
    #[error("{0} cannot be read: {1}")]
    Unreadable(Digest, String),
    #[error("the image has none of the platforms that are wanted; it has {0}")]
    NoPlatform(String),
    #[error("the image has more than {PARTS_MAX} contents; choose some of its platforms")]
    TooMuch,
}

/// The contents that were found so far.
struct Found<'a> {
    name: &'a ImageName,
    parts: Vec<ImagePart>,
    known: BTreeSet<Digest>,
}

// === impl PartKind ===

impl PartKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Layer => "layer",
        }
    }

    fn content(self) -> ContentKind {
        match self {
            Self::Index | Self::Manifest => ContentKind::Manifest,
            Self::Config | Self::Layer => ContentKind::Blob,
        }
    }
}

// === impl Proxy ===

impl Proxy {
    /// The contents of an image, for the platforms that are wanted where it has several. An image
    /// without an index is taken as it is.
    ///
    /// # Errors
    /// A document of it cannot be had or read, or it has none of the platforms.
    pub async fn image(
        &self,
        name: &ImageName,
        platforms: &Platforms,
    ) -> Result<ImageContent, ImageError> {
        let digest = match &name.reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let tag = name.tag(tag.clone());
                self.digest_of(tag)
                    .await
                    .map_err(|refusal| told(&refusal))?
            }
        };
        let mut found = Found {
            name,
            parts: Vec::new(),
            known: BTreeSet::new(),
        };
        // The documents to read, how deep each lies, and for which platform it is.
        let mut open = vec![(digest, 0, None)];
        while let Some((digest, depth, platform)) = open.pop() {
            let origin = name.origin(ContentKind::Manifest);
            let bytes = self.document(origin, digest).await;
            let bytes = bytes.map_err(|refusal| told(&refusal))?;
            let unreadable = |problem| ImageError::Unreadable(digest, problem);
            let size = bytes.len() as u64;
            match Document::read(&bytes).map_err(unreadable)? {
                Document::Index(entries) => {
                    if DEPTH_MAX <= depth {
                        return Err(unreadable("it lies too deep in other indices".to_owned()));
                    }
                    found.add(PartKind::Index, digest, size, platform)?;
                    let chosen = document::choose(&entries, platforms);
                    if chosen.is_empty() {
                        return Err(ImageError::NoPlatform(document::list(&entries)));
                    }
                    // The last that is put in is the first that comes out.
                    let chosen = chosen.into_iter().rev();
                    open.extend(chosen.map(|entry| (entry.digest, depth + 1, entry.platform)));
                }
                Document::Manifest { config, layers } => {
                    found.add(PartKind::Manifest, digest, size, platform.clone())?;
                    let layers = layers.into_iter().map(|layer| (PartKind::Layer, layer));
                    for (kind, Descriptor { digest, size }) in
                        [(PartKind::Config, config)].into_iter().chain(layers)
                    {
                        found.add(kind, digest, size, platform.clone())?;
                    }
                }
            }
            open.retain(|(digest, ..)| !found.known.contains(digest));
        }
        Ok(ImageContent {
            digest,
            parts: found.parts,
        })
    }
}

// === impl Found ===

impl Found<'_> {
    fn add(
        &mut self,
        kind: PartKind,
        digest: Digest,
        size: u64,
        platform: Option<Platform>,
    ) -> Result<(), ImageError> {
        if !self.known.insert(digest) {
            return Ok(());
        }
        if PARTS_MAX <= self.parts.len() {
            return Err(ImageError::TooMuch);
        }
        self.parts.push(ImagePart {
            task: TaskId(digest),
            origin: self.name.origin(kind.content()),
            kind,
            size,
            platform,
        });
        Ok(())
    }
}

fn told(refusal: &Refusal) -> ImageError {
    let message = refusal.message.clone();
    match refusal.fault {
        Fault::Unauthorized | Fault::Denied => ImageError::Private(message),
        _ => ImageError::Refused(message),
    }
}
