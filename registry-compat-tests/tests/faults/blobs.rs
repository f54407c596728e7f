//! Blobs that break off, come wrong, or do not come.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise},
    fault_registry::{End, Fault, Framing, Guard, On, Times},
};

use super::{
    Asker, Stage,
    case::{Asks, Case, Expect, SIZE, Subject},
    check,
};

const ONCE: Times = Times::First(1);

/// What is left to come when a body breaks at its [`HALF`].
const REST: Asks = Asks::Ranges(&["-", "bytes=400000-699999"]);
const HALF: usize = 400_000;

/// What a fetch without any progress costs the upstream at most.
const FETCH_MAX: Asks = Asks::AtMost(5);

fn blob(name: &'static str, expect: Expect, asked: Asks) -> Case {
    Case::new(name, Subject::Blob, expect, asked)
}

fn breaks(framing: Framing, after: usize, end: End) -> Fault {
    Fault::Breaks {
        framing,
        after,
        end,
    }
}

fn cut(after: usize) -> Fault {
    breaks(Framing::Length, after, End::Close)
}

#[test]
fn a_blob_that_breaks_off_is_resumed_where_it_broke() -> Result<()> {
    let tenths = Asks::Ranges(&[
        "-",
        "bytes=100000-699999",
        "bytes=200000-699999",
        "bytes=300000-699999",
        "bytes=400000-699999",
        "bytes=500000-699999",
        "bytes=600000-699999",
    ]);
    check(&[
        blob("closes early", Expect::Content, REST).with(On::Get, ONCE, cut(HALF)),
        blob("always closes early", Expect::Content, tenths).with(
            On::Get,
            Times::Always,
            cut(SIZE / 7),
        ),
        blob(
            "closes before the body",
            Expect::Content,
            Asks::Ranges(&["-", "bytes=0-699999"]),
        )
        .with(On::Get, ONCE, cut(0)),
        blob("is reset", Expect::Content, Asks::Count(2)).with(
            On::Get,
            ONCE,
            breaks(Framing::Length, HALF, End::Reset),
        ),
        blob("stalls", Expect::Content, REST).with(
            On::Get,
            ONCE,
            breaks(Framing::Length, HALF, End::Stall),
        ),
        blob(
            "stalls before the body",
            Expect::Content,
            Asks::Ranges(&["-", "bytes=0-699999"]),
        )
        .with(On::Get, ONCE, breaks(Framing::Length, 0, End::Stall)),
        blob("closes early and knows no ranges", Expect::Content, REST)
            .with(On::Get, ONCE, cut(HALF))
            .with(On::Get, Times::Always, Fault::IgnoresRange),
        blob(
            "closes early, then is busy",
            Expect::Content,
            Asks::Ranges(&["-", "bytes=400000-699999", "bytes=400000-699999"]),
        )
        .with(On::Get, ONCE, cut(HALF))
        .with(On::Get, ONCE, Fault::Status(503)),
    ])
}

#[test]
fn a_blob_that_cannot_be_completed_ends_short() -> Result<()> {
    let after_half =
        |name| blob(name, Expect::CutShort, Asks::AtMost(6)).with(On::Get, ONCE, cut(HALF));
    check(&[
        blob("never sends a byte of a body", Expect::CutShort, FETCH_MAX).with(
            On::Get,
            Times::Always,
            cut(0),
        ),
        blob("always stalls before the body", Expect::CutShort, FETCH_MAX).with(
            On::Get,
            Times::Always,
            breaks(Framing::Length, 0, End::Stall),
        ),
        after_half("closes early and is gone").with(On::Get, Times::Always, Fault::NoAnswer),
        after_half("closes early and fails").with(On::Get, Times::Always, Fault::Status(500)),
        after_half("closes early and limits").with(
            On::Get,
            Times::Always,
            Fault::Limited { retry_after: 3600 },
        ),
        after_half("closes early and refuses").with(On::Get, Times::Always, Fault::NoChallenge),
        blob(
            "closes early and redirects without end",
            Expect::CutShort,
            Asks::Count(12),
        )
        .with(On::Get, ONCE, cut(HALF))
        .with(On::Get, Times::Always, Fault::RedirectLoop),
    ])
}

