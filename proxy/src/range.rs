//! Pure: which bytes a request asks for (RFC 9110 section 14).
//!
//! A header that does not parse, names another unit, or asks for several ranges is ignored, as the
//! standard allows: the whole is sent with 200. Several ranges are never answered in part.

use std::ops::Range;

use swarm::open::Wanted;

/// Reads the `Range` headers of a request; `if_range` is its `If-Range`, and `etag` the quoted
/// entity tag of what is served. A date in `If-Range` never matches: digests have no date.
pub fn parse<'a>(
    range: impl IntoIterator<Item = &'a str>,
    if_range: Option<&str>,
    etag: &str,
) -> Wanted {
    let mut lines = range.into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Wanted::Whole;
    };
    if if_range.is_some_and(|validator| validator.trim() != etag) {
        return Wanted::Whole;
    }
    parse_line(line).unwrap_or(Wanted::Whole)
}

/// The header that asks for it.
pub fn header(wanted: Wanted) -> Option<String> {
    match wanted {
        Wanted::Whole => None,
        Wanted::From { start } => Some(format!("bytes={start}-")),
        Wanted::Span { start, last } => Some(format!("bytes={start}-{last}")),
        Wanted::Suffix { length } => Some(format!("bytes=-{length}")),
    }
}

/// `Content-Range` of a 206. The size is always told: some clients take no `*`.
pub fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

/// `Content-Range` of a 416.
pub fn content_range_unsatisfied(size: u64) -> String {
    format!("bytes */{size}")
}

fn parse_line(line: &str) -> Option<Wanted> {
    let (unit, set) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = set
        .split(',')
        .map(str::trim)
        .filter(|spec| !spec.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else {
        return None;
    };
    match spec.split_once('-')? {
        ("", length) => Some(Wanted::Suffix {
            length: number(length)?,
        }),
        (start, "") => Some(Wanted::From {
            start: number(start)?,
        }),
        // A last byte before the first makes the header invalid, but the OCI conformance suite, and
        // every registry with it, answers `500-0` with 416.
        (start, last) => Some(Wanted::Span {
            start: number(start)?,
            last: number(last)?,
        }),
    }
}

/// Digits only: `parse` alone would take a sign. A number past `u64` lies past any body.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[track_caller]
    fn check(header: &str, expect: Wanted, of_ten: Option<Range<u64>>) {
        let asked = parse([header], None, "");
        assert_eq!(asked, expect, "{header}");
        assert_eq!(asked.resolve(10), of_ten, "{header}");
    }

    #[test]
    fn one_range_in_any_form_is_honoured() {
        let part = |start, end| Some(start..end);
        check("bytes=0-", Wanted::From { start: 0 }, part(0, 10));
        check("bytes=3-", Wanted::From { start: 3 }, part(3, 10));
        check("bytes=2-5", Wanted::Span { start: 2, last: 5 }, part(2, 6));
        check("bytes=0-0", Wanted::Span { start: 0, last: 0 }, part(0, 1));
        check(
            "bytes=2-500",
            Wanted::Span {
                start: 2,
                last: 500,
            },
            part(2, 10),
        );
        check("bytes=-4", Wanted::Suffix { length: 4 }, part(6, 10));
        check("bytes=-400", Wanted::Suffix { length: 400 }, part(0, 10));
        check(
            "Bytes = 2-5 ,",
            Wanted::Span { start: 2, last: 5 },
            part(2, 6),
        );
    }

    #[test]
    fn a_range_past_the_end_cannot_be_satisfied() {
        check("bytes=10-", Wanted::From { start: 10 }, None);
        check(
            "bytes=10-20",
            Wanted::Span {
                start: 10,
                last: 20,
            },
            None,
        );
        check("bytes=-0", Wanted::Suffix { length: 0 }, None);
        check("bytes=5-0", Wanted::Span { start: 5, last: 0 }, None);
        let far = Wanted::From { start: u64::MAX };
        check("bytes=99999999999999999999999-", far, None);
        assert_eq!(Wanted::From { start: 0 }.resolve(0), None);
    }

    #[test]
    fn what_is_malformed_or_manifold_is_ignored() {
        let bad = [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=+1-2",
            "bytes=1-2-3",
            "items=1-2",
            "bytes=0-1,4-5",
            "bytes=--1",
            "bytes=1.5-2",
        ];
        for header in bad {
            check(header, Wanted::Whole, Some(0..10));
        }
        assert_eq!(parse(["bytes=0-1", "bytes=2-3"], None, ""), Wanted::Whole);
        assert_eq!(parse([], None, ""), Wanted::Whole);
    }

    #[test]
    fn a_validator_of_another_body_gives_the_whole() {
        let asked = |validator| parse(["bytes=3-"], Some(validator), "\"sha256:00\"");
        assert_eq!(asked("\"sha256:00\""), Wanted::From { start: 3 });
        assert_eq!(asked("\"sha256:01\""), Wanted::Whole);
        assert_eq!(asked("W/\"sha256:00\""), Wanted::Whole);
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Wanted::Whole);
    }

    #[test]
    fn content_range_is_written_as_the_standard_says() {
        assert_eq!(content_range(&(0..10), 100), "bytes 0-9/100");
        assert_eq!(content_range(&(5..6), 6), "bytes 5-5/6");
        assert_eq!(content_range_unsatisfied(7), "bytes */7");
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_body(text in "(bytes=)?[0-9,=-]{0,30}", size in any::<u64>()) {
            if let Some(part) = parse([text.as_str()], None, "").resolve(size) {
                prop_assert!(part.start <= part.end && part.end <= size);
            }
        }

        #[test]
        fn what_is_written_is_read_back(start in 0..u64::MAX / 2, length in 1..u64::MAX / 2) {
            for asked in [
                Wanted::From { start }, Wanted::Span { start, last: start + length }, Wanted::Suffix { length },
            ] {
                let header = header(asked).unwrap();
                prop_assert_eq!(parse([header.as_str()], None, ""), asked);
            }
        }
    }
}
