//! What nobody holds yet, through Darter against straight from the registry: on a host that is
//! scheduler, seed and proxy itself, on one whose seed is another host, and on a second host after
//! the first. Each round has new hosts with empty stores. On the loopback the registry is as fast
//! as memory, so the first of them is also seen over a link of a known rate.

use anyhow::Result;

use crate::{
    link::Link,
    load::{Fetched, milliseconds},
    table::{Comparison, Goal, Pair, Unit},
    upstream::{Content, Upstream},
};

/// The pulls of one round, in the order in which they are made.
struct Round {
    direct: Fetched,
    /// By the host that is scheduler and seed as well.
    alone: Fetched,
    /// By a second host, from the first.
    second: Fetched,
    /// Straight from the registry once more, so that neither side is always the earlier one.
    direct_again: Fetched,
    /// By a host whose seed, on another host, has nothing yet.
    through_seed: Fetched,
    /// Over the link: straight from the registry, and by a host that is scheduler and seed as well.
    direct_over_link: Fetched,
    alone_over_link: Fetched,
}

/// A pull of a round.
type Pull = fn(&Round) -> &Fetched;

/// One pull beside another, and what is promised of its first byte and of its total.
struct Row {
    what: &'static str,
    darter: Pull,
    against: &'static str,
    other: Pull,
    goals: [Option<Goal>; 2],
}

const COLD: [Option<Goal>; 2] = [
    Some(Goal::AboveByAtMost(5.0)),
    Some(Goal::RatioAtMost(1.02)),
];

const ROWS: [Row; 5] = [
    Row {
        what: "cold pull over 1 Gbit/s, one process",
        darter: |round| &round.alone_over_link,
        against: "direct",
        other: |round| &round.direct_over_link,
        goals: COLD,
    },
    Row {
        what: "cold pull, one process",
        darter: |round| &round.alone,
        against: "direct",
        other: |round| &round.direct,
        goals: COLD,
    },
    Row {
        what: "cold pull, seed on another host",
        darter: |round| &round.through_seed,
        against: "direct",
        other: |round| &round.direct_again,
        goals: COLD,
    },
    Row {
        what: "second host after the first",
        darter: |round| &round.second,
        against: "first",
        other: |round| &round.alone,
        goals: [None, None],
    },
    Row {
        what: "second host after the first",
        darter: |round| &round.second,
        against: "direct",
        other: |round| &round.direct,
        goals: [None, None],
    },
];

// === impl Row ===

impl Row {
    fn compare(&self, measured: &[Round]) -> [Comparison; 2] {
        let part = |name: &str, value: fn(&Fetched) -> f64, goal| {
            let pair = |round| Pair {
                darter: value((self.darter)(round)),
                other: value((self.other)(round)),
            };
            Comparison {
                what: format!("{}, {name}", self.what),
                against: self.against,
                unit: Unit::Milliseconds,
                rounds: measured.iter().map(pair).collect(),
                goal,
            }
        };
        let [first_byte, total] = self.goals;
        [
            part(
                "first byte",
                |pull| milliseconds(pull.first_byte),
                first_byte,
            ),
            part("total", |pull| milliseconds(pull.total), total),
        ]
    }
}

/// Pulls a blob of `size` in every way.
pub(crate) fn pulls(upstream: &Upstream, rounds: usize, size: u64) -> Result<Vec<Comparison>> {
    let content = upstream.push_noise(size)?;
    let link = Link::open(upstream)?;
    let mut measured = Vec::new();
    for round in 0..=rounds {
        let pulled = pull(upstream, &link, &content)?;
        // The registry was asked by this program twice, and once by each of the two clusters.
        upstream.ensure_fetches(&content, 4 * (round + 1))?;
        // The first round warms the page cache of the registry's file.
        if round > 0 {
            measured.push(pulled);
        }
    }
    let compare = |row: &Row| row.compare(&measured);
    Ok(ROWS.iter().flat_map(compare).collect())
}

fn pull(upstream: &Upstream, link: &Link, content: &Content) -> Result<Round> {
    let direct = content.direct(upstream.address());
    let (one, other) = (upstream.hosts()?, upstream.hosts()?);
    Ok(Round {
        direct: direct.fetch()?,
        alone: content.through(&one.first)?.fetch()?,
        second: content.through(&one.second)?.fetch()?,
        direct_again: direct.fetch()?,
        through_seed: content.through(&other.second)?.fetch()?,
        direct_over_link: link.direct(content)?,
        alone_over_link: link.through_new_host(content)?,
    })
}
