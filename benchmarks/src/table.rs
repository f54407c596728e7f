//! Pure: comparisons as a Markdown table, with the ratio and whether the goal is met.
//!
//! Both sides of a comparison are measured in each round, one after the other, and the ratio is the
//! median of the rounds' ratios: what slows the whole machine for a while slows both.

use crate::statistics::Series;

/// One thing that was measured on Darter and on something else, round by round.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub(crate) what: String,
    pub(crate) against: &'static str,
    pub(crate) unit: Unit,
    pub(crate) rounds: Vec<Pair>,
    pub(crate) goal: Option<Goal>,
}

/// One round: Darter's value and the other's, in the unit of the comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pair {
    pub(crate) darter: f64,
    pub(crate) other: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    GigabytesPerSecond,
    CpuSecondsPerGigabyte,
    RequestsPerSecond,
    Milliseconds,
}

/// What the design promises of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// In the unit of the comparison.
    DarterAtMost(f64),
    /// Darter may be above the other by so much.
    AboveByAtMost(f64),
}

// === impl Comparison ===

impl Comparison {
    fn series(&self, side: impl Fn(&Pair) -> f64) -> Series {
        Series::new(self.rounds.iter().map(side).collect())
    }

    fn row(&self) -> String {
        let darter = self.series(|pair| pair.darter);
        let other = self.series(|pair| pair.other);
        let ratio = self.series(|pair| pair.darter / pair.other).median();
        let goal = self.goal.map_or_else(
            || "–".to_owned(),
            |goal| {
                let above = self.series(|pair| pair.darter - pair.other).median();
                let is_met = goal.is_met(darter.median(), ratio, above);
                let verdict = if is_met { "met" } else { "**missed**" };
                format!("{} {verdict}", goal.told(self.unit))
            },
        );
        format!(
            "| {} | {} | {}: {} | {ratio:.2} | {goal} |",
            self.what,
            self.unit.told(&darter),
            self.against,
            self.unit.told(&other),
        )
    }
}

// === impl Unit ===

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::GigabytesPerSecond => "GB/s",
            Self::CpuSecondsPerGigabyte => "CPU s/GB",
            Self::RequestsPerSecond => "/s",
            Self::Milliseconds => "ms",
        }
    }

    fn decimals(self) -> usize {
        match self {
            Self::GigabytesPerSecond | Self::Milliseconds => 2,
            Self::CpuSecondsPerGigabyte => 3,
            Self::RequestsPerSecond => 0,
        }
    }

    /// The median, and in brackets the lowest and the highest round.
    fn told(self, series: &Series) -> String {
        format!(
            "{:.*} {} ({:.*}–{:.*})",
            self.decimals(),
            series.median(),
            self.name(),
            self.decimals(),
            series.lowest(),
            self.decimals(),
            series.highest(),
        )
    }
}

// === impl Goal ===

impl Goal {
    fn is_met(self, darter: f64, ratio: f64, above: f64) -> bool {
        match self {
            Self::RatioAtLeast(least) => ratio >= least,
            Self::RatioAtMost(most) => ratio <= most,
            Self::DarterAtMost(most) => darter <= most,
            Self::AboveByAtMost(most) => above <= most,
        }
    }

    fn told(self, unit: Unit) -> String {
        match self {
            Self::RatioAtLeast(least) => format!("≥ {least} ×"),
            Self::RatioAtMost(most) => format!("≤ {most} ×"),
            Self::DarterAtMost(most) => format!("≤ {most} {}", unit.name()),
            Self::AboveByAtMost(most) => format!("≤ +{most} {}", unit.name()),
        }
    }
}

/// The table, ready to be pasted.
pub(crate) fn render(comparisons: &[Comparison]) -> String {
    let head = "| what | Darter | against | ratio | goal |\n|---|---|---|---|---|\n";
    let rows: Vec<String> = comparisons.iter().map(Comparison::row).collect();
    format!("{head}{}", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(unit: Unit, goal: Option<Goal>, rounds: &[(f64, f64)], expect: &str) {
        let pair = |&(darter, other): &(f64, f64)| Pair { darter, other };
        let comparison = Comparison {
            what: "hot".to_owned(),
            against: "nginx",
            unit,
            rounds: rounds.iter().map(pair).collect(),
            goal,
        };
        let table = render(&[comparison]);
        assert_eq!(table.lines().last(), Some(expect));
    }

    #[test]
    fn a_row_tells_medians_spread_ratio_and_verdict() {
        check(
            Unit::GigabytesPerSecond,
            Some(Goal::RatioAtLeast(0.9)),
            &[(1.0, 2.0), (1.5, 2.0), (2.0, 2.0)],
            "| hot | 1.50 GB/s (1.00–2.00) | nginx: 2.00 GB/s (2.00–2.00) | 0.75 | ≥ 0.9 × **missed** |",
        );
        check(
            Unit::RequestsPerSecond,
            None,
            &[(10.0, 20.0)],
            "| hot | 10 /s (10–10) | nginx: 20 /s (20–20) | 0.50 | – |",
        );
    }

    #[test]
    fn the_ratio_is_that_of_the_rounds_and_not_of_the_medians() {
        // The machine was slow in the first round, for both.
        check(
            Unit::CpuSecondsPerGigabyte,
            Some(Goal::RatioAtMost(1.02)),
            &[(10.0, 10.0), (1.0, 1.0), (3.0, 2.0)],
            "| hot | 3.000 CPU s/GB (1.000–10.000) | nginx: 2.000 CPU s/GB (1.000–10.000) | 1.00 | ≤ 1.02 × met |",
        );
    }

    #[test]
    fn a_goal_may_be_a_value_or_a_difference() {
        let rounds = [(6.0, 2.0)];
        let row = "| hot | 6.00 ms (6.00–6.00) | nginx: 2.00 ms (2.00–2.00) | 3.00 |";
        let ms = Unit::Milliseconds;
        let check = |goal, verdict| check(ms, Some(goal), &rounds, &format!("{row} {verdict} |"));
        check(Goal::DarterAtMost(6.0), "≤ 6 ms met");
        check(Goal::DarterAtMost(1.0), "≤ 1 ms **missed**");
        check(Goal::AboveByAtMost(5.0), "≤ +5 ms met");
        check(Goal::AboveByAtMost(3.0), "≤ +3 ms **missed**");
    }
}
