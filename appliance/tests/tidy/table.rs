//! The table of what registry clients need: every number stands in it once, and every test that it
//! names exists.

use std::collections::BTreeMap;

use super::{
    report,
    source::{SourceFile, files, read},
};

const TABLE: &str = "registry-compat-tests/README.md";
/// Where files are that the table names without a crate.
const HARNESS: &str = "registry-compat-tests/tests";
/// Rows of the checklist.
const ROWS: usize = 94;
const COLUMNS: usize = 4;

/// The cells of a line of a table that has a number in its first one.
fn row(line: &str) -> Option<(usize, Vec<&str>)> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    let cells: Vec<_> = inner.split(" | ").collect();
    Some((cells.first()?.parse().ok()?, cells))
}

/// The tests that a cell names: file and function.
fn named(cell: &str) -> Vec<(&str, &str)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter_map(|name| name.split_once("::")).collect()
}

/// Whether one of `files` has the test `function` at `path`.
fn exists(files: &[SourceFile], path: &str, function: &str) -> bool {
    let at_home = format!("{HARNESS}/{path}");
    let mut there = files
        .iter()
        .filter(|file| file.path == path || file.path == at_home);
    there.any(|file| is_test(&file.text, function))
}

/// Whether `text` has a function of that name with `#[test]` or its like before it.
fn is_test(text: &str, function: &str) -> bool {
    let opening = format!("fn {function}(");
    let Some((before, _)) = text.split_once(&opening) else {
        return false;
    };
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    attributes.contains("#[test]") || attributes.contains("#[tokio::test")
}

fn problems(table: &str, files: &[SourceFile]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeMap::<usize, usize>::new();
    for (number, cells) in table.lines().filter_map(row) {
        *seen.entry(number).or_default() += 1;
        if cells.len() != COLUMNS || cells.iter().any(|cell| cell.trim().is_empty()) {
            problems.push(format!(
                "{TABLE}: row {number} has {COLUMNS} cells with a word in each"
            ));
            continue;
        }
        let tests = named(cells[COLUMNS - 1]);
        if tests.is_empty() {
            problems.push(format!(
                "{TABLE}: row {number} names no test; write it, and its name as `file.rs::test`"
            ));
        }
        for (path, function) in tests {
            if !exists(files, path, function) {
                problems.push(format!(
                    "{TABLE}: row {number} names {path}::{function}, which is no test; correct the name"
                ));
            }
        }
    }
    for number in 1..=ROWS {
        let count = seen.remove(&number).unwrap_or_default();
        if count != 1 {
            problems.push(format!(
                "{TABLE}: {number} stands there {count} times; it is to stand once"
            ));
        }
    }
    let past = seen.keys();
    problems.extend(past.map(|number| format!("{TABLE}: there is no number {number}")));
    problems
}

#[test]
fn every_number_of_the_table_stands_once_and_every_test_in_it_exists() -> anyhow::Result<()> {
    report(&problems(&read(TABLE)?, &files()?));
    Ok(())
}

#[test]
fn what_is_wrong_in_a_table_is_found() -> anyhow::Result<()> {
    let (table, files) = (read(TABLE)?, files()?);
    let found = |table: &str| problems(table, &files).len();
    assert_eq!(found(""), ROWS);
    let tested = "`raw.rs::a_range_in_any_form_is_answered_cold_and_warm`";
    assert_eq!(found(&format!("{table}\n| 7 | a | b | {tested} |")), 1);
    assert_eq!(found(&format!("{table}\n| 95 | a | b | {tested} |")), 1);
    // One that stands there twice, and has a fault of its own.
    assert_eq!(found(&format!("{table}\n| 7 | a | b | no test |")), 2);
    assert_eq!(found(&format!("{table}\n| 7 | a |  | {tested} |")), 2);
    let misspelt = "::a_range_in_any_form_is_answered_cold_and_warn`";
    let right = "::a_range_in_any_form_is_answered_cold_and_warm`";
    assert_eq!(found(&table.replacen(right, misspelt, 1)), 1);
    // A function that is there and is no test.
    let helper = "| 1 | a | b | `raw.rs::is_content` |";
    assert_eq!(found(&format!("{helper}\n{table}")), 2);
    Ok(())
}
