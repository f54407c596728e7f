//! What a host wants of a task, in bytes, since it may not know yet where pieces begin.

use crate::layout::SIZE_MAX;

/// A part of a task that somebody reads, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// The bytes from `start` up to `end`; all that follow where there is no end.
    Span { start: u64, end: Option<u64> },
    /// The last bytes of a body whose size is not known.
    Last { length: u64 },
}

/// Parts named in one message.
pub const WANTS_MAX: usize = 16;

// === impl Want ===

impl Want {
    pub const WHOLE: Self = Self::Span {
        start: 0,
        end: None,
    };

    /// What tells the size, and no more.
    pub const FIRST: Self = Self::Span {
        start: 0,
        end: Some(1),
    };

    /// Whether some task may have it. What none can have is not said, and not heard.
    pub fn is_part(&self) -> bool {
        match *self {
            Self::Span { start, end } => start <= SIZE_MAX && end.is_none_or(|end| start < end),
            Self::Last { length } => (1..=SIZE_MAX).contains(&length),
        }
    }

    /// Whether whoever has this has `other` as well.
    pub fn covers(&self, other: &Self) -> bool {
        match (*self, *other) {
            (
                Self::Span { start, end },
                Self::Span {
                    start: other,
                    end: other_end,
                },
            ) => {
                let reaches = match (end, other_end) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(end), Some(other_end)) => other_end <= end,
                };
                start <= other && reaches
            }
            (Self::Last { length }, Self::Last { length: other }) => other <= length,
            (
                Self::Span {
                    start: 0,
                    end: None,
                },
                Self::Last { .. },
            ) => true,
            (Self::Span { .. }, Self::Last { .. }) | (Self::Last { .. }, Self::Span { .. }) => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1..9`, `1..` or `-5`.
    fn want(text: &str) -> Want {
        if let Some(length) = text.strip_prefix('-') {
            let length = length.parse().unwrap();
            return Want::Last { length };
        }
        let (start, end) = text.split_once("..").unwrap();
        Want::Span {
            start: start.parse().unwrap(),
            end: end.parse().ok(),
        }
    }

    #[track_caller]
    fn check(one: &str, other: &str, expect: bool) {
        assert_eq!(want(one).covers(&want(other)), expect, "{one} {other}");
    }

    #[test]
    fn what_has_a_part_has_its_parts() {
        check("2..9", "2..9", true);
        check("2..9", "3..8", true);
        check("2..9", "1..8", false);
        check("2..9", "2..", false);
        check("2..", "3..", true);
        check("2..", "3..1000", true);
        check("0..", "-5", true);
        check("1..", "-5", false);
        check("-6", "-5", true);
        check("-5", "-6", false);
    }

    #[test]
    fn what_no_task_has_is_no_part() {
        let far = SIZE_MAX + 1;
        for (text, expect) in [
            ("0..", true),
            ("7..8", true),
            ("7..7", false),
            (&format!("{SIZE_MAX}.."), true),
            (&format!("{far}.."), false),
            (&format!("{far}..{}", far + 7), false),
            ("-1", true),
            ("-0", false),
            (&format!("-{far}"), false),
        ] {
            assert_eq!(want(text).is_part(), expect, "{text}");
        }
    }
}
