//! Written twice is a question: no run of ten identical lines stands at two places of the
//! production code. Imports, attributes, comments, blank lines and lone braces do not count.

use std::collections::HashMap;

use super::{
    report,
    source::{Line, SourceFile, files},
};

const RUN: usize = 10;

/// One counted line: which file, which line, what it says.
struct Counted<'a> {
    file: usize,
    number: usize,
    text: &'a str,
}

/// The lines of a file that count towards a run.
fn counted(file_index: usize, file: &SourceFile) -> Vec<Counted<'_>> {
    let mut in_import = false;
    let mut lines = Vec::new();
    for Line { number, text } in file.production_lines() {
        let text = text.trim();
        let starts_import = text.starts_with("use ") || text.starts_with("pub use ");
        if starts_import || in_import {
            in_import = !text.ends_with(';');
        } else if says_something(text) {
            lines.push(Counted {
                file: file_index,
                number,
                text,
            });
        }
    }
    lines
}

fn says_something(text: &str) -> bool {
    let only_closes = text.chars().all(|letter| "{}()[];,".contains(letter));
    !only_closes && !text.starts_with("//") && !text.starts_with("#[") && !text.starts_with("#![")
}

fn repeated(sources: &[SourceFile]) -> Vec<String> {
    let all: Vec<Vec<Counted<'_>>> = sources
        .iter()
        .enumerate()
        .map(|(index, file)| counted(index, file))
        .collect();
    let mut first_seen: HashMap<Vec<&str>, (usize, usize)> = HashMap::new();
    let mut problems = Vec::new();
    for lines in &all {
        let mut silent_until = 0;
        for (start, window) in lines.windows(RUN).enumerate() {
            let here = (window[0].file, window[0].number);
            let key = window.iter().map(|line| line.text).collect();
            let there = *first_seen.entry(key).or_insert(here);
            if there != here && start >= silent_until {
                silent_until = start + RUN;
                problems.push(format!(
                    "{}:{} repeats {RUN} lines of {}:{}; give them one home",
                    sources[here.0].path, here.1, sources[there.0].path, there.1
                ));
            }
        }
    }
    problems
}

#[test]
fn no_run_of_lines_stands_twice() {
    report(&repeated(&files().unwrap_or_default()));
}

#[test]
fn a_repeated_run_is_found_across_files() {
    let body: String = (0..RUN).map(|n| format!("    line({n});\n\n")).collect();
    let file = |path: &str, text: String| SourceFile {
        path: path.to_owned(),
        text,
        place: super::source::Place::Production,
    };
    let other = body.replace("line(4)", "other()");
    assert_eq!(
        repeated(&[
            file("a.rs", body.clone()),
            file("b.rs", format!("use x;\n{body}"))
        ])
        .len(),
        1
    );
    assert!(repeated(&[file("a.rs", body.clone()), file("b.rs", other)]).is_empty());
    assert!(repeated(&[file("a.rs", body)]).is_empty());
}
