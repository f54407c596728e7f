//! Pure: values of the `[proxy]` table that are too small, too large or too open.

use std::net::SocketAddr;

use bytesize::ByteSize;
use swarm::source;

use super::{ConfigError, RawConfig};
use crate::rights::GRACE_MAX;

/// Further addresses; each has a listener of its own.
const ALSO_LISTEN_MAX: usize = 16;

// === impl RawConfig ===

impl RawConfig {
    /// Every value that is out of its bounds.
    pub(super) fn out_of_bounds(&self) -> Vec<ConfigError> {
        let mut problems = self.too_open();
        if GRACE_MAX < self.grace {
            let problem = "must be at most 1 day".to_owned();
            problems.push(ConfigError::new("proxy.grace", problem));
        }
        problems.extend(
            self.zeros()
                .map(|key| ConfigError::new(key, "must be more than nothing".to_owned())),
        );
        if source::MANIFEST_LEN_MAX < self.manifest_size_max.as_u64() {
            let most = ByteSize::b(source::MANIFEST_LEN_MAX);
            let problem = format!("must be at most {most}");
            problems.push(ConfigError::new("proxy.manifest_size_max", problem));
        }
        problems
    }

    /// What is wrong with the further addresses: whoever names one means one network.
    fn too_open(&self) -> Vec<ConfigError> {
        let wild = |address: &&SocketAddr| address.ip().to_canonical().is_unspecified();
        let told = |address: &SocketAddr| {
            let problem = format!("{address} is every address; name that of one bridge");
            ConfigError::new("proxy.also_listen", problem)
        };
        let mut problems: Vec<_> = self.also_listen.iter().filter(wild).map(told).collect();
        if ALSO_LISTEN_MAX < self.also_listen.len() {
            let problem = format!("must be at most {ALSO_LISTEN_MAX} addresses");
            problems.push(ConfigError::new("proxy.also_listen", problem));
        }
        problems
    }

    /// The keys that stand at nothing and must not.
    fn zeros(&self) -> impl Iterator<Item = &'static str> {
        let amounts = [
            ("proxy.tags_max", self.tags_max == 0),
            (
                "proxy.manifest_size_max",
                self.manifest_size_max.as_u64() == 0,
            ),
        ];
        let times = [
            (
                "proxy.upstream_connect_timeout",
                self.upstream_connect_timeout,
            ),
            (
                "proxy.upstream_response_timeout",
                self.upstream_response_timeout,
            ),
            ("proxy.upstream_write_timeout", self.upstream_write_timeout),
            ("proxy.upstream_stall_timeout", self.upstream_stall_timeout),
            (
                "proxy.upstream_fallback_timeout",
                self.upstream_fallback_timeout,
            ),
            ("proxy.idle_timeout", self.idle_timeout),
            ("proxy.client_stall_timeout", self.client_stall_timeout),
        ]
        .map(|(key, time)| (key, time.is_zero()));
        let keys = amounts.into_iter().chain(times);
        keys.filter_map(|(key, is_zero)| is_zero.then_some(key))
    }
}
