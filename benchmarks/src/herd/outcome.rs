//! Pure: what herds came to, as a Markdown table.

use super::method::Method;
use crate::statistics::Series;

/// What one herd came to in one round. Times are in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Until each host had everything.
    pub(crate) totals: Vec<f64>,
    /// Until each host could read something; empty where nothing is read before the end.
    pub(crate) first_bytes: Vec<f64>,
    /// Bytes that the registry's host gave.
    pub(crate) upstream_bytes: f64,
    /// Bytes that the helper's host gave: by its link, without the heads of packets.
    pub(crate) helper_bytes: f64,
    /// Of the servers, the registry and the clients together.
    pub(crate) cpu_seconds: f64,
    /// Resident bytes of the largest process but the registry and the clients.
    pub(crate) peak_memory: Option<u64>,
    /// Processors that were at work on the average, for whomever.
    pub(crate) busy: f64,
}

/// Herds of one size that wanted one image.
#[derive(Debug, Clone)]
pub(crate) struct Herd {
    pub(crate) image: String,
    pub(crate) image_bytes: u64,
    pub(crate) hosts: usize,
    /// Seconds that it takes at least.
    pub(crate) bound: f64,
    pub(crate) rows: Vec<Row>,
}

/// One method and its rounds: none where one failed.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) method: Method,
    pub(crate) rounds: Vec<Outcome>,
}

/// What the design promises of Darter's makespan over the bound, and of the bytes that its upstream
/// gives for each of the image.
const MAKESPAN_GOAL: f64 = 1.10;
const UPSTREAM_GOAL: f64 = 1.005;

/// The share of the processors above which they were the limit rather than the links.
const BUSY_MAX: f64 = 0.8;

const HEAD: &str = "| herd | by | makespan / bound | host: median, worst | first byte: median, \
                    worst | upstream / image | helper / image | CPU s | peak RSS |\n\
                    |---|---|---|---|---|---|---|---|---|\n";

const CPU_LIMIT_NOTE: &str = "\n† The processors were the limit: on the average more than four \
                              fifths of their time was taken, by whomever.\n";

// === impl Row ===

impl Row {
    fn series(&self, value: impl Fn(&Outcome) -> f64) -> Series {
        Series::new(self.rounds.iter().map(value).collect())
    }

    fn median(&self, value: impl Fn(&Outcome) -> f64) -> f64 {
        self.series(value).median()
    }

    /// The median round's makespan over the bound; `None` where the method failed.
    pub(crate) fn ratio(&self, bound: f64) -> Option<f64> {
        let ratio = self.median(|round| round.makespan() / bound);
        (!self.rounds.is_empty()).then_some(ratio)
    }

    fn was_limited_by_processors(&self, processors: usize) -> bool {
        self.median(|round| round.busy) > BUSY_MAX * processors as f64
    }

    fn told(&self, herd: &Herd, processors: usize) -> String {
        let name = self.method.name();
        let Some(ratio) = self.ratio(herd.bound) else {
            return format!("{name} | **failed** | – | – | – | – | – | –");
        };
        let spread = self.series(|round| round.makespan() / herd.bound);
        let spread = match self.rounds.len() {
            1 => String::new(),
            _ => format!(" ({:.2}–{:.2})", spread.lowest(), spread.highest()),
        };
        let mark = match self.was_limited_by_processors(processors) {
            true => " †",
            false => "",
        };
        let upstream = self.median(|round| round.upstream_bytes / herd.image_bytes as f64);
        let first_byte = match self.rounds.iter().all(|round| round.first_bytes.is_empty()) {
            true => "at the end".to_owned(),
            false => format!(
                "{:.0} ms, {:.0} ms",
                1e3 * self.median(|round| of(&round.first_bytes).median()),
                1e3 * self.median(|round| of(&round.first_bytes).highest()),
            ),
        };
        format!(
            "{name} | {ratio:.2}{spread}{}{mark} | {:.1} s, {:.1} s | {first_byte} | \
             {upstream:.3}{} | {:.2} | {:.1} | {}",
            self.verdict(ratio, MAKESPAN_GOAL),
            self.median(|round| of(&round.totals).median()),
            self.median(Outcome::makespan),
            self.verdict(upstream, UPSTREAM_GOAL),
            self.median(|round| round.helper_bytes / herd.image_bytes as f64),
            self.median(|round| round.cpu_seconds),
            self.memory(),
        )
    }

