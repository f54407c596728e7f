//! Pure: how good a candidate parent is for a child: one weighted sum, each part shown.
//!
//! Every part lies between 0 and 1 and the weights add up to 1, so that a score does too. Who is
//! no candidate at all is [`super::filter`]'s to say.

use super::{
    hosts::HostRecord,
    peer::{Peer, PeerState},
    task::Task,
};

/// A candidate that holds more can give more.
pub(super) const WEIGHT_PIECES: f64 = 0.25;
/// Load spreads over those with room.
pub(super) const WEIGHT_CAPACITY: f64 = 0.20;
/// Who has shown that it can give much, can.
pub(super) const WEIGHT_THROUGHPUT: f64 = 0.15;
/// Short ways are fast and cheap.
pub(super) const WEIGHT_AFFINITY: f64 = 0.20;
/// Who failed others will fail this one.
pub(super) const WEIGHT_SUCCESS: f64 = 0.10;
/// Seeds are there to give.
pub(super) const WEIGHT_SEED: f64 = 0.10;

/// The rate that is worth half of the throughput's part: 1 Gbit/s, in bytes per second.
const RATE_HALF: f64 = 125e6;

/// What a common IDC is worth of the affinity; the rest is the location's.
const IDC_SHARE: f64 = 0.6;

/// Elements of a location that are compared, as in `region|zone|row|rack`.
const LOCATION_ELEMENTS_MAX: usize = 5;

/// The parts of one candidate's score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Share of the pieces held.
    pub pieces: f64,
    /// Share of the upload slots that is free.
    pub capacity: f64,
    /// The rate shown lately, r / (r + 1 Gbit/s); a half where none was shown yet.
    pub throughput: f64,
    /// Share of the children served without failure.
    pub success: f64,
    /// 1 for a seed.
    pub seed: f64,
    /// 1 in the same IDC and location.
    pub affinity: f64,
}

// === impl Score ===

impl Score {
    pub(super) fn of(
        task: &Task,
        peer: &Peer,
        candidate: &HostRecord,
        child: Option<&HostRecord>,
    ) -> Self {
        Self {
            pieces: pieces(task, peer),
            capacity: share(candidate.free_slots(), candidate.upload_slots),
            throughput: throughput(candidate.rate()),
            success: candidate.success_ratio(),
            seed: if candidate.is_seed { 1.0 } else { 0.0 },
            affinity: child.map_or(0.0, |child| affinity(candidate, child)),
        }
    }

    /// The weighted sum.
    pub fn total(&self) -> f64 {
        WEIGHT_PIECES * self.pieces
            + WEIGHT_CAPACITY * self.capacity
            + WEIGHT_THROUGHPUT * self.throughput
            + WEIGHT_AFFINITY * self.affinity
            + WEIGHT_SUCCESS * self.success
            + WEIGHT_SEED * self.seed
    }
}

fn pieces(task: &Task, peer: &Peer) -> f64 {
    match (peer.state, task.total) {
        (PeerState::Complete, _) => 1.0,
        (PeerState::Waiting { .. } | PeerState::Fed | PeerState::AtSource, Some(total)) => {
            share(peer.pieces, total)
        }
        // The size is not known: something is more than nothing.
        (PeerState::Waiting { .. } | PeerState::Fed | PeerState::AtSource, None) => {
            share(peer.pieces.min(1), 2)
        }
    }
}

fn throughput(rate: Option<u64>) -> f64 {
    rate.map_or(0.5, |rate| rate as f64 / (rate as f64 + RATE_HALF))
}

fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 {
        0.0
    } else {
        f64::from(part.min(whole)) / f64::from(whole)
    }
}

fn affinity(candidate: &HostRecord, child: &HostRecord) -> f64 {
    let same_idc = candidate.idc.is_some() && candidate.idc == child.idc;
    let location = match (&candidate.location, &child.location) {
        (Some(one), Some(other)) => common_elements(one, other),
        (None, _) | (_, None) => 0.0,
    };
    let idc = if same_idc { IDC_SHARE } else { 0.0 };
    idc + (1.0 - IDC_SHARE) * location
}

/// The share of leading elements that two locations have in common.
fn common_elements(one: &str, other: &str) -> f64 {
    let elements = |text: &str| text.split('|').take(LOCATION_ELEMENTS_MAX).count();
    let pairs = one
        .split('|')
        .zip(other.split('|'))
        .take(LOCATION_ELEMENTS_MAX);
    let common = pairs.take_while(|(one, other)| one == other).count();
    common as f64 / elements(one).max(elements(other)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_add_up_to_one() {
        let sum = WEIGHT_PIECES
            + WEIGHT_CAPACITY
            + WEIGHT_THROUGHPUT
            + WEIGHT_AFFINITY
            + WEIGHT_SUCCESS
            + WEIGHT_SEED;
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn more_throughput_is_better_and_none_shown_is_the_middle() {
        let slow = throughput(Some(1_000_000));
        let fast = throughput(Some(2_000_000_000));
        assert!(
            slow < throughput(None) && throughput(None) < fast,
            "{slow} {fast}"
        );
        assert!((throughput(Some(125_000_000)) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_location_is_as_near_as_its_leading_elements() {
        let check = |one: &str, other: &str, expect: f64| {
            assert!(
                (common_elements(one, other) - expect).abs() < 1e-9,
                "{one} {other}"
            );
        };
        check("eu|a|1", "eu|a|1", 1.0);
        check("eu|a", "eu|b", 0.5);
        check("eu|a|1|2", "eu", 0.25);
        check("us|a", "eu|a", 0.0);
        check("1|2|3|4|5|6", "1|2|3|4|5|7", 1.0);
    }
}
