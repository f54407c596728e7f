//! What a herd costs: the processor time of its processes, the memory of the largest of them, and
//! how busy the whole machine was meanwhile.

use anyhow::Result;
use registry_compat_tests::process::Stopwatch;

use crate::processor;

/// Runs from the moment at which a herd is let loose.
#[derive(Debug)]
pub(crate) struct Meter {
    watch: Stopwatch,
    machine: f64,
    /// Processes, and what each had taken before.
    processes: Vec<(u32, f64)>,
}

/// What was spent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) cpu_seconds: f64,
    /// Processors that were at work on the average, for whomever.
    pub(crate) busy: f64,
}

// === impl Meter ===

impl Meter {
    /// Begins with processes that run already.
    pub(crate) fn start(processes: &[u32]) -> Result<Self> {
        let before = |&process: &u32| Ok((process, processor::seconds(process)?));
        Ok(Self {
            processes: processes.iter().map(before).collect::<Result<_>>()?,
            machine: processor::machine_seconds()?,
            watch: Stopwatch::start(),
        })
    }

    /// Counts a process that has just been started.
    pub(crate) fn add(&mut self, process: u32) {
        self.processes.push((process, 0.0));
    }

    pub(crate) fn watch(&self) -> Stopwatch {
        self.watch
    }

    pub(crate) fn read(&self) -> Result<Spent> {
        let wall = self.watch.elapsed().as_secs_f64();
        let busy = (processor::machine_seconds()? - self.machine) / wall;
        let spent = |&(process, before): &(u32, f64)| Ok(processor::seconds(process)? - before);
        let spent = self.processes.iter().map(spent);
        Ok(Spent {
            cpu_seconds: spent.sum::<Result<f64>>()?,
            busy,
        })
    }
}

/// The most that one of these processes had in memory; nothing where there is none.
pub(crate) fn peak_memory(processes: &[u32]) -> Result<Option<u64>> {
    let peaks = processes
        .iter()
        .map(|&process| processor::peak_memory(process));
    Ok(peaks.collect::<Result<Vec<_>>>()?.into_iter().max())
}