#[test]
fn a_blob_of_wrong_bytes_never_ends_as_if_it_were_whole() -> Result<()> {
    let once = Asks::Ranges(&["-"]);
    let from_zero = |name, at| {
        Case::new(
            name,
            Subject::BlobFromZero,
            Expect::CutShort,
            Asks::Count(1),
        )
        .with(On::Get, ONCE, Fault::WrongByte(at))
    };
    let short = |name, fault| blob(name, Expect::CutShort, once).with(On::Get, ONCE, fault);
    check(&[
        short("first byte wrong", Fault::WrongByte(0)),
        short("last byte wrong", Fault::WrongByte(SIZE - 1)),
        short("told shorter than it is", Fault::ToldShorter(10)),
        from_zero("first byte wrong, asked from zero", 0),
        from_zero("last byte wrong, asked from zero", SIZE - 1),
        blob("told longer than it is", Expect::CutShort, Asks::AtMost(5)).with(
            On::Get,
            ONCE,
            Fault::ToldLonger(10),
        ),
        short("longer than it is", Fault::Oversize(10)),
        blob(
            "ends early where only the end of the connection tells",
            Expect::CutShort,
            once,
        )
        .with(On::Get, ONCE, breaks(Framing::UntilClose, HALF, End::Close)),
    ])
}

#[test]
fn a_blob_whose_length_is_not_told_comes_whole_all_the_same() -> Result<()> {
    let framed = |name, framing| {
        blob(name, Expect::Content, Asks::Ranges(&["-"])).with(
            On::Get,
            Times::Always,
            Fault::Framed(framing),
        )
    };
    check(&[
        framed("in chunks", Framing::Chunked),
        framed("until the connection ends", Framing::UntilClose),
        blob(
            "in chunks that break off",
            Expect::Content,
            Asks::Ranges(&["-", "bytes=400000-"]),
        )
        .with(On::Get, ONCE, breaks(Framing::Chunked, HALF, End::Close))
        .with(On::Get, Times::Always, Fault::Framed(Framing::Chunked)),
        Case::new(
            "size in no head",
            Subject::BlobHead,
            Expect::Content,
            Asks::Ranges(&["-", "bytes=0-0"]),
        )
        .with(On::Head, Times::Always, Fault::Framed(Framing::Chunked)),
        Case::new(
            "no heads",
            Subject::BlobHead,
            Expect::Content,
            Asks::Ranges(&["-", "bytes=0-0"]),
        )
        .with(On::Head, Times::Always, Fault::Status(405)),
    ])
}

#[test]
fn an_upstream_that_answers_late_or_badly_for_a_moment_is_not_noticed() -> Result<()> {
    let again = Asks::Ranges(&["-", "-"]);
    let once = |name, fault| blob(name, Expect::Content, again).with(On::Get, ONCE, fault);
    check(&[
        once("closes at once", Fault::NoAnswer),
        once("fails once", Fault::Status(500)),
        once("is unavailable once", Fault::Status(503)),
        once("limits for a second", Fault::Limited { retry_after: 1 }),
        once(
            "starts too slowly once",
            Fault::SlowStart(Duration::from_secs(5)),
        ),
        blob("starts slowly", Expect::Content, Asks::Ranges(&["-"])).with(
            On::Get,
            Times::Always,
            Fault::SlowStart(Duration::from_millis(50)),
        ),
        blob("tells no digest", Expect::Content, Asks::Ranges(&["-"])).with(
            On::Any,
            Times::Always,
            Fault::DigestHeader(None),
        ),
        blob(
            "tells another digest",
            Expect::Content,
            Asks::Ranges(&["-"]),
        )
        .with(
            On::Any,
            Times::Always,
            Fault::DigestHeader(Some(format!("sha256:{}", "0".repeat(64)))),
        ),
    ])
}

