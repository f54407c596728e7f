//! Pure: byte ranges, and whether an answer is the range that was asked for (RFC 9110, section 14).
//!
//! Invariant: [`place`] never says that bytes belong where they do not.

use http::StatusCode;

/// What is asked for. Positions count from 0, `end` is the first byte not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    pub start: u64,
    /// `None` for everything from `start` on.
    pub end: Option<u64>,
}

/// What a `Content-Range: bytes …` says; `end` is the first byte not contained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    pub start: u64,
    pub end: u64,
    /// The size of the whole, where told.
    pub total: Option<u64>,
}

/// The head of an answer, as far as it says which bytes follow.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerHead {
    pub(super) status: StatusCode,
    pub(super) content_length: Option<u64>,
    pub(super) content_range: Option<ContentRange>,
}

/// Where the body of an answer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    /// So many bytes come first that were not asked for.
    pub(super) skip: u64,
    /// The size of the whole content, where told.
    pub(super) total: Option<u64>,
}

/// Where the body of an answer to `asked` lies, `known_total` being what earlier answers told.
pub(super) fn place(
    asked: ByteRange,
    known_total: Option<u64>,
    answer: AnswerHead,
) -> Result<Placement, &'static str> {
    let placement = match (answer.status, answer.content_range) {
        (StatusCode::PARTIAL_CONTENT, Some(given)) => {
            if given.start != asked.start || asked.end.is_some_and(|end| end < given.end) {
                return Err("Content-Range is not the range that was asked for");
            }
            if answer
                .content_length
                .is_some_and(|length| length != given.end - given.start)
            {
                return Err("Content-Length contradicts Content-Range");
            }
            Placement {
                skip: 0,
                total: given.total,
            }
        }
        (StatusCode::PARTIAL_CONTENT, None) => return Err("206 without a usable Content-Range"),
        // The server does not know ranges: the bytes before the asked ones are thrown away.
        (StatusCode::OK, _) => Placement {
            skip: asked.start,
            total: answer.content_length,
        },
        _ => return Err("neither 200 nor 206 to a GET"),
    };
    match (known_total, placement.total) {
        (Some(known), Some(told)) if known != told => Err("the size changed between two answers"),
        (Some(known), None) => Ok(Placement {
            total: Some(known),
            ..placement
        }),
        (Some(_) | None, _) => Ok(placement),
    }
}

// === impl ByteRange ===

impl ByteRange {
    /// The value of the `Range` header. An empty range has none.
    pub fn header(&self) -> Option<String> {
        match self.end {
            None => Some(format!("bytes={}-", self.start)),
            Some(end) if self.start < end => Some(format!("bytes={}-{}", self.start, end - 1)),
            Some(_) => None,
        }
    }
}

// === impl ContentRange ===

impl ContentRange {
    /// Reads `bytes <first>-<last>/<total or *>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, rest) = text.trim().split_once(' ')?;
        let (span, total) = rest.trim().split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let total = match total.trim() {
            "*" => None,
            digits => Some(number(digits)?),
        };
        let (start, end) = (number(first)?, number(last)?.checked_add(1)?);
        let holds = unit.eq_ignore_ascii_case("bytes")
            && start < end
            && total.is_none_or(|total| end <= total);
        holds.then_some(Self { start, end, total })
    }
}

/// Digits alone: `u64::from_str` would take a sign.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    #[track_caller]
    fn parsed(text: &str, expect: Option<(u64, u64, Option<u64>)>) {
        let seen = ContentRange::parse(text).map(|range| (range.start, range.end, range.total));
        assert_eq!(seen, expect, "{text}");
    }

    /// `asked`: start and end; `answer`: status, Content-Length and Content-Range.
    #[track_caller]
    fn placed(
        asked: (u64, Option<u64>),
        known: Option<u64>,
        answer: (u16, Option<u64>, &str),
        expect: Option<(u64, Option<u64>)>,
    ) {
        let asked = ByteRange {
            start: asked.0,
            end: asked.1,
        };
        let head = AnswerHead {
            status: StatusCode::from_u16(answer.0).unwrap(),
            content_length: answer.1,
            content_range: ContentRange::parse(answer.2),
        };
        let seen = place(asked, known, head)
            .ok()
            .map(|placement| (placement.skip, placement.total));
        assert_eq!(seen, expect);
    }

    #[test]
    fn content_range_is_read_strictly() {
        parsed("bytes 0-9/10", Some((0, 10, Some(10))));
        parsed("Bytes 5-9/*", Some((5, 10, None)));
        for bad in [
            "",
            "bytes */10",
            "bytes 9-5/10",
            "bytes 0-10/10",
            "bytes +0-9/10",
            "items 0-9/10",
            "bytes 0-9",
        ] {
            parsed(bad, None);
        }
        parsed("bytes 0-18446744073709551615/*", None);
    }

    #[test]
    fn only_the_asked_bytes_are_placed() {
        placed((0, None), None, (200, Some(10), ""), Some((0, Some(10))));
        placed((0, None), None, (200, None, ""), Some((0, None)));
        placed(
            (4, None),
            None,
            (206, Some(6), "bytes 4-9/10"),
            Some((0, Some(10))),
        );
        placed(
            (4, Some(6)),
            Some(10),
            (206, Some(2), "bytes 4-5/*"),
            Some((0, Some(10))),
        );
        placed(
            (4, None),
            Some(10),
            (200, Some(10), ""),
            Some((4, Some(10))),
        );
        placed((4, None), None, (206, Some(6), "bytes 3-8/10"), None);
        placed((4, None), None, (206, Some(5), "bytes 4-9/10"), None);
        placed((4, Some(6)), None, (206, None, "bytes 4-9/10"), None);
        placed((4, None), Some(11), (206, Some(6), "bytes 4-9/10"), None);
        placed((4, None), Some(11), (200, Some(10), ""), None);
        placed((4, None), None, (206, Some(6), ""), None);
        placed((0, None), None, (204, None, ""), None);
    }

    #[test]
    fn a_range_is_written_with_its_last_byte() {
        assert_eq!(
            ByteRange {
                start: 3,
                end: None
            }
            .header()
            .as_deref(),
            Some("bytes=3-")
        );
        assert_eq!(
            ByteRange {
                start: 3,
                end: Some(4)
            }
            .header()
            .as_deref(),
            Some("bytes=3-3")
        );
        assert_eq!(
            ByteRange {
                start: 3,
                end: Some(3)
            }
            .header(),
            None
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fall(text in ".*") {
            if let Some(range) = ContentRange::parse(&text) {
                prop_assert!(range.start < range.end);
            }
        }
    }
}
