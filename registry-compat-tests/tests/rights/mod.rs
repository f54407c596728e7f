//! Attacks through Darter, before two token registries: one with private repositories, and one
//! whose operator wants what is in them. Nothing is given without the right to it, and nothing that
//! an attacker sees tells whether Darter holds a content.

mod cached;
mod names;
mod remembered;
mod wire;

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise},
    darter::{Darter, Home},
    http::{Request, Whole},
    token_registry::{Door, Heard, Settings, TokenRegistry},
};
use serde_json::json;
use tempfile::TempDir;

use crate::stage::workspace;

pub(crate) const OWNER: (&str, &str) = ("ann", "her-password");
pub(crate) const OTHER: (&str, &str) = ("bob", "his-password");

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Bytes of every blob here.
pub(crate) const SIZE: usize = 600_000;

/// A node before both registries.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) registry: TokenRegistry,
    pub(crate) evil: TokenRegistry,
    pub(crate) darter: Darter,
    pub(crate) proxy: SocketAddr,
    home: Home,
    directory: TempDir,
}

/// How a request names its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Ns,
    Prefix,
}

/// A content of `team/own`, with the manifest that lists it.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: String,
    pub(crate) manifest: Vec<u8>,
    pub(crate) manifest_digest: String,
}

// === impl Form ===

impl Form {
    pub(crate) const ALL: [Self; 2] = [Self::Ns, Self::Prefix];

    /// A request for `rest` below a repository of `registry`.
    pub(crate) fn request(self, method: &str, place: (&str, &str), rest: &str) -> Request {
        let (registry, repository) = place;
        match self {
            Self::Ns => Request::new(method, &format!("/v2/{repository}/{rest}?ns={registry}"))
                .header("User-Agent", "containerd/v2.1.9"),
            Self::Prefix => Request::new(method, &format!("/v2/{registry}/{repository}/{rest}"))
                .header("User-Agent", "containers/5.36"),
        }
    }
}

// === impl Stage ===

impl Stage {
    /// `more` is written into the `[proxy]` table.
    pub(crate) fn start(more: &str) -> Result<Self> {
        Self::start_logging("info", Settings::default(), more)
    }

