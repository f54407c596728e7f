//! One case: what is asked for, how the upstream fails, and what every family of clients must get.

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise},
    fault_registry::{Asked, End, Fault, FaultRegistry, On, Times},
    http::{Ending, Whole},
    image::MANIFEST_TYPE,
};

use super::asker::Asker;

/// Bytes of each blob: two whole pieces and a part of one.
pub(crate) const SIZE: usize = 700_000;

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) subject: Subject,
    pub(crate) faults: Vec<(On, Times, Fault)>,
    pub(crate) expect: Expect,
    pub(crate) asked: Asks,
}

/// What is asked for; each asker of each case has a content of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Blob,
    /// A blob that is asked for by `Range: bytes=0-`, as containerd does.
    BlobFromZero,
    BlobHead,
    Tag,
    TagHead,
    /// A tag that was pulled before the upstream failed.
    KnownTag,
    Manifest,
}

/// Questions that go with one request for a content.
const QUESTIONS_MAX: usize = 4;

/// What every family of clients must get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The content, whole and right; nothing of the fault is seen.
    Content,
    /// The content of a moment ago, with a warning.
    Stale,
    /// A success whose body ends by FIN before its end.
    CutShort,
    /// What the table says of this fault.
    Row(&'static str),
    /// As `Row`, and the upstream's own status for those who have nobody else to ask.
    OwnStatus(&'static str, u16),
}

/// What the upstream must have been asked, at the path of the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// These ranges in this order, `-` for none.
    Ranges(&'static [&'static str]),
    /// So many requests.
    Count(usize),
    /// Some, and no more than these.
    AtMost(usize),
}

/// The content of one asker of one case.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: String,
    /// What is asked for below the repository.
    pub(crate) rest: String,
}

// === impl Case ===

impl Case {
    pub(crate) fn new(name: &'static str, subject: Subject, expect: Expect, asked: Asks) -> Self {
        Self {
            name,
            subject,
            faults: Vec::new(),
            expect,
            asked,
        }
    }

    pub(crate) fn with(mut self, on: On, times: Times, fault: Fault) -> Self {
        self.faults.push((on, times, fault));
        self
    }

    /// Whether only the patience of the node ends what the upstream does.
    pub(crate) fn is_slow(&self) -> bool {
        self.faults.iter().any(|(_, _, fault)| match fault {
            Fault::SlowStart(_) => true,
            Fault::Breaks { end, .. } => *end == End::Stall,
            _ => false,
        })
    }

    /// Holds what `asker` will ask for at the registry, still healthy.
    pub(crate) fn put(&self, registry: &FaultRegistry, asker: Asker) -> Result<Content> {
        let seed = format!("{} {asker:?}", self.name);
        let (bytes, digest, rest) = match self.subject {
            Subject::Blob | Subject::BlobFromZero | Subject::BlobHead => {
                let bytes = noise(&seed, SIZE)?;
                let digest = digest_of(&bytes);
                registry.put_blob(&digest, bytes.clone());
                let rest = format!("blobs/{digest}");
                (bytes, digest, rest)
            }
            subject => {
                let bytes = format!(
                    "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST_TYPE}\",\
                     \"annotations\":{{\"of\":\"{seed}\"}}}}"
                );
                let digest = digest_of(bytes.as_bytes());
                // A tag is a word; the case and the asker name it.
                let tag = seed.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
                registry.put_manifest(&tag, MANIFEST_TYPE, bytes.clone());
                let reference = match subject {
                    Subject::Manifest => &digest,
                    _ => &tag,
                };
                let rest = format!("manifests/{reference}");
                (bytes.into_bytes(), digest, rest)
            }
        };
        Ok(Content {
            bytes,
            digest,
            rest,
        })
    }

    pub(crate) fn fail(&self, registry: &FaultRegistry, content: &Content) {
        for (on, times, fault) in &self.faults {
            registry.fail(*on, &content.path(), *times, fault.clone());
        }
    }

    /// Whether `whole` is what `asker` must get.
    pub(crate) fn judge(&self, asker: Asker, content: &Content, whole: &Whole) -> Result<()> {
        ensure!(whole.ending != Ending::Reset, "the connection was reset");
        let namespace = (asker == Asker::Namespace).then_some("registry.test");
        ensure!(whole.header("oci-namespace") == namespace, "OCI-Namespace");
        match self.expect {
            Expect::Content => self.is_content(content, whole)?,
            Expect::Stale => {
                self.is_content(content, whole)?;
                let warning = whole.header("warning").context("no Warning")?;
                ensure!(warning.starts_with("299 - "), "Warning: {warning}");
            }
            Expect::CutShort => {
                ensure!(
                    matches!(whole.status, 200 | 206),
                    "{}: {}",
                    whole.status,
                    whole.text()
                );
                ensure!(whole.ending == Ending::Short, "it ended {:?}", whole.ending);
                // An upstream that promises more than there is may still have sent all of it.
                let is_part = whole.body.len() < content.bytes.len();
                ensure!(
                    is_part || whole.body == content.bytes,
                    "nothing was held back"
                );
            }
            Expect::Row(row) => self.is_refused(asker, row, None, whole)?,
            Expect::OwnStatus(row, status) => {
                let own = asker.is_direct().then_some(status);
                self.is_refused(asker, row, own, whole)?;
            }
        }
        let is_stale = self.expect == Expect::Stale;
        ensure!(
            whole.header("warning").is_some() == is_stale,
            "Warning: {:?}",
            whole.header("warning")
        );
        Ok(())
    }

