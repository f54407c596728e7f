//! Pure: what the registry holds, and what a healthy registry answers of it.
//!
//! Any repository has every content: tests tell their contents apart by digest and tag.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{content::digest_of, image::INDEX_TYPE};

/// Blobs, manifests, and who may read them.
#[derive(Debug, Default)]
pub(super) struct Contents {
    blobs: BTreeMap<String, Bytes>,
    /// By tag, and by each digest.
    manifests: BTreeMap<String, Manifest>,
    pub(super) guard: Guard,
}

/// Who is let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Guard {
    /// Everybody.
    #[default]
    Open,
    /// Whoever brings an `Authorization`, asked for by a Basic challenge.
    Basic,
    /// Whoever brings a token of this registry's own token endpoint, which gives it to everybody.
    Token,
}

#[derive(Debug, Clone)]
struct Manifest {
    digest: String,
    media_type: String,
    bytes: Bytes,
}

/// One request, as far as an answer depends on it.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(String, String)>,
}

/// An answer that has all it needs.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// Where in the whole the body begins.
    pub(super) start: usize,
}

/// The token that the registry's own token endpoint gives.
const TOKEN: &str = "let-me-in";

/// What its realm carries in the query, and nobody but the asker may be told.
pub const REALM_SECRET: &str = "secret-of-the-realm";

/// Descriptors of one page of referrers.
const PAGE: usize = 2;

// === impl Contents ===

impl Contents {
    pub(super) fn put_blob(&mut self, digest: &str, bytes: Bytes) {
        self.blobs.insert(digest.to_owned(), bytes);
    }

    pub(super) fn put_manifest(&mut self, reference: &str, media_type: &str, bytes: Bytes) {
        let digest = match reference.contains(':') {
            true => reference.to_owned(),
            false => digest_of(&bytes),
        };
        let manifest = Manifest {
            digest: digest.clone(),
            media_type: media_type.to_owned(),
            bytes,
        };
        self.manifests
            .insert(reference.to_owned(), manifest.clone());
        self.manifests.insert(digest, manifest);
    }

    /// What a healthy registry at `authority` answers.
    pub(super) fn answer(&self, head: &Head, authority: &str) -> Reply {
        if head.path == "/token" {
            return Reply::json(200, &json!({"token": TOKEN, "expires_in": 300}));
        }
        if let Some(refused) = self.refusal(head, authority) {
            return refused;
        }
        let mut parts = head.path.rsplitn(3, '/');
        let (reference, kind) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        match kind {
            "blobs" => match self.blobs.get(reference) {
                Some(bytes) => Reply::content(reference, "application/octet-stream", bytes)
                    .part(head.header("range")),
                None => Reply::error(404, "BLOB_UNKNOWN"),
            },
            "manifests" => match self.manifests.get(reference) {
                Some(found) => Reply::content(&found.digest, &found.media_type, &found.bytes)
                    .with("RateLimit-Limit", "100;w=21600")
                    .with("RateLimit-Remaining", "76;w=21600"),
                None => Reply::error(404, "MANIFEST_UNKNOWN"),
            },
            "referrers" => self.referrers(reference, head),
            _ => Reply::error(404, "NAME_UNKNOWN"),
        }
    }

    fn refusal(&self, head: &Head, authority: &str) -> Option<Reply> {
        let told = head.header("authorization");
        let challenge = match self.guard {
            Guard::Open => return None,
            Guard::Basic if told.is_some() => return None,
            Guard::Basic => "Basic realm=\"registry\"".to_owned(),
            Guard::Token if told == Some(&format!("Bearer {TOKEN}")) => return None,
            Guard::Token => {
                let realm = format!("http://{authority}/token?key={REALM_SECRET}");
                format!("Bearer realm=\"{realm}\",service=\"registry\"")
            }
        };
        Some(Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", &challenge))
    }

    /// Every manifest whose `subject` is `digest` (distribution specification, "Listing
    /// Referrers"), filtered and page by page.
    fn referrers(&self, digest: &str, head: &Head) -> Reply {
        let wanted = head.parameter("artifactType");
        let after = head.parameter("last").unwrap_or_default();
        let named = |name: &String, manifest: &&Manifest| *name == manifest.digest;
        let mut found: Vec<Value> = self
            .manifests
            .iter()
            .filter(|(name, manifest)| named(name, manifest) && **name > after)
            .filter_map(|(_, manifest)| manifest.descriptor_if_refers_to(digest))
            .filter(|told| {
                wanted
                    .as_ref()
                    .is_none_or(|wanted| told["artifactType"] == **wanted)
            })
            .collect();
        let is_last_page = found.len() <= PAGE;
        found.truncate(PAGE);
        let last = found.last().map(|told| told["digest"].clone());
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": found});
        let mut reply = Reply::json(200, &index);
        reply.headers[0].1 = INDEX_TYPE.to_owned();
        if wanted.is_some() {
            reply = reply.with("OCI-Filters-Applied", "artifactType");
        }
        match last.as_ref().and_then(Value::as_str) {
            Some(last) if !is_last_page => reply.with(
                "Link",
                &format!("<{}?last={last}>; rel=\"next\"", head.path),
            ),
            Some(_) | None => reply,
        }
    }
}

// === impl Manifest ===

impl Manifest {
    fn descriptor_if_refers_to(&self, digest: &str) -> Option<Value> {
        let read: Value = serde_json::from_slice(&self.bytes).ok()?;
        (read["subject"]["digest"] == *digest).then(|| {
            json!({
                "mediaType": self.media_type,
                "digest": self.digest,
                "size": self.bytes.len(),
                "artifactType": read["artifactType"],
            })
        })
    }
}

// === impl Head ===

impl Head {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        let found = pairs.find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    }
}

// === impl Reply ===

impl Reply {
    pub(super) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            start: 0,
        }
    }

    fn json(status: u16, value: &Value) -> Self {
        let mut reply = Self::empty(status).with("Content-Type", "application/json");
        reply.body = value.to_string().into();
        reply
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        let told = json!({"errors": [{"code": code, "message": "says the fault registry"}]});
        Self::json(status, &told)
    }

    fn content(digest: &str, media_type: &str, bytes: &Bytes) -> Self {
        let mut reply = Self::empty(200)
            .with("Content-Type", media_type)
            .with("Docker-Content-Digest", digest);
        reply.body = bytes.clone();
        reply
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The part that `Range: bytes=first-[last]` asks for; another form is not honoured.
    fn part(mut self, range: Option<&str>) -> Self {
        let Some((first, last)) =
            range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'))
        else {
            return self.with("Accept-Ranges", "bytes");
        };
        let size = self.body.len();
        let Ok(first) = first.parse::<usize>() else {
            return self;
        };
        let end = last.parse().map_or(size, |last: usize| size.min(last + 1));
        if end <= first {
            return Self::error(416, "RANGE_INVALID")
                .with("Content-Range", &format!("bytes */{size}"));
        }
        self.status = 206;
        self.start = first;
        self.body = self.body.slice(first..end);
        let told = format!("bytes {first}-{}/{size}", end - 1);
        self.with("Content-Range", &told)
    }
}
