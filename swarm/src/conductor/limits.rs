//! Pure: the bounds of one download.

use std::time::Duration;

/// Bounds of one download.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes asked of a parent in one request.
    pub run_bytes: u64,
    /// Requests under way at one parent.
    pub runs_per_parent: usize,
    /// A parent that brings no piece for this long is left.
    pub piece_timeout: Duration,
    /// Requests under way at the source, the main one included.
    pub source_runs: usize,
    /// A read this far ahead of a source run waits for it.
    pub soon_bytes: u64,
    /// How long the scheduler may think before the source is asked without it.
    pub answer_timeout: Duration,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            run_bytes: 1 << 20,
            runs_per_parent: 4,
            piece_timeout: Duration::from_secs(10),
            source_runs: 4,
            soon_bytes: 8 << 20,
            answer_timeout: Duration::from_secs(2),
        }
    }
}