    fn is_content(&self, content: &Content, whole: &Whole) -> Result<()> {
        content.is_whole(self.subject, whole)?;
        let is_sizeless = |(_, times, fault): &(On, Times, Fault)| {
            *times == Times::Always && matches!(fault, Fault::Framed(_))
        };
        let told = whole.header("content-length").map(str::parse::<usize>);
        match told.transpose()? {
            Some(told) => ensure!(told == content.bytes.len(), "Content-Length: {told}"),
            None => ensure!(self.faults.iter().any(is_sizeless), "no Content-Length"),
        }
        Ok(())
    }

    fn is_refused(
        &self,
        asker: Asker,
        row: &str,
        own_status: Option<u16>,
        whole: &Whole,
    ) -> Result<()> {
        let promise = asker.promised(row)?;
        let status = own_status.unwrap_or(promise.status);
        ensure!(
            whole.status == status,
            "{} {}, not {status}",
            whole.status,
            whole.text()
        );
        ensure!(whole.ending == Ending::Complete, "{:?}", whole.ending);
        let media_type = whole.header("content-type");
        ensure!(media_type == Some("application/json"), "{media_type:?}");
        if !self.subject.is_head() {
            let told: serde_json::Value = serde_json::from_slice(&whole.body)?;
            // With the upstream's own status goes the upstream's own word.
            let relayed = self.relayed_code(whole.status);
            let code = relayed.unwrap_or(&promise.code);
            ensure!(told["errors"][0]["code"] == *code, "{told}, not {code}");
        }
        let told_to_wait = self.faults.iter().find_map(|(_, _, fault)| match fault {
            Fault::Limited { retry_after } if whole.status == 429 => Some(retry_after.to_string()),
            _ => None,
        });
        let retry_after = whole.header("retry-after").map(str::to_owned);
        ensure!(retry_after == told_to_wait, "Retry-After: {retry_after:?}");
        ensure!(
            whole.header("www-authenticate").is_none(),
            "a challenge that nobody gave"
        );
        Ok(())
    }

    /// The code in the upstream's own body, where the upstream gave the status that is passed on.
    /// A tag is resolved by HEAD, which has no body, and so may be what is private: who has no right
    /// is told so in Darter's words, and so is that nothing is there.
    fn relayed_code(&self, status: u16) -> Option<&'static str> {
        let is_about_rights = matches!(status, 401 | 403 | 404);
        if is_about_rights || matches!(self.subject, Subject::Tag | Subject::KnownTag) {
            return None;
        }
        self.faults.iter().find_map(|(_, _, fault)| match fault {
            Fault::Status(own) if *own == status => Some("UNKNOWN"),
            _ => None,
        })
    }

    /// Whether the upstream was asked no more, and nothing else, than it must have been.
    pub(crate) fn judge_asked(&self, asked: &[Asked]) -> Result<()> {
        // Whether somebody may read a content is asked by HEAD, and so is its size; where that fails, by
        // the first byte.
        let is_question = |asked: &&Asked| {
            let is_light = asked.method == "HEAD" || asked.range.as_deref() == Some("bytes=0-0");
            is_light && !self.subject.is_head()
        };
        let is_by_digest = matches!(
            self.subject,
            Subject::Blob | Subject::BlobFromZero | Subject::Manifest
        );
        let questions = asked.iter().filter(is_question).count();
        ensure!(
            !is_by_digest || questions <= QUESTIONS_MAX,
            "{questions} questions"
        );
        // Who may not read it is not asked for it.
        let is_fetched = questions < asked.len();
        let ranges: Vec<&str> = asked
            .iter()
            .filter(|asked| !(is_by_digest && is_fetched && is_question(asked)))
            .map(|asked| asked.range.as_deref().unwrap_or("-"))
            .collect();
        let holds = match self.asked {
            Asks::Ranges(expect) => ranges == expect,
            Asks::Count(expect) => ranges.len() == expect,
            Asks::AtMost(most) => !ranges.is_empty() && ranges.len() <= most,
        };
        ensure!(holds, "the upstream was asked for {ranges:?}");
        for asked in asked {
            ensure!(asked.agent.starts_with("darter/"), "{asked:?}");
            ensure!(!asked.is_authorized, "an Authorization from nowhere");
        }
        Ok(())
    }
}

// === impl Subject ===

impl Subject {
    pub(crate) fn is_head(self) -> bool {
        matches!(self, Self::BlobHead | Self::TagHead)
    }

    pub(crate) fn is_known_before(self) -> bool {
        self == Self::KnownTag
    }
}

// === impl Content ===

impl Content {
    /// How the path ends at which the upstream is asked.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.rest)
    }

    /// Whether `whole` is this content, all of it and nothing else.
    pub(crate) fn is_whole(&self, subject: Subject, whole: &Whole) -> Result<()> {
        let status = match subject {
            Subject::BlobFromZero if whole.header("content-range").is_some() => 206,
            _ => 200,
        };
        ensure!(whole.status == status, "{}: {}", whole.status, whole.text());
        ensure!(whole.ending == Ending::Complete, "{:?}", whole.ending);
        let digest = whole.header("docker-content-digest");
        ensure!(digest == Some(&self.digest), "of {digest:?}");
        if !subject.is_head() {
            ensure!(whole.body == self.bytes, "wrong bytes");
        }
        Ok(())
    }
}
