//! Finds the Rust files of the tree and tells which of their lines are production code.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// One Rust file.
pub(super) struct SourceFile {
    /// Relative to the root of the tree.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) place: Place,
}

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Production,
    Test,
}

/// A line of production code with its number, counted from 1.
pub(super) struct Line<'a> {
    pub(super) number: usize,
    pub(super) text: &'a str,
}

/// The root of the tree.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crates of the workspace, by folder name.
pub(super) fn members() -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = read("Cargo.toml")?.parse()?;
    let members = manifest["workspace"]["members"]
        .as_array()
        .context("workspace.members is a list")?;
    Ok(members
        .iter()
        .filter_map(|member| member.as_str().map(str::to_owned))
        .collect())
}

/// The text of one file, by its path in the tree.
pub(super) fn read(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| format!("{path} cannot be read"))
}

/// Every Rust file of every crate.
pub(super) fn files() -> anyhow::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for member in members()? {
        collect(&member, &mut files)?;
    }
    anyhow::ensure!(
        files.len() > 10,
        "the tree was not found: {} files",
        files.len()
    );
    Ok(files)
}

fn collect(folder: &str, files: &mut Vec<SourceFile>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root().join(folder))? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if path.ends_with(".rs") {
            files.push(SourceFile {
                text: read(&path)?,
                place: place_of(&path),
                path,
            });
        }
    }
    Ok(())
}

fn place_of(path: &str) -> Place {
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    if is_test {
        Place::Test
    } else {
        Place::Production
    }
}

// === impl SourceFile ===

impl SourceFile {
    /// The lines that are not under `#[cfg(test)]`.
    pub(super) fn production_lines(&self) -> Vec<Line<'_>> {
        if self.place == Place::Test {
            return Vec::new();
        }
        let mut lines = Vec::new();
        let mut in_test_item = false;
        for (index, text) in self.text.lines().enumerate() {
            if text == "#[cfg(test)]" {
                in_test_item = true;
            } else if !in_test_item {
                lines.push(Line {
                    number: index + 1,
                    text,
                });
            } else if text == "}" || (text.ends_with(';') && !text.starts_with(' ')) {
                in_test_item = false;
            }
        }
        lines
    }
}

#[test]
fn lines_of_test_items_are_not_production() {
    let text = "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod tests {\n    c;\n}\nd\n";
    let file = SourceFile {
        path: String::new(),
        text: text.to_owned(),
        place: Place::Production,
    };
    let seen: Vec<_> = file
        .production_lines()
        .iter()
        .map(|line| (line.number, line.text))
        .collect();
    assert_eq!(seen, [(1, "a"), (4, "b"), (9, "d")]);
}
