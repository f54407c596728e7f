//! What a person sees of a preheat: a bar for each content on a terminal, plain lines elsewhere.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::bail;
use bytesize::ByteSize;
use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Line, Part, Progress, State, Wish};
use crate::{control::client, terminal};

/// What is shown while it runs.
struct Screen {
    parts: BTreeMap<String, Shown>,
    bars: Option<MultiProgress>,
}

struct Shown {
    part: Part,
    bar: ProgressBar,
}

/// Digits of a digest that are enough to tell one content from another.
const DIGITS: usize = 12;

/// Asks the node on one of `data_dirs`, and shows what it tells until the end.
pub(crate) fn run(data_dirs: &[PathBuf], wish: &Wish) -> anyhow::Result<()> {
    let mut screen = Screen {
        parts: BTreeMap::new(),
        bars: terminal::is_watched().then(MultiProgress::new),
    };
    let body = serde_json::to_vec(wish)?;
    let ended = client::follow(data_dirs, (&Method::POST, "/preheat"), body, |line| {
        match line {
            Line::Plan { digest, parts } => screen.plan(&wish.image, &digest, parts),
            Line::Progress(progress) => screen.progress(&progress),
            Line::Alive => {}
            Line::Problem(problem) => bail!("{problem}"),
            Line::End { failed } => return Ok(Some(failed)),
        }
        Ok(None)
    })?;
    match ended {
        Some(0) => Ok(()),
        Some(failed) => bail!("{failed} of {} contents failed", screen.parts.len()),
        None => bail!("the node broke off"),
    }
}

// === impl Screen ===

impl Screen {
    fn plan(&mut self, image: &str, digest: &str, parts: Vec<Part>) {
        let size = parts.iter().map(|part| part.size).sum();
        let count = parts.len();
        let size = ByteSize::b(size);
        terminal::say(&format!("{image} is {digest}: {count} contents, {size}"));
        for part in parts {
            let bar = match &self.bars {
                Some(bars) => bars.add(bar(&part)),
                None => ProgressBar::hidden(),
            };
            let digest = part.digest.clone();
            self.parts.insert(digest, Shown { part, bar });
        }
    }

    fn progress(&self, progress: &Progress) {
        let Some(Shown { part, bar }) = self.parts.get(&progress.digest) else {
            return;
        };
        let Progress { wanted, held, .. } = progress;
        let hosts = format!("{held}/{wanted} hosts");
        let (word, told) = match &progress.state {
            State::Running => ("", hosts),
            State::Done => ("done", hosts),
            State::Failed(why) => ("failed", format!("{hosts}: {why}")),
        };
        bar.set_length(part.size.saturating_mul(u64::from(*wanted).max(1)));
        bar.set_position(bytes_had(part.size, progress));
        bar.set_message(told.clone());
        if progress.state == State::Running {
            return;
        }
        bar.abandon();
        if self.bars.is_none() {
            let Part { digest, kind, .. } = part;
            let size = ByteSize::b(part.size);
            let platform = part.platform.as_deref().unwrap_or("any platform");
            terminal::say(&format!("{word} {digest} {kind} {size} {platform} {told}"));
        }
    }
}

fn bar(part: &Part) -> ProgressBar {
    let bar = ProgressBar::new(part.size);
    let template = "{prefix:<24} {wide_bar} {bytes:>11} / {total_bytes:<11} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let digits = part.digest.split(':').nth(1).unwrap_or_default();
    let digits: String = digits.chars().take(DIGITS).collect();
    bar.set_prefix(format!("{digits} {}", part.kind));
    bar
}

/// Bytes over all hosts that are to have a content of this size.
fn bytes_had(size: u64, progress: &Progress) -> u64 {
    let whole = size.saturating_mul(u64::from(progress.held));
    let Some(total) = progress.total.filter(|total| *total != 0) else {
        return whole;
    };
    let copies = u128::from(progress.pieces) * u128::from(size) / u128::from(total);
    whole.max(u64::try_from(copies).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_shows_bytes_over_all_hosts() {
        let check = |held, pieces, total, expect| {
            let progress = Progress {
                digest: String::new(),
                wanted: 3,
                held,
                pieces,
                total,
                state: State::Running,
            };
            assert_eq!(bytes_had(1000, &progress), expect);
        };
        check(0, 0, None, 0);
        check(0, 5, Some(10), 500);
        check(1, 15, Some(10), 1500);
        check(2, 0, None, 2000);
        check(0, 0, Some(0), 0);
    }
}
