//! Processor time of a process and its children, as the kernel counts it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The unit of the times in `/proc/<id>/stat` on every architecture that we run on (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that `process` and its running children have had so far, in user mode
/// and in the kernel. Threads that have ended are counted.
pub(crate) fn seconds(process: u32) -> Result<f64> {
    let directory = PathBuf::from(format!("/proc/{process}"));
    let mut ticks = ticks(&directory)?;
    let children = directory.join(format!("task/{process}/children"));
    for child in fs::read_to_string(children)?.split_whitespace() {
        ticks += self::ticks(&Path::new("/proc").join(child))?;
    }
    Ok(ticks / TICKS_PER_SECOND)
}

/// Seconds that this program has had.
pub(crate) fn own_seconds() -> Result<f64> {
    Ok(ticks(Path::new("/proc/self"))? / TICKS_PER_SECOND)
}

fn ticks(directory: &Path) -> Result<f64> {
    let text = fs::read_to_string(directory.join("stat"))?;
    // The second field is a name in brackets, which may hold spaces. Behind it, user and system
    // time are the 12th and the 13th.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let times: Vec<f64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .context("a time is a number")?;
    Ok(times.iter().sum())
}