    fn verdict(&self, value: f64, goal: f64) -> String {
        match (self.method == Method::Darter, value <= goal) {
            (false, _) => String::new(),
            (true, true) => format!(", ≤ {goal} met"),
            (true, false) => format!(", ≤ {goal} **missed**"),
        }
    }

    fn memory(&self) -> String {
        match self
            .rounds
            .iter()
            .filter_map(|round| round.peak_memory)
            .max()
        {
            None => "–".to_owned(),
            Some(bytes) => format!("{} MiB", bytes >> 20),
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Until the last host had everything.
    pub(crate) fn makespan(&self) -> f64 {
        of(&self.totals).highest()
    }
}

fn of(values: &[f64]) -> Series {
    Series::new(values.to_vec())
}

/// The table, ready to be pasted, for a machine with so many processors.
pub(crate) fn render(herds: &[Herd], processors: usize) -> String {
    let mut table = HEAD.to_owned();
    let mut was_limited = false;
    for herd in herds {
        for row in &herd.rows {
            let (hosts, image) = (herd.hosts, &herd.image);
            let cells = row.told(herd, processors);
            table += &format!("| {hosts} hosts, {image} | {cells} |\n");
            was_limited |= row.was_limited_by_processors(processors);
        }
    }
    if was_limited {
        table += CPU_LIMIT_NOTE;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(totals: &[f64], upstream_bytes: f64, busy: f64) -> Outcome {
        Outcome {
            totals: totals.to_vec(),
            first_bytes: vec![0.25, 0.5],
            upstream_bytes,
            helper_bytes: 2500.0,
            cpu_seconds: 3.0,
            peak_memory: Some(5 << 20),
            busy,
        }
    }

    #[track_caller]
    fn check(method: Method, rounds: Vec<Outcome>, expect: &str) {
        let herd = Herd {
            image: "1 GiB".to_owned(),
            image_bytes: 1000,
            hosts: 2,
            bound: 10.0,
            rows: vec![Row { method, rounds }],
        };
        let table = render(&[herd], 2);
        assert_eq!(table.lines().nth(2), Some(expect));
        assert_eq!(table.contains('†'), table.contains("\n†"), "{table}");
    }

    #[test]
    fn a_row_tells_the_median_round_the_spread_and_the_verdicts() {
        let round = |last, upstream| outcome(&[9.0, last], upstream, 1.0);
        check(
            Method::Darter,
            vec![
                round(10.5, 1000.0),
                round(13.0, 1000.0),
                round(11.0, 1006.0),
            ],
            "| 2 hosts, 1 GiB | Darter | 1.10 (1.05–1.30), ≤ 1.1 met | 10.0 s, 11.0 s \
             | 375 ms, 500 ms | 1.000, ≤ 1.005 met | 2.50 | 3.0 | 5 MiB |",
        );
        check(
            Method::Darter,
            vec![round(11.5, 1006.0)],
            "| 2 hosts, 1 GiB | Darter | 1.15, ≤ 1.1 **missed** | 10.2 s, 11.5 s \
             | 375 ms, 500 ms | 1.006, ≤ 1.005 **missed** | 2.50 | 3.0 | 5 MiB |",
        );
    }

    #[test]
    fn others_have_no_goals_and_may_give_nothing_before_the_end() {
        let mut round = outcome(&[20.0], 8000.0, 1.0);
        round.first_bytes.clear();
        round.peak_memory = None;
        check(
            Method::Direct,
            vec![round],
            "| 2 hosts, 1 GiB | everyone direct | 2.00 | 20.0 s, 20.0 s | at the end | 8.000 \
             | 2.50 | 3.0 | – |",
        );
    }

    #[test]
    fn a_machine_without_idle_time_is_told_of() {
        check(
            Method::Nginx,
            vec![outcome(&[20.0], 1000.0, 1.7)],
            "| 2 hosts, 1 GiB | nginx cache | 2.00 † | 20.0 s, 20.0 s | 375 ms, 500 ms | 1.000 \
             | 2.50 | 3.0 | 5 MiB |",
        );
    }

    #[test]
    fn a_method_that_failed_is_told_of() {
        let row = "| 2 hosts, 1 GiB | Darter | **failed** | – | – | – | – | – | – |";
        check(Method::Darter, Vec::new(), row);
    }
}
