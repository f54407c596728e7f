//! Processor time and memory of processes and those below them, and the processor time of the whole
//! machine, as the kernel counts them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The unit of the times in `/proc/<id>/stat` on every architecture that we run on (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that `process` and all running below it have had so far, in user mode
/// and in the kernel. Threads that have ended are counted.
pub(crate) fn seconds(process: u32) -> Result<f64> {
    let directories = family(process)?;
    let ticks = directories.iter().map(|directory| ticks(directory));
    Ok(ticks.sum::<Result<f64>>()? / TICKS_PER_SECOND)
}

/// Seconds that this program has had.
pub(crate) fn own_seconds() -> Result<f64> {
    Ok(ticks(Path::new("/proc/self"))? / TICKS_PER_SECOND)
}

/// Seconds that all processors of the machine together were at work so far, for whomever.
pub(crate) fn machine_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let all = text.lines().find_map(|line| line.strip_prefix("cpu "));
    let times = numbers(all.context("no line of all processors")?)?;
    // The fourth and the fifth are those of idling; the last two are in the first two already.
    let at_work = times.iter().take(8).sum::<f64>() - times[3] - times[4];
    Ok(at_work / TICKS_PER_SECOND)
}

/// The most bytes of memory that `process` has had resident at once, and all running below it in
/// theirs: `VmHWM` of proc(5).
pub(crate) fn peak_memory(process: u32) -> Result<u64> {
    let mut bytes = 0;
    for directory in family(process)? {
        let status = fs::read_to_string(directory.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        bytes += kib.context("no VmHWM is told")?.trim().parse::<u64>()? * 1024;
    }
    Ok(bytes)
}

/// The directories below `/proc` of a process, of its running children, and of theirs.
fn family(process: u32) -> Result<Vec<PathBuf>> {
    let (mut directories, mut processes) = (Vec::new(), vec![process]);
    while let Some(process) = processes.pop() {
        let directory = PathBuf::from(format!("/proc/{process}"));
        for thread in fs::read_dir(directory.join("task"))? {
            // A thread that has ended meanwhile has left its children to another.
            let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().map(str::parse);
            processes.extend(children.collect::<Result<Vec<u32>, _>>()?);
        }
        directories.push(directory);
    }
    Ok(directories)
}

fn ticks(directory: &Path) -> Result<f64> {
    let text = fs::read_to_string(directory.join("stat"))?;
    // The second field is a name in brackets, which may hold spaces. Behind it, user and system
    // time are the 12th and the 13th.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().skip(11).take(2).collect();
    Ok(numbers(&fields.join(" "))?.iter().sum())
}

fn numbers(text: &str) -> Result<Vec<f64>> {
    let words = text.split_whitespace().map(str::parse);
    words
        .collect::<Result<_, _>>()
        .context("a time is a number")
}
