//! Pure: `registry-mirrors` of docker's `daemon.json`.

use jsonc_parser::{
    ParseOptions,
    cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode},
};

use super::EditError;

const MIRRORS: &str = "registry-mirrors";

pub(super) fn put_in(url: &str, text: &str) -> Result<String, EditError> {
    let (root, object) = parse(text)?;
    let mirrors = object
        .array_value_or_create(MIRRORS)
        .ok_or_else(|| EditError::Shape(format!("{MIRRORS} must be a list")))?;
    if !mirrors.elements().iter().any(|mirror| is(mirror, url)) {
        mirrors.insert(0, CstInputValue::String(url.to_owned()));
    }
    let mut put = root.to_string();
    if !text.ends_with('\n') && text.trim().is_empty() {
        put.push('\n');
    }
    Ok(put)
}

pub(super) fn take_out(url: &str, text: &str) -> Result<String, EditError> {
    let (root, object) = parse(text)?;
    let Some(mirrors) = object.array_value(MIRRORS) else {
        return Ok(text.to_owned());
    };
    let ours: Vec<CstNode> = mirrors.elements();
    let ours: Vec<CstNode> = ours.into_iter().filter(|mirror| is(mirror, url)).collect();
    if ours.is_empty() {
        return Ok(text.to_owned());
    }
    ours.into_iter().for_each(CstNode::remove);
    close_up(&mirrors);
    if mirrors.elements().is_empty()
        && let Some(property) = object.get(MIRRORS)
    {
        property.remove();
    }
    if object.properties().is_empty() {
        return Ok(String::new());
    }
    Ok(root.to_string())
}

/// The document, strictly JSON as docker reads it, and its object.
fn parse(text: &str) -> Result<(CstRootNode, CstObject), EditError> {
    let shown = if text.trim().is_empty() { "{}" } else { text };
    serde_json::from_str::<serde_json::Value>(shown).map_err(|error| EditError::Syntax {
        line: error.line(),
        column: error.column(),
        problem: bare(&error.to_string()),
    })?;
    let root = CstRootNode::parse(shown, &ParseOptions::default())
        .map_err(|error| EditError::Shape(error.to_string()))?;
    let object = root
        .object_value()
        .ok_or_else(|| EditError::Shape("the file must be an object".to_owned()))?;
    Ok((root, object))
}

/// The message without the place, which is told before it.
fn bare(message: &str) -> String {
    let place = message.rfind(" at line ").unwrap_or(message.len());
    message[..place].to_owned()
}

fn is(mirror: &CstNode, url: &str) -> bool {
    let text = mirror
        .as_string_lit()
        .and_then(|lit| lit.decoded_value().ok());
    text.is_some_and(|text| text.trim_end_matches('/') == url)
}

/// A list on one line has no blank before its first entry.
fn close_up(mirrors: &CstArray) {
    let children = mirrors.children();
    if let [open, blank, next, ..] = &children[..]
        && open.is_token()
        && blank.is_whitespace()
        && !next.is_newline()
        && !next.is_whitespace()
    {
        blank.clone().remove();
    }
}
