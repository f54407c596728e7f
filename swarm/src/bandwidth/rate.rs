//! Pure: how fast something may go, as a configuration file writes it.

use std::{fmt, num::NonZeroU64, str::FromStr};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// A limit on bytes per second, or none. Written as `50MB/s`, `10MiB/s`, `200Mbit/s` or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rate {
    #[default]
    Unlimited,
    BytesPerSecond(NonZeroU64),
}

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    #[error("`{0}` is no rate; a rate is written as in \"50MB/s\", \"200Mbit/s\" or \"unlimited\"")]
    Text(String),
    #[error("nothing could move at a rate of 0; write \"unlimited\" for no limit")]
    Zero,
}

/// What no limit is written as.
const UNLIMITED: &str = "unlimited";

// === impl Rate ===

impl Rate {
    /// The bytes that may move in one second, where there is a limit.
    pub fn bytes_per_second(self) -> Option<NonZeroU64> {
        match self {
            Self::Unlimited => None,
            Self::BytesPerSecond(bytes) => Some(bytes),
        }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        if text == UNLIMITED {
            return Ok(Self::Unlimited);
        }
        let no_rate = || RateError::Text(text.to_owned());
        let amount = text.strip_suffix("/s").ok_or_else(no_rate)?;
        let bytes = match amount.strip_suffix("bit") {
            Some(amount) => size(&format!("{amount}B")).map(|bits| bits / 8),
            None => size(amount),
        };
        NonZeroU64::new(bytes.ok_or_else(no_rate)?)
            .map(Self::BytesPerSecond)
            .ok_or(RateError::Zero)
    }
}

/// A number of bytes with its unit: a number alone may mean anything.
fn size(text: &str) -> Option<u64> {
    let has_unit = text.ends_with('B') && text.starts_with(|letter: char| letter.is_ascii_digit());
    has_unit
        .then(|| text.parse::<ByteSize>().ok())
        .flatten()
        .map(|size| size.as_u64())
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::BytesPerSecond(bytes) = self else {
            return f.write_str(UNLIMITED);
        };
        let units = [
            (1_000_000_000, "GB"),
            (1_000_000, "MB"),
            (1000, "kB"),
            (1, "B"),
        ];
        let (size, unit) = units
            .into_iter()
            .find(|(size, _)| bytes.get().is_multiple_of(*size))
            .unwrap_or((1, "B"));
        write!(f, "{}{unit}/s", bytes.get() / size)
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<u64>) {
        let rate: Rate = text.parse().unwrap();
        assert_eq!(
            rate.bytes_per_second().map(NonZeroU64::get),
            expect,
            "{text}"
        );
        assert_eq!(rate.to_string().parse(), Ok(rate), "{rate}");
    }

    #[test]
    fn a_rate_is_written_with_its_unit() {
        check("unlimited", None);
        check("1B/s", Some(1));
        check("50MB/s", Some(50_000_000));
        check("1.5MB/s", Some(1_500_000));
        check("10MiB/s", Some(10 << 20));
        check("10 MiB/s", Some(10 << 20));
        check("1GB/s", Some(1_000_000_000));
        check("200Mbit/s", Some(25_000_000));
        check("1Gbit/s", Some(125_000_000));
        check("64kbit/s", Some(8000));
        check("8bit/s", Some(1));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "", "50", "50MB", "50/s", "MB/s", "/s", "bit/s", "-1MB/s", "1MB/m", "none", "NaNB/s",
            "1Mbits/s", "fastB/s",
        ] {
            assert_eq!(
                text.parse::<Rate>(),
                Err(RateError::Text(text.to_owned())),
                "{text}"
            );
        }
        for text in ["0B/s", "0.4B/s", "0Mbit/s", "7bit/s"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::Zero), "{text}");
        }
    }
}
