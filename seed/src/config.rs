//! Configuration of the seed: [`RawConfig`] is the `[seed]` table as written, [`Config`] is what runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The `[seed]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// What was ordered is kept at least as if it had been used for this long.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
}

/// The `[seed]` table, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub retention: Duration,
}

/// A value that parses but cannot be run with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    key: &'static str,
    problem: &'static str,
}

/// Longer, and a store would fill up with what nobody wants; `darter cache pin` keeps for good.
const RETENTION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

// === impl RawConfig ===

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(3600),
        }
    }
}

impl RawConfig {
    /// The checked configuration, or every problem in this table.
    pub fn check(self) -> Result<Config, Vec<ConfigError>> {
        if RETENTION_MAX < self.retention {
            return Err(vec![ConfigError {
                key: "seed.retention",
                problem: "must be 30days or shorter; `darter cache pin` keeps a content for good",
            }]);
        }
        Ok(Config {
            retention: self.retention,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_has_an_end() {
        assert!(RawConfig::default().check().is_ok());
        let retention = RETENTION_MAX + Duration::from_secs(1);
        let told = RawConfig { retention }.check().unwrap_err();
        assert!(told[0].to_string().starts_with("seed.retention: must be"));
    }
}
