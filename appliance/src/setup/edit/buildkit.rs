//! Pure: mirrors of registries in `buildkitd.toml`.

use toml_edit::{Array, Item, TableLike, Value, value};

use super::{EditError, toml_text};

const REGISTRY: &str = "registry";

pub(super) fn put_in(
    authority: &str,
    registries: &[String],
    text: &str,
) -> Result<String, EditError> {
    let mut document = toml_text::parse(text)?;
    let all = toml_text::table_in(document.as_table_mut(), REGISTRY)?;
    for name in registries {
        let registry = toml_text::table_in(all, name)?;
        let mirrors = registry
            .entry("mirrors")
            .or_insert_with(|| value(Array::new()));
        let mirrors = mirrors
            .as_array_mut()
            .ok_or_else(|| EditError::Shape(format!("the mirrors of {name} must be a list")))?;
        if toml_text::index_of(mirrors, authority).is_none() {
            insert_first(mirrors, authority);
        }
    }
    let own = toml_text::table_in(all, authority)?;
    if own.get("http").and_then(Item::as_bool) != Some(true) {
        own.insert("http", value(true));
    }
    Ok(document.to_string())
}

pub(super) fn take_out(
    authority: &str,
    registries: &[String],
    text: &str,
) -> Result<String, EditError> {
    let mut document = toml_text::parse(text)?;
    let root: &mut dyn TableLike = document.as_table_mut();
    let Some(all) = root.get_mut(REGISTRY).and_then(Item::as_table_like_mut) else {
        return Ok(text.to_owned());
    };
    let mut is_changed = false;
    for name in registries {
        let registry = all.get_mut(name).and_then(Item::as_table_like_mut);
        let Some(registry) = registry else { continue };
        let mirrors = registry.get_mut("mirrors").and_then(Item::as_array_mut);
        let Some(mirrors) = mirrors else { continue };
        let Some(index) = toml_text::index_of(mirrors, authority) else {
            continue;
        };
        is_changed = true;
        mirrors.remove(index);
        if mirrors.is_empty() {
            registry.remove("mirrors");
        }
        toml_text::prune(all, &[name]);
    }
    if let Some(own) = all.get_mut(authority).and_then(Item::as_table_like_mut) {
        is_changed |= own.remove("http").is_some();
        toml_text::prune(all, &[authority]);
    }
    if !is_changed {
        return Ok(text.to_owned());
    }
    toml_text::prune(root, &[REGISTRY]);
    Ok(document.to_string())
}

/// Names the certificates by which registries are believed.
pub(super) fn trust(certificates: &[(String, String)], text: &str) -> Result<String, EditError> {
    let mut document = toml_text::parse(text)?;
    let all = toml_text::table_in(document.as_table_mut(), REGISTRY)?;
    for (name, certificate) in certificates {
        let registry = toml_text::table_in(all, name)?;
        toml_text::add_to_list(registry, "ca", certificate)?;
    }
    Ok(document.to_string())
}

pub(super) fn distrust(certificates: &[(String, String)], text: &str) -> Result<String, EditError> {
    let mut document = toml_text::parse(text)?;
    let root: &mut dyn TableLike = document.as_table_mut();
    let Some(all) = root.get_mut(REGISTRY).and_then(Item::as_table_like_mut) else {
        return Ok(text.to_owned());
    };
    let mut is_changed = false;
    for (name, certificate) in certificates {
        let registry = all.get_mut(name).and_then(Item::as_table_like_mut);
        let Some(registry) = registry else { continue };
        if toml_text::remove_from_list(registry, "ca", certificate) {
            is_changed = true;
            toml_text::prune(all, &[name]);
        }
    }
    if !is_changed {
        return Ok(text.to_owned());
    }
    toml_text::prune(root, &[REGISTRY]);
    Ok(document.to_string())
}

/// Puts `text` first, with the look of what was first.
fn insert_first(mirrors: &mut Array, text: &str) {
    let decor = mirrors.get(0).map(|first| first.decor().clone());
    let mut ours = Value::from(text);
    match decor {
        Some(decor) => *ours.decor_mut() = decor.clone(),
        None => {
            mirrors.push(text);
            return;
        }
    }
    let is_one_line = ours
        .decor()
        .prefix()
        .is_none_or(|blank| blank.as_str().is_none_or(|blank| !blank.contains('\n')));
    mirrors.insert_formatted(0, ours);
    if is_one_line && let Some(second) = mirrors.get_mut(1) {
        second.decor_mut().set_prefix(" ");
    }
}
