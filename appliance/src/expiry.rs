//! Watches the end of the certificate of this host: a metric, and a warning in time to renew it.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::Identity;

use crate::{metrics::Metrics, roles::wall_clock};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Looks from time to time; never ends.
pub(crate) async fn watch(identity: &Identity, metrics: &Metrics) {
    let mut ticks = tokio::time::interval(INTERVAL);
    // The first one comes at once, and that was looked at when the node started.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        look(identity, metrics);
    }
}

/// Shows when the certificate ends, and warns where that is soon.
pub(crate) fn look(identity: &Identity, metrics: &Metrics) {
    let validity = identity.validity();
    let until = *validity.end();
    metrics.identity_expires(until);
    let now = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    if is_late(&validity, now.as_secs()) {
        let until = humantime::format_rfc3339_seconds(at(until));
        tracing::warn!(
            %until,
            "the certificate of this host ends soon: issue a new one, put it and its key there, and reload darter"
        );
    }
}

/// Whether less than a third of the life of a certificate is left, in seconds since 1970.
fn is_late(validity: &RangeInclusive<u64>, now: u64) -> bool {
    let life = validity.end().saturating_sub(*validity.start());
    let left = validity.end().saturating_sub(now);
    left < life / 3
}

/// The last moment that can be written out, where it is later.
fn at(seconds: u64) -> SystemTime {
    const YEAR_9999: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs(seconds.min(YEAR_9999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_late_in_the_last_third_of_its_life() {
        let check = |now, expect| assert_eq!(is_late(&(1000..=1090), now), expect, "{now}");
        check(900, false);
        check(1000, false);
        check(1060, false);
        check(1061, true);
        check(1090, true);
        check(2000, true);
    }
}
