//! Pure: what many measurements of one thing come to.

/// Measurements of one thing, one or more per round.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Series {
    sorted: Vec<f64>,
}

// === impl Series ===

impl Series {
    pub(crate) fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { sorted: values }
    }

    /// The least value that at least this share of the values does not exceed (nearest rank).
    /// NaN where nothing was measured.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let rank = (share * self.sorted.len() as f64).ceil() as usize;
        let index = rank.max(1) - 1;
        self.sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    /// The value in the middle, or the mean of the two that are.
    pub(crate) fn median(&self) -> f64 {
        let count = self.sorted.len();
        if count == 0 {
            return f64::NAN;
        }
        (self.sorted[(count - 1) / 2] + self.sorted[count / 2]) / 2.0
    }

    pub(crate) fn lowest(&self) -> f64 {
        self.percentile(0.0)
    }

    pub(crate) fn highest(&self) -> f64 {
        self.percentile(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], measure: impl Fn(&Series) -> f64, expect: f64) {
        assert_eq!(measure(&Series::new(values.to_vec())), expect);
    }

    #[test]
    fn the_median_of_an_even_count_is_between_two() {
        check(&[4.0, 1.0, 3.0], Series::median, 3.0);
        check(&[4.0, 1.0, 3.0, 2.0], Series::median, 2.5);
        check(&[7.0], Series::median, 7.0);
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        check(&hundred, |series| series.percentile(0.5), 50.0);
        check(&hundred, |series| series.percentile(0.99), 99.0);
        check(&hundred, Series::lowest, 1.0);
        check(&hundred, Series::highest, 100.0);
        check(&[1.0, 2.0], |series| series.percentile(0.99), 2.0);
    }

    #[test]
    fn nothing_measured_is_no_number() {
        assert!(Series::default().median().is_nan());
        assert!(Series::default().percentile(0.5).is_nan());
    }
}
