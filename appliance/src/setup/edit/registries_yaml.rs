//! Pure: mirrors of registries in the `registries.yaml` of k3s and rke2.
//!
//! YAML is not written anew here: our part is one block between two lines of ours. It is put behind a
//! text whose top level is plainly that of one mapping without mirrors, since there it can change the
//! meaning of nothing. Every other text is refused, with what a person is to add to it.

use super::EditError;

const BEGIN: &str = "# Made by `darter setup`; `darter setup --undo` removes it.\n";
const END: &str = "# The end of what `darter setup` made.\n";

const MIRRORS: &str = "mirrors";

pub(super) fn put_in(url: &str, registries: &[String], text: &str) -> Result<String, EditError> {
    let block = block(url, registries);
    if text.contains(&block) {
        return Ok(text.to_owned());
    }
    if let Some((before, _, after)) = around(text) {
        return Ok([before, &block, after].concat());
    }
    if let Some(problem) = problem(text) {
        return Err(EditError::Shape(format!(
            "{problem}, and YAML is not written anew here; add this by hand, each endpoint before others of its registry:\n{block}"
        )));
    }
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    Ok([text, end, &block].concat())
}

pub(super) fn take_out(url: &str, registries: &[String], text: &str) -> Result<String, EditError> {
    let block = block(url, registries);
    match (text.contains(&block), around(text)) {
        (true, _) => Ok(text.replacen(&block, "", 1)),
        (false, Some(_)) => {
            let told = "what Darter made in it was edited; take out by hand what is not wanted any more, then the two comments around it";
            Err(EditError::Shape(told.to_owned()))
        }
        (false, None) => Ok(text.to_owned()),
    }
}

fn block(url: &str, registries: &[String]) -> String {
    let entries = registries
        .iter()
        .map(|name| format!("  \"{name}\":\n    endpoint:\n      - \"{url}\"\n"));
    format!("{BEGIN}{MIRRORS}:\n{}{END}", entries.collect::<String>())
}

/// What stands before our block, the block, and what stands behind it.
fn around(text: &str) -> Option<(&str, &str, &str)> {
    let begin = text.find(BEGIN)?;
    let end = begin + text[begin..].find(END)? + END.len();
    Some((&text[..begin], &text[begin..end], &text[end..]))
}

/// Why a key cannot simply be put behind `text`.
fn problem(text: &str) -> Option<String> {
    let (mut has_begun, mut has_key) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let problem = match top_key(line) {
            _ if line.trim_start().is_empty() || line.starts_with('#') => continue,
            Some(MIRRORS) => "it has mirrors already",
            Some(_) => {
                has_key = true;
                continue;
            }
            // Inside of what the last key has.
            None if has_key && line.starts_with(' ') => continue,
            None if !has_begun && !has_key && line == "---" => {
                has_begun = true;
                continue;
            }
            None => "this is not plainly a key",
        };
        return Some(format!("line {}: {problem}", index + 1));
    }
    None
}

/// The key that a line of the top level begins with, where it is written without any art.
fn top_key(line: &str) -> Option<&str> {
    let (key, value) = line.split_once(':')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let starts_plainly = key.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_key = starts_plainly && key.bytes().all(is_plain);
    let ends = value.is_empty() || value.starts_with(' ');
    (is_key && ends).then_some(key)
}
