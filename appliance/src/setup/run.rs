//! Carries a setup or its undoing out: reads, shows or records, writes. What is right is decided in
//! `plan` and `change`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, ensure};

use super::{
    Mode, SetupArguments, below,
    change::{self, Change, Step},
    file::{self, Made},
    plan::{Ground, PlanError, Wish, plan},
    record::{FileRecord, Record, Records},
    runtime::Runtime,
    wish,
};
use crate::{config::RawConfig, terminal};

/// What is done, before any of it is.
#[derive(Debug, Default)]
struct Work {
    steps: Vec<Step>,
    notes: Vec<String>,
}

/// Where everything of one run lies.
#[derive(Debug)]
struct Site<'a> {
    root: &'a Path,
    runtime: Runtime,
    record: Record,
    /// What the other runtimes have recorded.
    others: Record,
}

/// Sets the runtime up, or takes it back; `raw` is the configuration of the node, `data_dir` where its
/// records are.
pub(crate) fn run(
    arguments: &SetupArguments,
    raw: &RawConfig,
    data_dir: &Path,
    now: SystemTime,
) -> anyhow::Result<()> {
    let runtime = arguments.runtime;
    ensure!(
        arguments.root.is_dir(),
        "{} is no directory",
        arguments.root.display()
    );
    let records = Records::in_data_dir(data_dir);
    let _lock = match arguments.dry_run {
        true => None,
        false => Some(records.lock()?),
    };
    let mut others = Record::default();
    for other in Runtime::ALL.into_iter().filter(|other| *other != runtime) {
        let Record { files, directories } = records.read(other)?;
        others.files.extend(files);
        others.directories.extend(directories);
    }
    let site = Site {
        root: &arguments.root,
        runtime,
        record: records.read(runtime)?,
        others,
    };
    let work = match arguments.undo {
        true => site.undoing()?,
        false => {
            let mut wish = wish::read(arguments, raw)?;
            let told = match wish.mode {
                Mode::Mirror => Vec::new(),
                Mode::Intercept => wish::believe(&mut wish, arguments, raw, data_dir, now)?,
            };
            site.doing(&wish, told)?
        }
    };
    for step in work
        .steps
        .iter()
        .filter(|step| arguments.dry_run && step.change.is_one())
    {
        let shown = below(site.root, &step.change.path);
        terminal::say(step.change.diff(&shown).trim_end());
    }
    if !arguments.dry_run {
        site.carry_out(&work, &records)?;
    }
    site.tell(&work, arguments);
    Ok(())
}

/// The text of the file at `path` below `root`; `None` where there is none.
fn read_text(root: &Path, path: &Path) -> anyhow::Result<Option<String>> {
    let shown = path.display();
    let target = file::target(root, path).with_context(|| format!("{shown} cannot be found"))?;
    file::read(&target).with_context(|| format!("{shown} cannot be read; nothing was changed"))
}

// === impl Site ===

