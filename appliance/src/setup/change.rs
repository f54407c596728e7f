//! Pure: from what stands in a file, and what is recorded of it, to what is to stand there.

use std::path::{Path, PathBuf};

use similar::TextDiff;

use super::{
    edit::{Edit, EditError},
    plan::Part,
    record::{FileRecord, Write, digest_of},
};

/// What becomes of one file. `None` is no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: PathBuf,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    /// What the person is told of it besides.
    pub(crate) note: Option<&'static str>,
    /// What makes the runtime read it.
    pub(crate) then: Option<String>,
}

/// A change, and what is to be recorded of the file once it is made; `None` to forget it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) change: Change,
    pub(crate) recorded: Option<FileRecord>,
}

const EDITED: &str = "edited since the setup: what people wrote stays";
const GONE: &str = "somebody has removed it: it stays removed";

/// Lines around a change that are shown.
const CONTEXT_LINES: usize = 3;

/// What `current` is without our part.
pub(crate) fn base(
    record: Option<&FileRecord>,
    current: Option<&str>,
) -> Result<Option<String>, EditError> {
    let Some(record) = record else {
        return Ok(current.map(str::to_owned));
    };
    if record.knows(current) {
        return Ok(record.before.clone());
    }
    let mut left = current.map(str::to_owned);
    for write in record.writes.iter().rev() {
        left = match left {
            Some(text) => write.edit.take_out(&text)?,
            None => None,
        };
    }
    Ok(left)
}

/// Puts `part` into a file.
pub(crate) fn put_in(
    part: &Part,
    record: Option<&FileRecord>,
    current: Option<&str>,
) -> Result<Step, EditError> {
    let is_edited = record.is_some_and(|record| !record.knows(current));
    let keeps = |text: &str| is_edited && part.edit.stands_in(text) && last_is(record, &part.edit);
    let (before, to) = match current {
        // Our part is as it was, and what else there is is nobody's business.
        Some(text) if keeps(text) => (
            record.and_then(|record| record.before.clone()),
            text.to_owned(),
        ),
        Some(_) | None => {
            let before = base(record, current)?;
            let to = part.edit.put_in(before.as_deref().unwrap_or_default())?;
            (before, to)
        }
    };
    let is_changed = current != Some(to.as_str());
    let recorded = match record {
        // What stands there already without a setup's doing is not ours to take out.
        None if !is_changed => None,
        Some(record) if !is_changed && last_is(Some(record), &part.edit) => Some(record.clone()),
        Some(_) | None => Some(FileRecord {
            path: part.path.clone(),
            before,
            writes: vec![Write {
                digest: digest_of(&to),
                edit: part.edit.clone(),
                then: part.then.map(str::to_owned),
            }],
        }),
    };
    let change = Change {
        path: part.path.clone(),
        from: current.map(str::to_owned),
        to: Some(to),
        note: (is_edited && is_changed).then_some(EDITED),
        then: part.then.filter(|_| is_changed).map(str::to_owned),
    };
    Ok(Step { change, recorded })
}

/// Takes our part out of a file again. `shared` is what another runtime has recorded of it.
pub(crate) fn take_out(
    record: &FileRecord,
    shared: Option<&FileRecord>,
    current: Option<&str>,
) -> Result<Step, EditError> {
    let is_edited = !record.knows(current);
    let is_gone = current.is_none() && record.before.is_some();
    let others = shared.and_then(|shared| shared.writes.last());
    let (to, note) = match others {
        Some(others) => {
            let before = record.before.as_deref().unwrap_or_default();
            (
                Some(others.edit.put_in(before)?),
                Some("another runtime is set up by it"),
            )
        }
        None if is_gone => (None, Some(GONE)),
        None => (base(Some(record), current)?, is_edited.then_some(EDITED)),
    };
    let is_changed = to.as_deref() != current;
    let then = record.writes.last().and_then(|write| write.then.clone());
    let change = Change {
        path: record.path.clone(),
        from: current.map(str::to_owned),
        to,
        note,
        then: then.filter(|_| is_changed),
    };
    Ok(Step {
        change,
        recorded: None,
    })
}

fn last_is(record: Option<&FileRecord>, edit: &Edit) -> bool {
    let last = record.and_then(|record| record.writes.last());
    last.is_some_and(|write| write.edit == *edit)
}

// === impl Change ===

impl Change {
    pub(crate) fn is_one(&self) -> bool {
        self.from != self.to
    }

    /// The unified diff of the file as it lies at `shown`.
    pub(crate) fn diff(&self, shown: &Path) -> String {
        let name = |text: &Option<String>| match text {
            Some(_) => shown.display().to_string(),
            None => "/dev/null".to_owned(),
        };
        let (from, to) = (self.from.as_deref(), self.to.as_deref());
        TextDiff::from_lines(from.unwrap_or_default(), to.unwrap_or_default())
            .unified_diff()
            .context_radius(CONTEXT_LINES)
            .header(&name(&self.from), &name(&self.to))
            .to_string()
    }
}