#[test]
fn a_blob_that_does_not_come_is_answered_by_the_table() -> Result<()> {
    let lasting =
        |name, expect, asked, fault| blob(name, expect, asked).with(On::Any, Times::Always, fault);
    let own = |status| Expect::OwnStatus("failing", status);
    check(&[
        lasting(
            "is gone",
            Expect::Row("unreachable"),
            FETCH_MAX,
            Fault::NoAnswer,
        ),
        lasting("fails", own(500), Asks::Count(5), Fault::Status(500)),
        lasting(
            "is unavailable",
            own(503),
            Asks::Count(5),
            Fault::Status(503),
        ),
        lasting(
            "has it no more",
            own(410),
            Asks::Count(1),
            Fault::Status(410),
        ),
        lasting(
            "knows it not",
            Expect::Row("blob-unknown"),
            Asks::Count(1),
            Fault::Status(404),
        ),
        lasting(
            "denies",
            Expect::Row("denied"),
            Asks::Count(1),
            Fault::Status(403),
        ),
        lasting(
            "limits",
            Expect::Row("limited"),
            Asks::Count(1),
            Fault::Limited { retry_after: 3600 },
        ),
        lasting(
            "gives no challenge",
            Expect::Row("unauthorized"),
            Asks::Count(1),
            Fault::NoChallenge,
        ),
        lasting(
            "starts too slowly",
            Expect::Row("slow"),
            FETCH_MAX,
            Fault::SlowStart(Duration::from_secs(5)),
        ),
        lasting(
            "redirects without end",
            Expect::Row("failing"),
            Asks::Count(11),
            Fault::RedirectLoop,
        ),
    ])
}

#[test]
fn a_head_of_a_blob_that_is_not_answered_is_answered_by_the_table() -> Result<()> {
    let head = |name, expect, fault| {
        Case::new(name, Subject::BlobHead, expect, Asks::AtMost(5)).with(
            On::Any,
            Times::Always,
            fault,
        )
    };
    check(&[
        head(
            "fails at a head",
            Expect::OwnStatus("failing", 500),
            Fault::Status(500),
        ),
        head(
            "limits a head",
            Expect::Row("limited"),
            Fault::Limited { retry_after: 3600 },
        ),
        head(
            "gives no challenge to a head",
            Expect::Row("unauthorized"),
            Fault::NoChallenge,
        ),
        head(
            "is gone at a head",
            Expect::Row("unreachable"),
            Fault::NoAnswer,
        ),
        head(
            "knows no head of it",
            Expect::Row("blob-unknown"),
            Fault::Status(404),
        ),
    ])
}

#[test]
fn a_challenge_goes_to_those_who_can_answer_it() -> Result<()> {
    let stage = Stage::start(&[])?;
    stage.registry.guard(Guard::Basic);
    for asker in Asker::ALL {
        let bytes = noise(&format!("guarded {asker:?}"), 1_000)?;
        let rest = format!("blobs/{}", digest_of(&bytes));
        stage.registry.put_blob(&digest_of(&bytes), bytes);
        let whole = asker.request("GET", &rest).fetch(stage.proxy)?;
        let promise = asker.promised("unauthorized")?;
        let challenge = whole.header("www-authenticate");
        // Who cannot know the registry's scopes is sent to this node for its token.
        let expect = match asker {
            Asker::Namespace => "Basic realm=\"registry\"".to_owned(),
            _ => format!(
                "Bearer realm=\"http://{}/token\",service=\"darter\",",
                stage.proxy
            ),
        };
        let is_told = challenge.is_some_and(|challenge| challenge.starts_with(&expect));
        ensure!(
            whole.status == promise.status && is_told == (promise.status == 401),
            "{asker:?}: {} {challenge:?}",
            whole.status
        );
    }
    stage.darter.stop()
}

#[test]
fn a_short_retry_after_is_waited_for() -> Result<()> {
    let stage = Stage::start(&[])?;
    let bytes = noise("wait a second", SIZE)?;
    let path = format!("/blobs/{}", digest_of(&bytes));
    stage.registry.put_blob(&digest_of(&bytes), bytes.clone());
    let limited = Fault::Limited { retry_after: 1 };
    stage.registry.fail(On::Get, &path, ONCE, limited);
    let whole = Asker::Namespace
        .request("GET", &path[1..])
        .fetch(stage.proxy)?;
    ensure!(whole.body == bytes, "{}: wrong bytes", whole.status);
    let asked = stage.registry.fetched(&path);
    let first = asked[0].ended.context("the first answer has no end")?;
    let pause = asked[1].began.saturating_sub(first);
    ensure!(pause >= Duration::from_secs(1), "asked after {pause:?}");
    stage.darter.stop()
}
