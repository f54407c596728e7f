//! One TLS provider: what may not be in the lock file, and what clippy is told to hold.

use std::process::Command;

use anyhow::Context as _;

use super::{report, source::read};

const BANNED: [&str; 5] = [
    "openssl",
    "openssl-sys",
    "native-tls",
    "tokio-native-tls",
    "hyper-tls",
];

/// `ring` stands in the lock as an optional dependency of this package, which no feature of ours
/// turns on.
const LISTS_RING: &str = "rustls-webpki";

fn problems_of(lock: &toml::Table) -> Vec<String> {
    let packages = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut problems = Vec::new();
    for package in &packages {
        let name = package
            .get("name")
            .and_then(toml::Value::as_str)
            .unwrap_or_default();
        if BANNED.contains(&name) {
            problems.push(format!(
                "Cargo.lock has {name}; turn off the default features that pull it in"
            ));
        }
        let dependencies = package.get("dependencies").and_then(toml::Value::as_array);
        let needs_ring = dependencies
            .into_iter()
            .flatten()
            .any(|name| name.as_str() == Some("ring"));
        if needs_ring && name != LISTS_RING {
            problems.push(format!(
                "{name} depends on ring; choose its aws-lc-rs feature"
            ));
        }
    }
    problems
}

#[test]
fn the_lock_file_has_one_tls_provider() -> anyhow::Result<()> {
    report(&problems_of(&read("Cargo.lock")?.parse()?));
    Ok(())
}

#[test]
fn ring_is_not_built() -> anyhow::Result<()> {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--offline",
            "--edges",
            "all",
            "--prefix",
            "none",
            "--invert",
            "ring",
        ])
        .current_dir(super::source::root())
        .output()
        .context("cargo cannot be started")?;
    anyhow::ensure!(
        tree.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let told = String::from_utf8_lossy(&tree.stdout);
    anyhow::ensure!(
        told.trim().is_empty(),
        "ring is built; find the feature that pulls it in:\n{told}"
    );
    Ok(())
}

#[test]
fn a_second_tls_provider_is_found() {
    let lock = "[[package]]\nname = \"openssl\"\n[[package]]\nname = \"rcgen\"\ndependencies = [\"ring\"]\n\
                [[package]]\nname = \"rustls-webpki\"\ndependencies = [\"ring\"]\n";
    assert_eq!(problems_of(&lock.parse().unwrap()).len(), 2);
}

#[test]
fn clippy_holds_the_rules_of_the_style() -> anyhow::Result<()> {
    let clippy: toml::Table = read("clippy.toml")?.parse()?;
    let mut problems = Vec::new();
    let thresholds = [
        ("too-many-lines-threshold", 70),
        ("too-many-arguments-threshold", 6),
        ("excessive-nesting-threshold", 7),
    ];
    for (key, value) in thresholds {
        if clippy.get(key).and_then(toml::Value::as_integer) != Some(value) {
            problems.push(format!("clippy.toml: {key} must be {value}"));
        }
    }
    let disallowed = read("clippy.toml")?;
    for path in [
        "std::time::Instant::now",
        "tokio::spawn",
        "tokio::sync::mpsc::unbounded_channel",
        "std::env::var",
    ] {
        if !disallowed.contains(&format!("\"{path}\"")) {
            problems.push(format!(
                "clippy.toml: put {path} back among the disallowed methods"
            ));
        }
    }
    report(&problems);
    Ok(())
}
