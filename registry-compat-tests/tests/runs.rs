//! Which bytes of a blob a registry was asked for, and that it was asked for none of them twice.

use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::fault_registry::Asked;

/// What may lie in the buffers of one connection when it is cut.
const ON_THE_WAY: usize = 8 << 20;

/// What the registry was asked for in one request, and how much of it it sent.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) asked: Range<usize>,
    pub(crate) sent: usize,
}

// === impl Run ===

impl Run {
    /// The requests for a blob of `size` bytes, in the order of their first bytes.
    pub(crate) fn all(fetches: &[Asked], size: usize) -> Result<Vec<Self>> {
        let runs = fetches.iter().map(|asked| Self::of(asked, size));
        let mut runs = runs.collect::<Result<Vec<_>>>()?;
        runs.sort_by_key(|run| run.asked.start);
        Ok(runs)
    }

    fn of(fetch: &Asked, size: usize) -> Result<Self> {
        let asked = match &fetch.range {
            None => 0..size,
            Some(range) => {
                let range = range.strip_prefix("bytes=").context("no bytes")?;
                let (first, last) = range.split_once('-').context("no range")?;
                let end = match last {
                    "" => size,
                    last => last.parse::<usize>()? + 1,
                };
                first.parse()?..end
            }
        };
        Ok(Self {
            asked,
            sent: fetch.sent,
        })
    }

    fn is_cut(&self) -> bool {
        self.sent < self.asked.len()
    }

    fn sent(&self) -> Range<usize> {
        self.asked.start..self.asked.start + self.sent
    }
}

/// Fails where two requests were for the same byte.
///
/// A request that whoever asked has cut short may have been for more: it goes to the end of the blob
/// or of what its readers wanted when it began, and ends where they leave, or where what is ahead of
/// it has been fetched already. So it counts for what the registry sent of it, and that may be more
/// than was taken, by what lies in the buffers of one connection.
pub(crate) fn asked_once(fetches: &[Asked], size: usize) -> Result<()> {
    let runs = Run::all(fetches, size)?;
    eprintln!("asked {runs:?}");
    for (at, first) in runs.iter().enumerate() {
        let twice_max = if first.is_cut() { ON_THE_WAY } else { 0 };
        for second in &runs[at + 1..] {
            let end = first.sent().end.min(second.sent().end);
            let twice = end.saturating_sub(second.asked.start);
            ensure!(twice <= twice_max, "{twice} bytes twice: {runs:?}");
        }
    }
    Ok(())
}
