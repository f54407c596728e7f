//! Pure: which bytes a request asks for (RFC 9110 section 14).
//!
//! A header that does not parse, names another unit, or asks for more ranges than are counted here is
//! ignored, as the standard allows: the whole is sent with 200. Several ranges are answered each by a
//! part of its own, in the order in which they were asked for, or not at all: clients know a part by
//! its place, and would take one for another.

use std::ops::Range;

use swarm::open::Wanted;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    One(Wanted),
    Several(Several),
}

/// Two ranges or more, up to [`RANGES_MAX`], as they were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Several {
    first: Wanted,
    others: Vec<Wanted>,
}

/// How several ranges of a body are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parts {
    /// One part for each range.
    Each(Vec<Range<u64>>),
    Whole,
    /// None of them lies in the body.
    NotSatisfiable,
}

/// More ranges than that are not answered part by part. Clients that pull in part ask for no more.
const RANGES_MAX: usize = 1024;

/// Reads the `Range` headers of a request; `if_range` is its `If-Range`, and `etag` the quoted
/// entity tag of what is served. A date in `If-Range` never matches: digests have no date.
pub fn parse<'a>(
    range: impl IntoIterator<Item = &'a str>,
    if_range: Option<&str>,
    etag: &str,
) -> Asked {
    let whole = Asked::One(Wanted::Whole);
    let mut lines = range.into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return whole;
    };
    if if_range.is_some_and(|validator| validator.trim() != etag) {
        return whole;
    }
    parse_line(line).unwrap_or(whole)
}

// === impl Asked ===

impl Asked {
    /// The header that asks for it.
    pub fn header(&self) -> Option<String> {
        let specs = match self {
            Self::One(wanted) => spec(*wanted)?,
            Self::Several(several) => {
                let specs: Vec<_> = several.all().filter_map(spec).collect();
                specs.join(",")
            }
        };
        Some(format!("bytes={specs}"))
    }

    /// What the log tells of it.
    pub(crate) fn told(&self) -> Option<String> {
        match self {
            Self::One(_) => self.header(),
            Self::Several(several) => Some(format!("{} ranges", several.all().count())),
        }
    }
}

// === impl Several ===

impl Several {
    /// The range that was asked for first.
    pub fn first(&self) -> Wanted {
        self.first
    }

