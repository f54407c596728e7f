//! Pure: TOML documents of other programs: read with the place of an error, and tables in them.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, TomlError, Value, value};

use super::EditError;

pub(super) fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse()
        .map_err(|error: TomlError| syntax(text, &error))
}

fn syntax(text: &str, error: &TomlError) -> EditError {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    EditError::Syntax {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        problem: error.message().to_owned(),
    }
}

/// The table `name` of `parent`, made with no header of its own where it is missing.
pub(super) fn table_in<'a>(
    parent: &'a mut dyn TableLike,
    name: &str,
) -> Result<&'a mut dyn TableLike, EditError> {
    let made = || {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    };
    let item = parent.entry(name).or_insert_with(made);
    item.as_table_like_mut()
        .ok_or_else(|| EditError::Shape(format!("{name} must be a table")))
}

/// The table at `path`, if every step of it is one.
pub(super) fn find<'a>(table: &'a dyn TableLike, path: &[&str]) -> Option<&'a dyn TableLike> {
    let Some((first, rest)) = path.split_first() else {
        return Some(table);
    };
    find(table.get(first)?.as_table_like()?, rest)
}

/// Removes the tables along `path` that have nothing in them, the innermost first.
pub(super) fn prune(table: &mut dyn TableLike, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let Some(inner) = table.get_mut(first).and_then(Item::as_table_like_mut) else {
        return;
    };
    prune(inner, rest);
    if inner.is_empty() {
        table.remove(first);
    }
}

/// The index at which a list has `text`.
pub(super) fn index_of(array: &Array, text: &str) -> Option<usize> {
    let is_it = |value: &Value| value.as_str() == Some(text);
    array.iter().position(is_it)
}

/// Adds `text` to the list `key`, if it is not there.
pub(super) fn add_to_list(
    table: &mut dyn TableLike,
    key: &str,
    text: &str,
) -> Result<(), EditError> {
    let made = || value(Array::new());
    let list = table.entry(key).or_insert_with(made).as_array_mut();
    let list = list.ok_or_else(|| EditError::Shape(format!("{key} must be a list")))?;
    if index_of(list, text).is_none() {
        list.push(text);
    }
    Ok(())
}

/// Removes `text` from the list `key`, and the list where nothing else is in it; tells whether it was
/// there.
pub(super) fn remove_from_list(table: &mut dyn TableLike, key: &str, text: &str) -> bool {
    let list = table.get_mut(key).and_then(Item::as_array_mut);
    let Some((list, index)) = list.and_then(|list| index_of(list, text).map(|at| (list, at)))
    else {
        return false;
    };
    list.remove(index);
    if list.is_empty() {
        table.remove(key);
    }
    true
}
