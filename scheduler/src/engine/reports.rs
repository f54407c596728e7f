//! Pure: what one host says of another, or of what it got, and when that is enough to act on: one that
//! is believed, or several.

use std::collections::BTreeSet;

use protocol::HostId;

use super::Limits;

/// What was said of one thing.
#[derive(Debug, Default)]
pub(super) struct Reports {
    reporters: BTreeSet<HostId>,
    is_enough: bool,
}

/// Who says it, and whether its word is enough alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reporter<'a> {
    pub(super) id: &'a HostId,
    pub(super) is_believed: bool,
}

// === impl Reports ===

impl Reports {
    /// One more says so; tells whether it is enough from now on.
    pub(super) fn add(&mut self, limits: &Limits, reporter: Reporter<'_>) -> bool {
        if self.is_enough {
            return false;
        }
        self.reporters.insert(reporter.id.clone());
        self.is_enough = reporter.is_believed || limits.reporters_min <= self.reporters.len();
        self.is_enough
    }

    pub(super) fn is_enough(&self) -> bool {
        self.is_enough
    }
}

/// Plays reports, `reporter` or `reporter!` for one that is believed, and tells after which `hear`
/// said that they are enough.
#[cfg(test)]
pub(super) fn enough_after(
    reports: &str,
    mut hear: impl FnMut(Reporter<'_>) -> bool,
) -> Option<usize> {
    reports.split_whitespace().position(|report| {
        let id = report.trim_end_matches('!').parse().unwrap();
        hear(Reporter {
            id: &id,
            is_believed: report.ends_with('!'),
        })
    })
}