    fn all(&self) -> impl Iterator<Item = Wanted> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    /// What is given of a body of `size`. Ranges that are longer together than the body cost more
    /// than the whole, and where one of several lies past the end no part may take another's place.
    pub fn resolve(&self, size: u64) -> Parts {
        let ranges: Vec<_> = self
            .all()
            .filter_map(|wanted| wanted.resolve(size))
            .collect();
        let lengths = ranges.iter().map(|part| u128::from(part.end - part.start));
        let is_each = ranges.len() == self.all().count();
        match lengths.sum::<u128>() {
            0 => Parts::NotSatisfiable,
            sum if is_each && sum <= u128::from(size) => Parts::Each(ranges),
            _ => Parts::Whole,
        }
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

fn parse_line(line: &str) -> Option<Asked> {
    let (unit, set) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let specs = set.split(',').map(str::trim);
    let mut specs = specs.filter(|spec| !spec.is_empty()).map(parse_spec);
    let first = specs.next()??;
    let others = specs.take(RANGES_MAX).collect::<Option<Vec<_>>>()?;
    match others.len() {
        0 => Some(Asked::One(first)),
        RANGES_MAX.. => None,
        _ => Some(Asked::Several(Several { first, others })),
    }
}

fn parse_spec(spec: &str) -> Option<Wanted> {
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

fn spec(wanted: Wanted) -> Option<String> {
    match wanted {
        Wanted::Whole => None,
        Wanted::From { start } => Some(format!("{start}-")),
        Wanted::Span { start, last } => Some(format!("{start}-{last}")),
        Wanted::Suffix { length } => Some(format!("-{length}")),
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

    fn one(wanted: Wanted) -> Asked {
        Asked::One(wanted)
    }

    #[track_caller]
    fn check(header: &str, expect: Wanted, of_ten: Option<Range<u64>>) {
        assert_eq!(parse([header], None, ""), one(expect), "{header}");
        assert_eq!(expect.resolve(10), of_ten, "{header}");
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
    fn what_is_malformed_is_ignored() {
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
            "bytes=0-1,a",
            "bytes=0-1,4-5,+6-7",
            "bytes=--1",
            "bytes=1.5-2",
        ];
        for header in bad {
            check(header, Wanted::Whole, Some(0..10));
        }
        let two_lines = ["bytes=0-1", "bytes=2-3"];
        assert_eq!(parse(two_lines, None, ""), one(Wanted::Whole));
        assert_eq!(parse([], None, ""), one(Wanted::Whole));
    }

    #[track_caller]
    fn check_several(header: &str, of_ten: Parts) {
        match parse([header], None, "") {
            Asked::Several(several) => assert_eq!(several.resolve(10), of_ten, "{header}"),
            Asked::One(asked) => panic!("{header}: {asked:?}"),
        }
    }

    #[test]
    fn several_ranges_are_given_in_the_order_in_which_they_were_asked_for() {
        let each = |parts: &[Range<u64>]| Parts::Each(parts.to_vec());
        check_several("bytes=0-1,4-5", each(&[0..2, 4..6]));
        check_several("bytes=8-,0-1", each(&[8..10, 0..2]));
        check_several("bytes=0-1,2-3", each(&[0..2, 2..4]));
        check_several("bytes=1-3,2-4", each(&[1..4, 2..5]));
        check_several("bytes=1-1,1-1", each(&[1..2, 1..2]));
        check_several("bytes=-2 , ,0-99999999999999999999,", Parts::Whole);
        check_several("bytes=9-99,-1", each(&[9..10, 9..10]));
        check_several("bytes=0-4,5-9", each(&[0..5, 5..10]));
    }

    #[test]
    fn ranges_longer_than_the_body_or_partly_outside_of_it_give_the_whole() {
        check_several("bytes=0-5,5-9", Parts::Whole);
        check_several("bytes=0-,0-,0-", Parts::Whole);
        check_several("bytes=0-1,10-", Parts::Whole);
        check_several("bytes=10-11,0-1", Parts::Whole);
        check_several("bytes=0-1,5-4", Parts::Whole);
        check_several("bytes=10-,11-12,-0", Parts::NotSatisfiable);
    }

    #[test]
    fn more_ranges_than_are_counted_are_ignored() {
        let asked = |count| {
            let specs = vec!["7-7"; count].join(",");
            parse([format!("bytes={specs}").as_str()], None, "")
        };
        match asked(RANGES_MAX) {
            Asked::Several(several) => {
                let each = vec![7..8; RANGES_MAX];
                assert_eq!(several.resolve(1 << 20), Parts::Each(each));
            }
            Asked::One(asked) => panic!("{asked:?}"),
        }
        assert_eq!(asked(RANGES_MAX + 1), one(Wanted::Whole));
    }

    #[test]
    fn the_log_tells_how_many_ranges_there_are() {
        let told = |header| parse([header], None, "").told();
        assert_eq!(told("bytes=0-1,4-5,7-7").as_deref(), Some("3 ranges"));
        assert_eq!(told("bytes=0-1").as_deref(), Some("bytes=0-1"));
        assert_eq!(told("bytes=x"), None);
    }

    #[test]
    fn a_validator_of_another_body_gives_the_whole() {
        let asked = |validator| parse(["bytes=3-"], Some(validator), "\"sha256:00\"");
        assert_eq!(asked("\"sha256:00\""), one(Wanted::From { start: 3 }));
        for other in [
            "\"sha256:01\"",
            "W/\"sha256:00\"",
            "Wed, 21 Oct 2015 07:28:00 GMT",
        ] {
            assert_eq!(asked(other), one(Wanted::Whole), "{other}");
        }
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
            let parts = match parse([text.as_str()], None, "") {
                Asked::One(wanted) => wanted.resolve(size).into_iter().collect(),
                Asked::Several(several) => match several.resolve(size) {
                    Parts::Each(parts) => parts,
                    Parts::Whole | Parts::NotSatisfiable => Vec::new(),
                },
            };
            for part in parts {
                prop_assert!(part.start <= part.end && part.end <= size);
            }
        }

        #[test]
        fn what_is_written_is_read_back(start in 0..u64::MAX / 2, length in 1..u64::MAX / 2) {
            let (first, others) = (Wanted::From { start }, vec![
                Wanted::Span { start, last: start + length }, Wanted::Suffix { length },
            ]);
            let each = others.iter().chain([&first]).map(|wanted| one(*wanted)).collect::<Vec<_>>();
            for asked in each.into_iter().chain([Asked::Several(Several { first, others })]) {
                let header = asked.header().unwrap();
                prop_assert_eq!(parse([header.as_str()], None, ""), asked);
            }
        }
    }
}
