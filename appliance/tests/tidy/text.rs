//! Rules about single files: length, header, purity, open ends.

use super::{
    report,
    source::{Place, SourceFile, files},
};

const PRODUCTION_LINES_MAX: usize = 400;

/// What a file that calls itself pure may not name, outside its comments.
const IMPURE: [&str; 18] = [
    "tokio",
    "async ",
    ".await",
    "std::fs",
    "File::",
    "std::io",
    "Socket::",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "Instant::now",
    "SystemTime::now",
    "Mutex",
    "RwLock",
    "rand::rng",
    "thread_rng",
    "random()",
    "std::thread",
];

fn length(file: &SourceFile) -> Vec<String> {
    let count = file.production_lines().len();
    if count <= PRODUCTION_LINES_MAX {
        return Vec::new();
    }
    vec![format!(
        "{}: {count} production lines; split it by concept, {PRODUCTION_LINES_MAX} is the most",
        file.path
    )]
}

fn header(file: &SourceFile) -> Vec<String> {
    let opens = file
        .text
        .lines()
        .next()
        .is_some_and(|line| line.starts_with("//! ") && line.len() > 8);
    if opens {
        return Vec::new();
    }
    vec![format!(
        "{}: say on its first line, with `//!`, what the file decides or does",
        file.path
    )]
}

fn purity(file: &SourceFile) -> Vec<String> {
    if !file.text.starts_with("//! Pure:") {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for line in file.production_lines() {
        let code = line.text.split("//").next().unwrap_or_default();
        for word in IMPURE.iter().filter(|word| code.contains(**word)) {
            problems.push(format!(
                "{}:{}: a file that opens with `//! Pure:` names `{word}`; move that to a driver",
                file.path, line.number
            ));
        }
    }
    problems
}

fn open_ends(file: &SourceFile) -> Vec<String> {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut problems = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for mark in marks.iter().filter(|mark| line.contains(**mark)) {
            let numbered = line.split(mark).nth(1).is_some_and(has_issue_number);
            if !numbered {
                let number = index + 1;
                problems.push(format!(
                    "{}:{number}: write `{mark}(#12)` with its issue, or do it",
                    file.path
                ));
            }
        }
    }
    problems
}

fn has_issue_number(rest: &str) -> bool {
    rest.strip_prefix("(#")
        .and_then(|rest| rest.split_once(')'))
        .is_some_and(|(number, _)| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

#[track_caller]
fn every_file(rule: fn(&SourceFile) -> Vec<String>) {
    report(
        &files()
            .unwrap_or_default()
            .iter()
            .flat_map(rule)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn no_file_is_too_long() {
    every_file(length);
}

#[test]
fn every_file_says_what_it_is() {
    every_file(header);
}

#[test]
fn pure_files_are_pure() {
    every_file(purity);
}

#[test]
fn an_open_end_names_its_issue() {
    every_file(open_ends);
}

#[track_caller]
fn check(rule: fn(&SourceFile) -> Vec<String>, text: &str, problems: usize) {
    let file = SourceFile {
        path: "a.rs".to_owned(),
        text: text.to_owned(),
        place: Place::Production,
    };
    assert_eq!(rule(&file).len(), problems, "{text}");
}

#[test]
fn the_rules_themselves_find_what_they_are_for() {
    check(length, &"x\n".repeat(401), 1);
    check(length, &"x\n".repeat(400), 0);
    check(header, "//! Decides it.\n", 0);
    check(header, "use x;\n", 1);
    check(purity, "//! Pure: decides.\nuse tokio::x;\n", 1);
    check(purity, "//! Pure: decides.\n// tokio is elsewhere\n", 0);
    check(purity, "//! Drives.\nuse tokio::x;\n", 0);
    check(open_ends, concat!("// TO", "DO later"), 1);
    check(open_ends, concat!("// TO", "DO(#7): later"), 0);
}
