//! Configuration of the scheduler.
//!
//! [`RawConfig`] is the `[scheduler]` table as written, [`Config`] is what runs. The engine's other
//! bounds are no settings: see [`crate::engine::Limits`].

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use crate::engine::Limits;

/// The `[scheduler]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Where hosts open their sessions.
    pub listen: SocketAddr,

    /// Hosts with a session at once; one more is refused.
    pub hosts_max: u32,

    /// Where no seed is known: how long the first host that wants a task waits for others before
    /// one of them is sent to the upstream.
    #[serde(with = "humantime_serde")]
    pub settle: Duration,
}

/// The `[scheduler]` table, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub hosts_max: NonZeroU32,
    pub settle: Duration,
}

/// A value that parses but cannot be run with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    key: &'static str,
    problem: &'static str,
}

/// Longer, and a lone host would notice.
const SETTLE_MAX: Duration = Duration::from_secs(5);

// === impl RawConfig ===

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 65005)),
            hosts_max: 100_000,
            settle: Duration::from_millis(50),
        }
    }
}

impl RawConfig {
    /// The checked configuration, or every problem in this table.
    pub fn check(self) -> Result<Config, Vec<ConfigError>> {
        let mut problems = Vec::new();
        let hosts_max = NonZeroU32::new(self.hosts_max).unwrap_or_else(|| {
            problems.push(ConfigError {
                key: "scheduler.hosts_max",
                problem: "must be at least 1",
            });
            NonZeroU32::MIN
        });
        if SETTLE_MAX < self.settle {
            problems.push(ConfigError {
                key: "scheduler.settle",
                problem: "must be at most 5s",
            });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Config {
            listen: self.listen,
            hosts_max,
            settle: self.settle,
        })
    }
}

// === impl Config ===

impl Config {
    /// What the engine runs on.
    pub fn limits(&self) -> Limits {
        Limits {
            hosts_max: self.hosts_max.get() as usize,
            settle: self.settle,
            ..Limits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_be_run() {
        let config = RawConfig::default().check().unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:65005");
        assert_eq!(config.limits().settle, Duration::from_millis(50));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let settle = Duration::from_secs(6);
        let raw = RawConfig {
            hosts_max: 0,
            settle,
            ..RawConfig::default()
        };
        let told: Vec<_> = raw
            .check()
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "scheduler.hosts_max: must be at least 1",
                "scheduler.settle: must be at most 5s"
            ]
        );
    }
}
