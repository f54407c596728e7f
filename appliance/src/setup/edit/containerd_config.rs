//! Pure: where containerd's `config.toml` says that the `hosts.toml` files are.
//!
//! The table has another name in each version of the file. A file that configures mirrors in the old
//! way, or has no CRI, is not touched: containerd takes no `config_path` beside the former, and the
//! latter would not read it.

use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Item, TableLike, value};

use super::{EditError, toml_text};

/// `config_path` in the table of the CRI's registries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigPath {
    table: Vec<String>,
    directory: String,
}

/// What a `config.toml` says of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundPath {
    /// It names these directories, the first of which counts.
    Named(String),
    /// It names none; our part would.
    Unnamed(ConfigPath),
    /// There is no CRI; `ctr` and nerdctl are told the directory, or know it.
    NoCri,
}

/// Where `hosts.toml` files are looked for by custom.
pub(crate) const CERTS_DIR: &str = "/etc/containerd/certs.d";

/// The CRI's registries in a file that we begin; containerd 1 and 2 both read it.
const VERSION: i64 = 2;

// === impl ConfigPath ===

impl ConfigPath {
    /// What the file `text` has; an empty one is none.
    pub(crate) fn find(text: &str) -> Result<FoundPath, EditError> {
        let document = toml_text::parse(text)?;
        if is_without_cri(&document) {
            return Ok(FoundPath::NoCri);
        }
        let plugin = plugin(&document)?;
        let table = ["plugins", plugin, "registry"];
        let registry = toml_text::find(document.as_table(), &table);
        let path = registry.and_then(|registry| registry.get("config_path")?.as_str());
        if let Some(path) = path.filter(|path| !path.is_empty()) {
            let first = path.split(':').next().unwrap_or(path);
            return Ok(FoundPath::Named(first.to_owned()));
        }
        let has = |key: &str| registry.is_some_and(|registry| registry.get(key).is_some());
        if let Some(old) = ["mirrors", "configs"].into_iter().find(|key| has(key)) {
            return Err(EditError::Shape(format!(
                "{}.{old} is the older way, with which containerd takes no config_path: move it into hosts.toml files first",
                table.join(".")
            )));
        }
        Ok(FoundPath::Unnamed(Self {
            table: table.map(str::to_owned).to_vec(),
            directory: CERTS_DIR.to_owned(),
        }))
    }

    pub(super) fn put_in(&self, text: &str) -> Result<String, EditError> {
        let mut document = toml_text::parse(text)?;
        if document.is_empty() {
            document.insert("version", value(VERSION));
        }
        let mut table: &mut dyn TableLike = document.as_table_mut();
        for name in &self.table {
            table = toml_text::table_in(table, name)?;
        }
        let is_named = table.get("config_path").and_then(Item::as_str);
        if is_named.is_none_or(str::is_empty) {
            table.insert("config_path", value(&self.directory));
        }
        Ok(document.to_string())
    }

    pub(super) fn take_out(&self, text: &str) -> Result<String, EditError> {
        let mut document = toml_text::parse(text)?;
        let path: Vec<&str> = self.table.iter().map(String::as_str).collect();
        let found = toml_text::find(document.as_table(), &path);
        let is_ours = found
            .and_then(|table| table.get("config_path")?.as_str())
            .is_some_and(|directory| directory == self.directory);
        if !is_ours {
            return Ok(text.to_owned());
        }
        let mut table: &mut dyn TableLike = document.as_table_mut();
        for name in &path {
            table = toml_text::table_in(table, name)?;
        }
        table.remove("config_path");
        toml_text::prune(document.as_table_mut(), &path);
        if document.len() == 1 && document.contains_key("version") {
            document.remove("version");
        }
        Ok(document.to_string())
    }
}

fn is_without_cri(document: &DocumentMut) -> bool {
    let disabled = document.get("disabled_plugins").and_then(Item::as_array);
    let is_cri = |name: &str| name == "cri" || name.ends_with(".cri") || name.contains(".cri.");
    disabled.is_some_and(|names| names.iter().any(|name| name.as_str().is_some_and(is_cri)))
}

/// The plugin that has the registries, by the version of the file.
fn plugin(document: &DocumentMut) -> Result<&'static str, EditError> {
    let Some(version) = document.get("version") else {
        // The first version has no number, and a file with nothing in it is ours to begin.
        let is_ours = document.is_empty();
        return Ok(if is_ours {
            "io.containerd.grpc.v1.cri"
        } else {
            "cri"
        });
    };
    match version.as_integer() {
        Some(1) => Ok("cri"),
        Some(2) => Ok("io.containerd.grpc.v1.cri"),
        Some(3 | 4) => Ok("io.containerd.cri.v1.images"),
        Some(_) | None => Err(EditError::Shape(
            "the version of this file is not known; set config_path of the CRI's registries by hand"
                .to_owned(),
        )),
    }
}
