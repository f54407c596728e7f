//! Pure: reads the text of a configuration file and tells everything that is wrong with it.
//!
//! The deserializer stops at its first problem. So that all are told at once, the entry it stopped
//! at is noted, taken out of the document, and the rest read again until nothing is left to say.

use std::ops::Range;

use serde::Deserialize as _;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, Deserializer},
};

use super::{Config, Problem, RawConfig};

/// Problems that are told of one file; what lies behind them is told when these are mended.
const PROBLEMS_MAX: usize = 100;

/// A name this similar to a misspelt one is suggested.
const SIMILARITY_MIN: f64 = 0.8;

/// One step from a table or a list to an entry of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Reads `text`: the file as written and as run, or every problem with its line.
pub fn read(text: &str) -> Result<(RawConfig, Config), Vec<Problem>> {
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        let problem = |error: &toml::de::Error| {
            let line = error.span().map_or(0, |span| line_at(text, span.start));
            Problem::at("", error.message()).on_line(line)
        };
        return Err(syntax_errors.iter().map(problem).collect());
    }
    let (raw, mut problems) = understand(text, document.clone());
    match raw.clone().check() {
        Ok(config) if problems.is_empty() => Ok((raw, config)),
        Ok(_) => Err(problems),
        Err(found) => {
            problems.extend(
                found
                    .into_iter()
                    .map(|problem| place(text, document.get_ref(), problem)),
            );
            problems.sort_by_key(Problem::line);
            Err(problems)
        }
    }
}

/// What can be understood of `document`, and what cannot.
fn understand(text: &str, mut document: Spanned<DeTable<'_>>) -> (RawConfig, Vec<Problem>) {
    let mut problems = Vec::new();
    while problems.len() < PROBLEMS_MAX {
        let error = match RawConfig::deserialize(Deserializer::from(document.clone())) {
            Ok(raw) => return (raw, problems),
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        let path = find_in_table(document.get_ref(), &span).unwrap_or_default();
        problems.push(explain(&path, error.message()).on_line(line_at(text, span.start)));
        if !remove_from_table(document.get_mut(), &path) {
            break;
        }
    }
    (RawConfig::default(), problems)
}

/// Turns the deserializer's message into a sentence that says what to do.
fn explain(path: &[Step], message: &str) -> Problem {
    let key = render(path);
    if key == "manager" {
        return Problem::at(
            &key,
            "the manager role is not in this version; remove its table",
        );
    }
    if !message.starts_with("unknown field") {
        return Problem::at(&key, message);
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let likeness = |name: &&str| strsim::jaro_winkler(name, unknown);
    let nearest = known
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(name) if likeness(&name) >= SIMILARITY_MIN => {
            Problem::at(&key, &format!("is no known key; did you mean `{name}`?"))
        }
        Some(_) | None => Problem::at(
            &key,
            &format!("is no known key; known here: {}", known.join(", ")),
        ),
    }
}

/// Gives a problem of a checked value the line on which its key stands.
fn place(text: &str, document: &DeTable<'_>, problem: Problem) -> Problem {
    let mut table = document;
    let mut line = 0;
    for name in problem.key().split(['.', '[']) {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else {
            break;
        };
        line = line_at(text, key.span().start);
        match value.get_ref().as_table() {
            Some(inner) => table = inner,
            None => break,
        }
    }
    problem.on_line(line)
}

/// The path to the entry whose key or value stands at `span`.
fn find_in_table(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    table.iter().find_map(|(key, value)| {
        let at_key = key.span() == *span;
        let rest = if at_key {
            Some(Vec::new())
        } else {
            find_in_value(value, span)
        };
        rest.map(|rest| [vec![Step::Key(key.get_ref().to_string())], rest].concat())
    })
}

fn find_in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, span),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, element)| {
            let rest = find_in_value(element, span)?;
            Some([vec![Step::Index(index)], rest].concat())
        }),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    };
    inner.or_else(|| (value.span() == *span).then(Vec::new))
}

/// Takes the entry at `path` out; tells whether there was one.
fn remove_from_table(table: &mut DeTable<'_>, path: &[Step]) -> bool {
    let Some((Step::Key(name), rest)) = path.split_first() else {
        return false;
    };
    if rest.is_empty() {
        return table.remove(name.as_str()).is_some();
    }
    table
        .get_mut(name.as_str())
        .is_some_and(|value| remove_from_value(value.get_mut(), rest))
}

fn remove_from_value(value: &mut DeValue<'_>, path: &[Step]) -> bool {
    match value {
        DeValue::Table(table) => remove_from_table(table, path),
        DeValue::Array(array) => match path.split_first() {
            Some((Step::Index(index), [])) => remove_element(array, *index),
            Some((Step::Index(index), rest)) => array
                .get_mut(*index)
                .is_some_and(|element| remove_from_value(element.get_mut(), rest)),
            Some((Step::Key(_), _)) | None => false,
        },
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => false,
    }
}

fn remove_element(array: &mut DeArray<'_>, index: usize) -> bool {
    let before = array.len();
    let kept = array
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != index)
        .map(|(_, element)| element.clone());
    *array = kept.collect();
    array.len() < before
}

fn render(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(name) if text.is_empty() => text.push_str(name),
            Step::Key(name) => text.extend([".", name]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}
