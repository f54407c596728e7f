//! Configuration of the swarm engine.
//!
//! [`RawConfig`] is the file as written. [`Config`] is what the code runs on:
//! no `Option`, no string, nothing left to check. Every problem is told at once.

use std::{net::SocketAddr, num::NonZeroU64, time::Duration};

use bytesize::ByteSize;
use protocol::Host;
use serde::{Deserialize, Serialize};

use crate::bandwidth::{Rate, Rates};

/// The `[swarm]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Where pieces are served to other hosts, over mutual TLS.
    pub listen: SocketAddr,

    /// The address that other hosts reach; empty is the address of `listen`.
    pub advertise: String,

    /// Schedulers of the cluster, as `id@address:port`.
    pub schedulers: Vec<String>,

    /// Seeds of the cluster, as `id@address:port`: asked when no scheduler answers.
    pub seeds: Vec<String>,

    /// Bytes of blobs kept; the least recently used go first.
    pub storage_quota: ByteSize,

    /// Bytes of manifests kept, apart from the blobs.
    pub manifest_quota: ByteSize,

    /// Bytes of the file system that are left free, whatever the quota says.
    pub min_free: ByteSize,

    /// Requests for pieces served at once, some of them kept for children and small contents.
    /// Fewer are, where `serve_rate` could not give each of them its bytes in time.
    pub upload_slots: u32,

    /// What is given to other hosts, all of them together.
    pub serve_rate: Rate,

    /// What is taken from other hosts.
    pub fetch_rate: Rate,

    /// What is taken from upstreams.
    pub source_rate: Rate,

    /// What is fetched by order while nobody waits for it; within the two above.
    pub prefetch_rate: Rate,

    /// A parent that brings no piece for this long is left.
    #[serde(with = "humantime_serde")]
    pub piece_timeout: Duration,

    /// Where this host stands, so that near parents are preferred; may be empty.
    pub idc: String,

    /// As `idc`, finer: `region|zone|rack`.
    pub location: String,
}

/// The `[swarm]` table, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub advertise: SocketAddr,
    pub schedulers: Vec<Host>,
    pub seeds: Vec<Host>,
    pub storage_quota: u64,
    pub manifest_quota: u64,
    pub min_free: u64,
    pub upload_slots: u32,
    pub rates: Rates,
    pub piece_timeout: Duration,
    pub idc: Option<String>,
    pub location: Option<String>,
}

/// A value that parses but cannot be run with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    key: &'static str,
    problem: String,
}

/// A node needs room for one image at least.
const STORAGE_QUOTA_MIN: u64 = 1 << 20;

/// A piece of the shortest kind takes about two seconds at this rate.
const RATE_MIN: NonZeroU64 = NonZeroU64::new(125_000).expect("not zero");

/// A request for this much should be answered within so many seconds.
const RUN_BYTES: u64 = 1 << 20;
const RUN_SECONDS_MAX: u64 = 4;

// === impl RawConfig ===

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 65002)),
            advertise: String::new(),
            schedulers: Vec::new(),
            seeds: Vec::new(),
            storage_quota: ByteSize::gb(50),
            manifest_quota: ByteSize::gb(1),
            min_free: ByteSize::gb(1),
            upload_slots: 64,
            serve_rate: Rate::Unlimited,
            fetch_rate: Rate::Unlimited,
            source_rate: Rate::Unlimited,
            prefetch_rate: Rate::Unlimited,
            piece_timeout: Duration::from_secs(10),
            idc: String::new(),
            location: String::new(),
        }
    }
}

impl RawConfig {
    fn rates(&self) -> Rates {
        Rates {
            serve: self.serve_rate,
            fetch: self.fetch_rate,
            source: self.source_rate,
            prefetch: self.prefetch_rate,
        }
    }

