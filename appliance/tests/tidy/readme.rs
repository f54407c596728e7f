//! Every path that README and CONTRIBUTING name exists.

use super::{
    report,
    source::{read, root},
};

/// The first elements of paths in this tree; other texts with a slash are no paths of ours.
const TOP: [&str; 14] = [
    "appliance",
    "benchmarks",
    "deploy",
    "fuzz",
    "manager",
    "protocol",
    "proxy",
    "registry-compat-tests",
    "scheduler",
    "seed",
    "simulation",
    "swarm",
    ".ci",
    "docs",
];

/// The words of `text` that name a path of the tree.
fn paths(text: &str) -> Vec<String> {
    let is_boundary = |letter: char| letter.is_whitespace() || "`()[]\"',;|".contains(letter);
    let mut found = Vec::new();
    for word in text.split(is_boundary) {
        let word = word
            .strip_prefix("./")
            .unwrap_or(word)
            .trim_end_matches(['.', ':']);
        let in_tree = word
            .split_once('/')
            .is_some_and(|(first, _)| TOP.contains(&first));
        let at_root = !word.contains('/') && word.ends_with(".md") && word.len() > 3;
        if in_tree || at_root {
            found.push(word.to_owned());
        }
    }
    found
}

#[test]
fn every_path_that_a_document_names_exists() -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for document in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        for path in paths(&read(document)?) {
            if !root().join(&path).exists() {
                problems.push(format!(
                    "{document} names {path}, which does not exist; correct the name"
                ));
            }
        }
    }
    report(&problems);
    Ok(())
}

#[test]
fn paths_are_told_from_other_words() {
    let text =
        "See `deploy/config/darter.toml`, [x](CONTRIBUTING.md) and application/json; run ./proxy/.";
    assert_eq!(
        paths(text),
        ["deploy/config/darter.toml", "CONTRIBUTING.md", "proxy/"]
    );
}
