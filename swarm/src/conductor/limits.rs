//! Pure: the bounds of one download.

use std::time::Duration;

/// Bounds of one download.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes asked of a supplier in one request.
    pub run_bytes: u64,
    /// Requests under way at one supplier.
    pub runs_per_supplier: usize,
    /// Requests under way at all suppliers.
    pub runs_max: usize,
    /// Suppliers; siblings beyond it are not followed.
    pub suppliers_max: usize,
    /// A reader's next bytes are fetched in order, this far; what is rarest comes first beyond.
    pub near_bytes: u64,
    /// A supplier that brings no piece for this long is left.
    pub piece_timeout: Duration,
    /// The least time a supplier has before its pieces are asked of others.
    pub patience_min: Duration,
    /// A supplier that was too slow this often in a row is left.
    pub strikes_max: u32,
    /// The first pause after a supplier had no slot free; it doubles.
    pub busy_pause: Duration,
    /// A supplier that had no slot free this often in a row is left.
    pub refusals_max: u32,
    /// The least age of a request before its pieces are asked of another as well, at the end.
    pub hedge_after: Duration,
    /// Pieces in flight twice.
    pub hedges_max: usize,
    /// How long those who hold something of the task may take to say so before a new fetcher
    /// asks the source.
    pub adoption: Duration,
    /// Requests under way at the source, the main one included.
    pub source_runs: usize,
    /// A read this far ahead of a source run waits for it.
    pub soon_bytes: u64,
    /// A download of which this share is here goes on although nobody reads it any more.
    pub keep_from_percent: u32,
    /// How long the scheduler may think before the source is asked without it.
    pub answer_timeout: Duration,
}

/// A parent that has no word of the task for so many times `piece_timeout`, while this host wants
/// something, is left: as long as a scheduler believes in a fetcher that brings nothing.
const SILENT_TIMEOUTS: u32 = 6;

// === impl Limits ===

impl Limits {
    pub(super) fn silence(&self) -> Duration {
        self.piece_timeout * SILENT_TIMEOUTS
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            run_bytes: 1 << 20,
            runs_per_supplier: 4,
            runs_max: 16,
            suppliers_max: 32,
            near_bytes: 4 << 20,
            piece_timeout: Duration::from_secs(10),
            patience_min: Duration::from_secs(2),
            strikes_max: 3,
            busy_pause: Duration::from_millis(50),
            refusals_max: 8,
            hedge_after: Duration::from_millis(200),
            hedges_max: 4,
            adoption: Duration::from_millis(500),
            source_runs: 4,
            soon_bytes: 8 << 20,
            keep_from_percent: 50,
            answer_timeout: Duration::from_secs(2),
        }
    }
}