    /// The checked configuration, or every problem in this table.
    pub fn check(self) -> Result<Config, Vec<ConfigError>> {
        let mut problems = Vec::new();
        let mut problem = |key, problem: String| problems.push(ConfigError { key, problem });
        let mut hosts = |key, texts: &[String]| -> Vec<Host> {
            let parsed = texts.iter().filter_map(|text| match text.parse() {
                Ok(host) => Some(host),
                Err(error) => {
                    problem(key, format!("`{text}`: {error}"));
                    None
                }
            });
            parsed.collect()
        };
        let schedulers = hosts("swarm.schedulers", &self.schedulers);
        let seeds = hosts("swarm.seeds", &self.seeds);
        let advertise = match self.advertise.as_str() {
            "" => self.listen,
            text => text.parse().unwrap_or_else(|_| {
                problem(
                    "swarm.advertise",
                    format!("`{text}` is not written address:port"),
                );
                self.listen
            }),
        };
        if advertise.ip().is_unspecified() {
            let told = "other hosts cannot reach an unspecified address; name the one they reach";
            problem("swarm.advertise", told.to_owned());
        }
        if self.storage_quota.as_u64() < STORAGE_QUOTA_MIN {
            problem("swarm.storage_quota", "must be at least 1 MiB".to_owned());
        }
        if self.upload_slots == 0 {
            problem("swarm.upload_slots", "must be at least 1".to_owned());
        }
        let rates = self.rates();
        for key in too_slow(rates) {
            let told = "must be at least 1Mbit/s, or pieces take longer than anybody waits";
            problem(key, told.to_owned());
        }
        if self.piece_timeout.is_zero() {
            problem("swarm.piece_timeout", "must be longer than 0s".to_owned());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Config {
            listen: self.listen,
            advertise,
            schedulers,
            seeds,
            storage_quota: self.storage_quota.as_u64(),
            manifest_quota: self.manifest_quota.as_u64(),
            min_free: self.min_free.as_u64(),
            upload_slots: slots_within(self.serve_rate, self.upload_slots),
            rates,
            piece_timeout: self.piece_timeout,
            idc: (!self.idc.is_empty()).then_some(self.idc),
            location: (!self.location.is_empty()).then_some(self.location),
        })
    }
}

/// The keys of rates that are below the least.
fn too_slow(rates: Rates) -> impl Iterator<Item = &'static str> {
    let named = [
        ("swarm.serve_rate", rates.serve),
        ("swarm.fetch_rate", rates.fetch),
        ("swarm.source_rate", rates.source),
        ("swarm.prefetch_rate", rates.prefetch),
    ];
    let is_slow = |rate: Rate| {
        rate.bytes_per_second()
            .is_some_and(|bytes| bytes < RATE_MIN)
    };
    let slow = named.into_iter().filter(move |(_, rate)| is_slow(*rate));
    slow.map(|(key, _)| key)
}

/// As many of `slots` as can each be given the largest run in time. A child that is refused asks
/// another host; one whose pieces do not come takes this host for broken.
fn slots_within(rate: Rate, slots: u32) -> u32 {
    let Some(bytes) = rate.bytes_per_second() else {
        return slots;
    };
    let runs = bytes.get().saturating_mul(RUN_SECONDS_MAX) / RUN_BYTES;
    u32::try_from(runs)
        .unwrap_or(u32::MAX)
        .clamp(1, slots.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_holds() {
        assert!(RawConfig::default().check().is_ok());
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let raw = RawConfig {
            listen: SocketAddr::from(([0, 0, 0, 0], 65002)),
            schedulers: vec!["nobody".to_owned()],
            storage_quota: ByteSize::b(1),
            upload_slots: 0,
            serve_rate: "999999bit/s".parse().unwrap(),
            prefetch_rate: "1B/s".parse().unwrap(),
            piece_timeout: Duration::ZERO,
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
                "swarm.schedulers: `nobody`: a host is written id@address:port, as in node-1@10.0.0.5:65002",
                "swarm.advertise: other hosts cannot reach an unspecified address; name the one they reach",
                "swarm.storage_quota: must be at least 1 MiB",
                "swarm.upload_slots: must be at least 1",
                "swarm.serve_rate: must be at least 1Mbit/s, or pieces take longer than anybody waits",
                "swarm.prefetch_rate: must be at least 1Mbit/s, or pieces take longer than anybody waits",
                "swarm.piece_timeout: must be longer than 0s",
            ]
        );
    }

    #[test]
    fn a_slow_host_serves_fewer_at_once() {
        #[track_caller]
        fn check(rate: &str, slots: u32, expect: u32) {
            assert_eq!(slots_within(rate.parse().unwrap(), slots), expect, "{rate}");
        }
        check("unlimited", 64, 64);
        check("1GB/s", 64, 64);
        check("10MiB/s", 64, 40);
        check("10MiB/s", 8, 8);
        check("1MiB/s", 64, 4);
        check("1Mbit/s", 64, 1);
    }
}