    pub(crate) fn start_logging(filter: &str, settings: Settings, more: &str) -> Result<Self> {
        let directory = workspace()?;
        let at = |name: &str| directory.path().join(name);
        let registry = TokenRegistry::start(&at("registry"), settings.clone())?;
        let evil = TokenRegistry::start(&at("evil"), settings)?;
        registry.change(|rules| {
            rules.user(OWNER.0, OWNER.1).user(OTHER.0, OTHER.1);
            rules.private("team/own", &[OWNER.0]).public("team/open");
            rules.private("team/others", &[OTHER.0]);
        });
        evil.change(|rules| {
            rules.user(OTHER.0, OTHER.1).public("evil/x");
        });
        let home = Home::new()?;
        let free = "listen = \"127.0.0.1:0\"";
        let config = format!(
            "data_dir = {:?}\n[proxy]\n{free}\n{more}\n{}{}\
             [swarm]\n{free}\n[scheduler]\n{free}\n[admin]\n{free}\n",
            home.path().join("data"),
            registry.entry("registry.test"),
            evil.entry("evil.test"),
        );
        let darter = Darter::run_logging(filter, &config, &home)?;
        Ok(Self {
            proxy: darter.proxy()?,
            registry,
            evil,
            darter,
            home,
            directory,
        })
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// SIGTERM, and what it leaves behind.
    pub(crate) fn stop(self) -> Result<Home> {
        self.darter.stop()?;
        Ok(self.home)
    }

    /// A content in `team/own`, which the other registry claims to have too.
    pub(crate) fn put(&self, seed: &str) -> Result<Content> {
        let bytes = noise(seed, SIZE)?;
        let digest = digest_of(&bytes);
        let file = self.directory.path().join("blob");
        fs::write(&file, &bytes)?;
        let behind = self.registry.behind();
        behind.push_blob("team/own", &digest, &file)?;
        let media_type = OCI_MANIFEST;
        let config = "application/vnd.oci.image.config.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": config, "digest": digest, "size": SIZE},
            "layers": [],
        });
        let manifest = manifest.to_string().into_bytes();
        let manifest_digest = digest_of(&manifest);
        behind.push_manifest("team/own", &manifest_digest, media_type, &manifest)?;
        let claimed = registry_compat_tests::token_registry::ClaimedManifest {
            media_type: media_type.to_owned(),
            digest: manifest_digest.clone(),
            bytes: vec![b' '; manifest.len()].into(),
        };
        self.evil.change(|rules| {
            rules.claimed_blobs.insert(digest.clone(), SIZE as u64);
            rules
                .claimed_manifests
                .insert(manifest_digest.clone(), claimed);
        });
        Ok(Content {
            bytes,
            digest,
            manifest,
            manifest_digest,
        })
    }

    /// `content` is what `tag` of `team/own` stands for.
    pub(crate) fn tag(&self, content: &Content, tag: &str) -> Result<()> {
        let behind = self.registry.behind();
        behind.push_manifest("team/own", tag, OCI_MANIFEST, &content.manifest)
    }

    /// `Authorization` of a fresh token of the private repository's registry.
    pub(crate) fn bearer(
        &self,
        (user, password): (&str, &str),
        repository: &str,
    ) -> Result<String> {
        let token = self.registry.token(user, password, repository)?;
        Ok(format!("Bearer {token}"))
    }

    /// The owner gets `content`, by digest of the manifest and of the blob.
    pub(crate) fn warm(&self, content: &Content) -> Result<()> {
        let own = self.bearer(OWNER, "team/own")?;
        for (rest, bytes) in [
            (
                format!("manifests/{}", content.manifest_digest),
                &content.manifest,
            ),
            (format!("blobs/{}", content.digest), &content.bytes),
        ] {
            let request = Form::Ns.request("GET", ("registry.test", "team/own"), &rest);
            let whole = request.header("Authorization", &own).fetch(self.proxy)?;
            ensure!(
                whole.status == 200,
                "{rest}: {} {}",
                whole.status,
                whole.text()
            );
            ensure!(whole.body == *bytes, "{rest}: wrong bytes");
        }
        Ok(())
    }

    /// How often the bytes of a blob were sent by the storage host.
    pub(crate) fn fetches(&self, digest: &str) -> usize {
        self.registry.heard_of(Door::Storage, "GET", digest).len()
    }
}

/// What the attacked registry saw since `from`: as many requests as it takes time to answer. By which
/// method it is asked is between Darter and it.
pub(crate) fn asked_since(registry: &TokenRegistry, from: usize) -> Vec<String> {
    let told = |heard: &Heard| format!("{:?} {:?} {}", heard.door, heard.caller, heard.status);
    registry.heard()[from..].iter().map(told).collect()
}

/// What the attacker's own registry saw since `from`, without what differs between two contents of
/// one size, and without ranges: what is not held is fetched by whole pieces.
pub(crate) fn seen_since(registry: &TokenRegistry, from: usize, content: &Content) -> Vec<String> {
    let told = |heard: &Heard| {
        let line = format!(
            "{:?} {} {} {:?} {}",
            heard.door, heard.method, heard.path, heard.caller, heard.status
        );
        without_digests(&line, content)
    };
    registry.heard()[from..].iter().map(told).collect()
}

/// What an asker sees, without what differs between two contents of one size.
pub(crate) fn view(whole: &Whole, content: &Content) -> String {
    let mut headers: Vec<_> = whole
        .headers
        .iter()
        .filter(|(name, _)| name != "date")
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    headers.sort();
    let text = format!(
        "{} {:?} {}\n{}",
        whole.status,
        whole.ending,
        headers.join(" | "),
        whole.text()
    );
    without_digests(&text, content)
}

fn without_digests(text: &str, content: &Content) -> String {
    let text = text.replace(&content.digest, "BLOB");
    text.replace(&content.manifest_digest, "MANIFEST")
}

/// An answer that is a refusal and holds nothing of the content.
pub(crate) fn is_refused(whole: &Whole, content: &Content) -> Result<()> {
    ensure!(
        matches!(whole.status, 400..=404 | 502),
        "status {}",
        whole.status
    );
    let has_part = whole
        .body
        .windows(32)
        .any(|part| part == &content.bytes[..32]);
    ensure!(!has_part && whole.body != content.manifest, "it has bytes");
    let told = whole.header("content-length").context("no length")?;
    ensure!(told != SIZE.to_string(), "the size is told");
    Ok(())
}
