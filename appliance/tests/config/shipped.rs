//! `deploy/config/darter.toml` shows every key at its default, and no other.

use std::collections::BTreeSet;

use anyhow::Context as _;
use appliance::config::{RawConfig, read};

const SHIPPED: &str = include_str!("../../../deploy/config/darter.toml");

/// The shipped file with the tables in it that stand behind a `#` with no space.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        Some(_) | None => line.to_owned(),
    };
    SHIPPED.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Every key below `value`, as in `proxy.registry.name`.
fn keys(prefix: &str, value: &toml::Value, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, inner) in table {
                let key = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                keys(&key, inner, found);
                found.insert(key);
            }
        }
        toml::Value::Array(array) => array
            .iter()
            .for_each(|element| keys(prefix, element, found)),
        _ => {}
    }
}

#[test]
fn the_shipped_file_is_the_default() -> anyhow::Result<()> {
    let (raw, _config) = read(SHIPPED).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    assert_eq!(raw, RawConfig::default());
    Ok(())
}

/// The file as shipped and the file as the code writes it have the same keys, so that a key that
/// is new in either is missed in the other.
#[test]
fn the_shipped_file_shows_every_key() -> anyhow::Result<()> {
    let shown: toml::Table = uncommented()
        .parse()
        .context("what stands behind # is TOML too")?;
    let (raw, _config) =
        read(&uncommented()).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let (mut in_file, mut in_code) = (BTreeSet::new(), BTreeSet::new());
    keys("", &toml::Value::Table(shown), &mut in_file);
    keys("", &toml::Value::try_from(raw)?, &mut in_code);
    let missing: Vec<_> = in_code.difference(&in_file).collect();
    assert!(
        missing.is_empty(),
        "show these keys in deploy/config/darter.toml: {missing:?}"
    );
    Ok(())
}
