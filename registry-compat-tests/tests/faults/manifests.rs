//! Manifests and tags from an upstream that fails, limits, lies, or sends too much.

use std::time::Duration;

use anyhow::Result;
use registry_compat_tests::fault_registry::{End, Fault, Framing, On, Times};

use super::{
    case::{Asks, Case, Expect, Subject},
    check,
};

const ONCE: Times = Times::First(1);
const LIMITED: Fault = Fault::Limited { retry_after: 3600 };

/// What a question costs the upstream at most.
const QUESTION_MAX: Asks = Asks::AtMost(3);

fn lasting(
    name: &'static str,
    subject: Subject,
    (expect, asked): (Expect, Asks),
    fault: Fault,
) -> Case {
    Case::new(name, subject, expect, asked).with(On::Any, Times::Always, fault)
}

fn own(status: u16) -> Expect {
    Expect::OwnStatus("failing", status)
}

#[test]
fn a_tag_that_cannot_be_resolved_is_answered_by_the_table() -> Result<()> {
    let tag = |name, expect, fault| lasting(name, Subject::Tag, (expect, QUESTION_MAX), fault);
    let head = |name, expect, fault| lasting(name, Subject::TagHead, (expect, QUESTION_MAX), fault);
    check(&[
        tag("tag fails", own(500), Fault::Status(500)),
        tag("tag is unavailable", own(503), Fault::Status(503)),
        tag("tag is limited", Expect::Row("limited"), LIMITED),
        tag(
            "tag is refused without a challenge",
            Expect::Row("unauthorized"),
            Fault::NoChallenge,
        ),
        tag("tag is denied", Expect::Row("denied"), Fault::Status(403)),
        tag(
            "tag is unknown",
            Expect::Row("manifest-unknown"),
            Fault::Status(404),
        ),
        tag(
            "tag is not answered",
            Expect::Row("unreachable"),
            Fault::NoAnswer,
        ),
        tag(
            "tag is answered too slowly",
            Expect::Row("slow"),
            Fault::SlowStart(Duration::from_secs(5)),
        ),
        lasting(
            "tag is redirected without end",
            Subject::Tag,
            (Expect::Row("failing"), Asks::Count(11)),
            Fault::RedirectLoop,
        ),
        head("head of a tag fails", own(500), Fault::Status(500)),
        head("head of a tag is limited", Expect::Row("limited"), LIMITED),
        head(
            "head of a tag is not answered",
            Expect::Row("unreachable"),
            Fault::NoAnswer,
        ),
    ])
}

#[test]
fn a_tag_that_is_known_is_answered_with_a_warning_while_the_upstream_fails() -> Result<()> {
    let known =
        |name, expect, fault| lasting(name, Subject::KnownTag, (expect, Asks::AtMost(11)), fault);
    check(&[
        known("known tag fails", Expect::Stale, Fault::Status(500)),
        known(
            "known tag is unavailable",
            Expect::Stale,
            Fault::Status(503),
        ),
        known("known tag is limited", Expect::Stale, LIMITED),
        known("known tag is not answered", Expect::Stale, Fault::NoAnswer),
        known(
            "known tag is answered too slowly",
            Expect::Stale,
            Fault::SlowStart(Duration::from_secs(5)),
        ),
        known(
            "known tag is redirected without end",
            Expect::Stale,
            Fault::RedirectLoop,
        ),
        // These say no, and a no is not overruled.
        known(
            "known tag is refused",
            Expect::Row("unauthorized"),
            Fault::NoChallenge,
        ),
        known(
            "known tag is denied",
            Expect::Row("denied"),
            Fault::Status(403),
        ),
        known(
            "known tag is gone",
            Expect::Row("manifest-unknown"),
            Fault::Status(404),
        ),
    ])
}

#[test]
fn a_tag_is_resolved_whatever_its_head_tells_of_the_digest() -> Result<()> {
    let told = |name, digest: Option<&str>| {
        let fault = Fault::DigestHeader(digest.map(str::to_owned));
        Case::new(name, Subject::Tag, Expect::Content, Asks::Count(2)).with(
            On::Head,
            Times::Always,
            fault,
        )
    };
    let other = "sha384:38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b";
    check(&[
        told("head without digest", None),
        told("head with a digest of another algorithm", Some(other)),
        told("head with a digest that is none", Some("latest")),
        Case::new(
            "no head of a tag",
            Subject::Tag,
            Expect::Content,
            Asks::Count(2),
        )
        .with(On::Head, Times::Always, Fault::Status(405)),
        Case::new(
            "tag fails once",
            Subject::Tag,
            Expect::Content,
            Asks::Count(2),
        )
        .with(On::Head, ONCE, Fault::Status(500)),
        Case::new(
            "head of a tag without digest",
            Subject::TagHead,
            Expect::Content,
            Asks::Count(2),
        )
        .with(On::Head, Times::Always, Fault::DigestHeader(None)),
    ])
}

#[test]
fn a_manifest_by_digest_comes_right_or_is_answered_by_the_table() -> Result<()> {
    let manifest =
        |name, expect, asked, fault| lasting(name, Subject::Manifest, (expect, asked), fault);
    let cut = |end| Fault::Breaks {
        framing: Framing::Length,
        after: 50,
        end,
    };
    let once = Asks::Count(1);
    check(&[
        Case::new(
            "manifest closes early",
            Subject::Manifest,
            Expect::Content,
            Asks::Ranges(&["-", "-"]),
        )
        .with(On::Get, ONCE, cut(End::Close)),
        Case::new(
            "manifest in chunks",
            Subject::Manifest,
            Expect::Content,
            Asks::Ranges(&["-"]),
        )
        .with(On::Get, ONCE, Fault::Framed(Framing::Chunked)),
        manifest(
            "manifest always closes early",
            Expect::Row("failing"),
            Asks::AtMost(6),
            cut(End::Close),
        ),
        manifest(
            "manifest of wrong bytes",
            Expect::Row("corrupt"),
            Asks::AtMost(4),
            Fault::WrongByte(7),
        ),
        manifest(
            "manifest told shorter",
            Expect::Row("corrupt"),
            Asks::AtMost(4),
            Fault::ToldShorter(7),
        ),
        manifest(
            "manifest stalls",
            Expect::Row("slow"),
            Asks::AtMost(6),
            cut(End::Stall),
        ),
        manifest(
            "manifest fails",
            own(500),
            Asks::Count(5),
            Fault::Status(500),
        ),
        manifest("manifest is limited", Expect::Row("limited"), once, LIMITED),
        manifest(
            "manifest is unknown",
            Expect::Row("manifest-unknown"),
            once,
            Fault::Status(404),
        ),
        manifest(
            "manifest is refused",
            Expect::Row("unauthorized"),
            once,
            Fault::NoChallenge,
        ),
    ])
}

#[test]
fn a_manifest_that_is_too_large_is_refused() -> Result<()> {
    let large = |name, subject, by| {
        lasting(
            name,
            subject,
            (Expect::Row("too-large"), Asks::AtMost(4)),
            Fault::Oversize(by),
        )
    };
    check(&[
        large(
            "manifest larger than is configured",
            Subject::Manifest,
            100_000,
        ),
        large("manifest larger than any", Subject::Manifest, 17 << 20),
        // What a HEAD says of the size is not what comes.
        lasting(
            "tag told larger",
            Subject::Tag,
            (Expect::Content, Asks::Count(1)),
            Fault::Oversize(17 << 20),
        ),
    ])
}
