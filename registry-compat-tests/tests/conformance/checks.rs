//! What a mirror must answer to each read of the conformance suite: status, body, headers, and
//! the error body of the distribution specification where it cannot.

use std::{net::SocketAddr, ops::Range};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    http::{Ending, Request, Whole},
    image::{INDEX_TYPE, MANIFEST_TYPE},
    own_registry::{Blob, Content},
};
use serde_json::Value;

use super::data::{DataSet, text_of};

/// A repository behind a mirror, and what it is known to have.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) proxy: SocketAddr,
    /// As it stands in a path.
    pub(crate) repository: &'a str,
    pub(crate) content: &'a Content,
}

// === impl Subject ===

impl Subject<'_> {
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Whole> {
        let target = format!("/v2/{}/{path}", self.repository);
        let mut request = Request::new(method, &target).header("User-Agent", "Go-http-client/1.1");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.fetch(self.proxy)?;
        ensure!(answer.ending == Ending::Complete, "{:?}", answer.ending);
        Ok(answer)
    }

    pub(crate) fn ping(&self) -> Result<()> {
        let answer = Request::get("/v2/").fetch(self.proxy)?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    }

    /// Every write of the suite; a mirror has none.
    pub(crate) fn refuses(&self, method: &str, path: &str) -> Result<()> {
        self.is_error(&self.ask(method, path, &[])?, (405, "UNSUPPORTED"))
    }

    pub(crate) fn has_no_blob(&self, digest: &str) -> Result<()> {
        let answer = self.ask("GET", &format!("blobs/{digest}"), &[])?;
        self.is_error(&answer, (404, "BLOB_UNKNOWN"))
    }

    pub(crate) fn has_no_manifest(&self, reference: &str, told: (u16, &str)) -> Result<()> {
        self.is_error(&self.manifest("GET", reference)?, told)
    }

    /// A part of a blob, or the word that there is none.
    pub(crate) fn range(
        &self,
        digest: &str,
        asked: &str,
        part: Option<Range<usize>>,
    ) -> Result<()> {
        let range = format!("bytes={asked}");
        let answer = self.ask("GET", &format!("blobs/{digest}"), &[("Range", &range)])?;
        let bytes = self.blob_bytes(digest)?;
        let Some(part) = part else {
            return self.is_error(&answer, (416, "RANGE_INVALID"));
        };
        ensure!(answer.status == 206, "{}", answer.status);
        let told = format!("bytes {}-{}/{}", part.start, part.end - 1, bytes.len());
        is_header(&answer, "Content-Range", &told)?;
        is_header(&answer, "Content-Length", &part.len().to_string())?;
        ensure!(answer.body == bytes[part], "wrong bytes");
        Ok(())
    }

    pub(crate) fn blob(&self, method: &str, digest: &str) -> Result<()> {
        let answer = self.ask(method, &format!("blobs/{digest}"), &[])?;
        is_content(&answer, method, digest, &self.blob_bytes(digest)?)
    }

    /// The manifest `digest`, asked for by `reference`, which may be a tag of it.
    pub(crate) fn manifest_is(&self, method: &str, reference: &str, digest: &str) -> Result<()> {
        let answer = self.manifest(method, reference)?;
        let manifest = self.content.manifests.get(digest).context("no manifest")?;
        is_header(&answer, "Content-Type", &manifest.media_type)?;
        is_content(&answer, method, digest, &manifest.bytes)
    }

    /// All tags of the set, and with `last` those after it alone.
    pub(crate) fn lists_tags(&self, set: &DataSet) -> Result<()> {
        let mut all = self.tags("")?;
        for (tag, _) in &set.tags {
            ensure!(all.contains(tag), "{tag} is missing from {all:?}");
        }
        all.sort();
        if all.len() < 2 {
            return Ok(());
        }
        let (before, after) = all.split_at(all.len() / 2);
        let last = before.last().context("two tags have a first half")?;
        let rest = self.tags(&format!("?last={last}"))?;
        ensure!(rest == after, "after {last}: {rest:?}, not {after:?}");
        Ok(())
    }

    /// A list of tags; an empty repository may be an unknown one.
    pub(crate) fn tags(&self, query: &str) -> Result<Vec<String>> {
        let answer = self.ask("GET", &format!("tags/list{query}"), &[])?;
        if answer.status == 404 {
            self.is_error(&answer, (404, "NAME_UNKNOWN"))?;
            return Ok(Vec::new());
        }
        ensure!(answer.status == 200, "{}", answer.status);
        let list: Value = serde_json::from_slice(&answer.body)?;
        let tags = list["tags"].as_array().context("no tags")?;
        Ok(tags.iter().map(text_of).collect())
    }

    /// Nothing refers to a digest that nobody has heard of.
    pub(crate) fn has_no_referrers(&self, digest: &str) -> Result<()> {
        let listed = self.referrers(digest, None)?;
        ensure!(listed.is_empty(), "{listed:?}");
        Ok(())
    }

    /// All that refers to each subject of the set, and by type those of that type alone.
    pub(crate) fn lists_referrers(&self, set: &DataSet) -> Result<()> {
        for (subject, goal) in &set.referrers {
            let goals = || {
                let of_subject = set.referrers.iter().filter(|(other, _)| other == subject);
                of_subject.map(|(_, goal)| goal)
            };
            let listed = self.referrers(subject, None)?;
            ensure!(listed.len() == goals().count(), "{listed:?}");
            let own_type = text_of(&goal["artifactType"]);
            let of_type = self.referrers(subject, Some(&own_type))?;
            for goal in goals() {
                ensure!(listed.contains(goal), "{goal} is missing");
                let is_wanted = goal["artifactType"] == own_type.as_str();
                ensure!(
                    of_type.contains(goal) == is_wanted,
                    "of {own_type}: {of_type:?}"
                );
            }
        }
        Ok(())
    }

    fn referrers(&self, digest: &str, of_type: Option<&str>) -> Result<Vec<Value>> {
        let query = of_type.map_or(String::new(), |name| {
            let encoded: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
            format!("?artifactType={encoded}")
        });
        let answer = self.ask("GET", &format!("referrers/{digest}{query}"), &[])?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        is_header(&answer, "Content-Type", INDEX_TYPE)?;
        if of_type.is_some() {
            is_header(&answer, "OCI-Filters-Applied", "artifactType")?;
        }
        let index: Value = serde_json::from_slice(&answer.body)?;
        ensure!(index["mediaType"] == INDEX_TYPE && index["schemaVersion"] == 2);
        Ok(index["manifests"].as_array().context("no list")?.clone())
    }

    fn manifest(&self, method: &str, reference: &str) -> Result<Whole> {
        let accept = [("Accept", INDEX_TYPE), ("Accept", MANIFEST_TYPE)];
        self.ask(method, &format!("manifests/{reference}"), &accept)
    }

    fn blob_bytes(&self, digest: &str) -> Result<Vec<u8>> {
        match self.content.blobs.get(digest) {
            Some(Blob::Bytes(bytes)) => Ok(bytes.to_vec()),
            Some(Blob::Noise(_)) | None => anyhow::bail!("{digest} is no blob of this test"),
        }
    }

    /// An error as the distribution specification writes it ("Error Codes").
    fn is_error(&self, answer: &Whole, (status, code): (u16, &str)) -> Result<()> {
        ensure!(
            answer.status == status,
            "{}: {}",
            answer.status,
            answer.text()
        );
        let told: Value = serde_json::from_slice(&answer.body)?;
        ensure!(told["errors"][0]["code"] == code, "{told}");
        let is_json = answer
            .header("Content-Type")
            .is_some_and(|value| value.starts_with("application/json"));
        ensure!(is_json, "an error that is not told to be JSON");
        Ok(())
    }
}

/// The content itself, or by HEAD all that is told of it.
fn is_content(answer: &Whole, method: &str, digest: &str, bytes: &[u8]) -> Result<()> {
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    is_header(answer, "Docker-Content-Digest", digest)?;
    is_header(answer, "Content-Length", &bytes.len().to_string())?;
    let expect = if method == "HEAD" { &[] } else { bytes };
    ensure!(answer.body == expect, "wrong bytes");
    Ok(())
}

fn is_header(answer: &Whole, name: &str, expect: &str) -> Result<()> {
    let told = answer.header(name);
    ensure!(told == Some(expect), "{name}: {told:?}, not {expect:?}");
    Ok(())
}