impl Site<'_> {
    fn doing(&self, wish: &Wish, told: Vec<String>) -> anyhow::Result<Work> {
        let base = |path: &Path| -> anyhow::Result<Option<String>> {
            let current = read_text(self.root, path)?;
            let left = change::base(self.known(path), current.as_deref());
            left.map_err(|error| refused(path, &error))
        };
        let ground = Ground {
            // What cannot be read is refused below, when it is to be changed.
            text: &|path| base(path).ok().flatten(),
            names: &|directory| file::names(&below(self.root, directory)),
        };
        let plan = plan(wish, &ground)?;
        let mut steps = Vec::new();
        for part in &plan.parts {
            let current = read_text(self.root, &part.path)?;
            let step = change::put_in(part, self.known(&part.path), current.as_deref());
            steps.push(step.map_err(|error| refused(&part.path, &error))?);
        }
        let is_planned = |file: &&FileRecord| plan.parts.iter().any(|part| part.path == file.path);
        for file in self.record.files.iter().filter(|file| !is_planned(file)) {
            steps.push(self.taken_out(file)?);
        }
        let notes = [plan.notes, told].concat();
        Ok(Work { steps, notes })
    }

    fn undoing(&self) -> anyhow::Result<Work> {
        let files = self.record.files.iter();
        let steps = files
            .map(|file| self.taken_out(file))
            .collect::<anyhow::Result<_>>()?;
        Ok(Work {
            steps,
            notes: Vec::new(),
        })
    }

    fn taken_out(&self, file: &FileRecord) -> anyhow::Result<Step> {
        let current = read_text(self.root, &file.path)?;
        let shared = self
            .others
            .files
            .iter()
            .find(|other| other.path == file.path);
        let step = change::take_out(file, shared, current.as_deref());
        step.map_err(|error| refused(&file.path, &error))
    }

    /// What is recorded of the file: by a setup of this runtime, else by one of another that shares it.
    fn known(&self, path: &Path) -> Option<&FileRecord> {
        let files = self.record.files.iter().chain(&self.others.files);
        files.into_iter().find(|file| file.path == path)
    }

    fn carry_out(&self, work: &Work, records: &Records) -> anyhow::Result<()> {
        let settled = Record {
            files: work
                .steps
                .iter()
                .filter_map(|step| step.recorded.clone())
                .collect(),
            directories: self.record.directories.clone(),
        };
        let changes: Vec<&Change> = work
            .steps
            .iter()
            .map(|step| &step.change)
            .filter(|change| change.is_one())
            .collect();
        let mut record = self.under_way(&settled);
        for file in &settled.files {
            self.add_own_directories(&file.path, &mut record.directories);
        }
        if record != self.record {
            records.write(self.runtime, &record)?;
        }
        for change in &changes {
            self.write(change).with_context(|| {
                format!(
                    "{} cannot be changed; run this again, or with --undo",
                    change.path.display()
                )
            })?;
        }
        let directories = self.without_empty_directories(record.directories, &settled.files);
        let settled = Record {
            directories,
            ..settled
        };
        if settled != self.record || !changes.is_empty() {
            records.write(self.runtime, &settled)?;
        }
        Ok(())
    }

    /// What holds at any point between the record as it was and `settled`.
    fn under_way(&self, settled: &Record) -> Record {
        let mut record = settled.clone();
        for old in &self.record.files {
            match record.files.iter_mut().find(|file| file.path == old.path) {
                Some(file) => {
                    let earlier = old
                        .writes
                        .iter()
                        .filter(|write| !file.writes.contains(write));
                    let earlier: Vec<_> = earlier.cloned().collect();
                    file.writes.splice(0..0, earlier);
                }
                None => record.files.push(old.clone()),
            }
        }
        record
    }

    fn write(&self, change: &Change) -> anyhow::Result<()> {
        let target = file::target(self.root, &change.path)?;
        match &change.to {
            Some(text) => {
                let directory = target.parent().context("a file has a directory")?;
                fs::create_dir_all(directory)?;
                file::replace(&target, text, Made::Public)?;
            }
            None => file::remove(&target)?,
        }
        Ok(())
    }

    /// Notes the directories above `path` that no person made: those that are not there yet, and those
    /// that another runtime's setup has made. Whoever is undone last removes them.
    fn add_own_directories(&self, path: &Path, directories: &mut Vec<PathBuf>) {
        let is_own = |directory: &&Path| {
            let is_made = self.others.directories.iter().any(|made| made == directory);
            is_made || !below(self.root, directory).exists()
        };
        let own: Vec<&Path> = path.ancestors().skip(1).take_while(is_own).collect();
        for directory in own.into_iter().rev() {
            if !directories.iter().any(|known| known == directory) {
                directories.push(directory.to_owned());
            }
        }
    }

    /// Removes the directories that were made and have nothing in them; tells those that stay. An empty
    /// one would not be without effect: containerd looks no further once it finds one of a registry.
    fn without_empty_directories(
        &self,
        directories: Vec<PathBuf>,
        files: &[FileRecord],
    ) -> Vec<PathBuf> {
        for directory in directories.iter().rev() {
            let _not_empty = fs::remove_dir(below(self.root, directory));
        }
        let is_kept =
            |directory: &PathBuf| files.iter().any(|file| file.path.starts_with(directory));
        directories.into_iter().filter(is_kept).collect()
    }

    fn tell(&self, work: &Work, arguments: &SetupArguments) {
        let changes = work.steps.iter().map(|step| &step.change);
        let changed: Vec<&Change> = changes.clone().filter(|change| change.is_one()).collect();
        for change in changes {
            let verb = match (&change.from, &change.to, change.is_one()) {
                (_, _, false) if change.note.is_none() => continue,
                (_, _, false) => "left",
                (None, _, true) => "made",
                (Some(_), None, true) => "removed",
                (Some(_), Some(_), true) => "changed",
            };
            let note = change
                .note
                .map_or(String::new(), |note| format!(" ({note})"));
            let would = if arguments.dry_run && change.is_one() {
                "would be "
            } else {
                ""
            };
            terminal::note(&format!("{}: {would}{verb}{note}", change.path.display()));
        }
        let runtime = self.runtime.as_str();
        match (
            changed.is_empty(),
            arguments.undo,
            self.record.files.is_empty(),
        ) {
            (true, true, true) => terminal::note(&format!(
                "nothing is recorded of a setup of {runtime}; nothing to undo"
            )),
            (true, true, false) => terminal::note("nothing is left to undo"),
            (true, false, _) => terminal::note(&format!(
                "{runtime} is set up like this already; nothing to change"
            )),
            (false, _, _) => {
                let then = commands(&changed);
                for command in &then {
                    terminal::note(&format!("then: {command}"));
                }
                if then.is_empty() {
                    terminal::note(&format!(
                        "{runtime} reads this at its next pull; nothing to restart"
                    ));
                }
            }
        }
        for note in &work.notes {
            terminal::note(&format!("note: {note}"));
        }
    }
}

/// What makes the runtime read the changes; a restart after a `daemon-reload` is a restart for all.
fn commands<'a>(changed: &[&'a Change]) -> Vec<&'a str> {
    let mut then: Vec<&str> = Vec::new();
    for command in changed.iter().filter_map(|change| change.then.as_deref()) {
        if then.iter().any(|told| told.ends_with(command)) {
            continue;
        }
        then.retain(|told| !command.ends_with(told));
        then.push(command);
    }
    then
}

fn refused(path: &Path, problem: &dyn std::fmt::Display) -> anyhow::Error {
    let path = path.to_owned();
    let problem = format!("{problem}; nothing was changed");
    PlanError { path, problem }.into()
}
