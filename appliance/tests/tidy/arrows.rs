//! The arrows between the crates, held against their manifests: who may import whom, who may know
//! gRPC, and who may bind a socket.

use std::collections::BTreeSet;

use super::{
    report,
    source::{files, members, read},
};

/// Every crate and the crates of this tree that it may import. Services never import each other.
const ARROWS: [(&str, &[&str]); 8] = [
    ("protocol", &[]),
    ("swarm", &["protocol"]),
    ("proxy", &["swarm", "protocol"]),
    ("seed", &["swarm", "protocol"]),
    ("scheduler", &["protocol"]),
    (
        "appliance",
        &["proxy", "seed", "swarm", "scheduler", "protocol"],
    ),
    ("registry-compat-tests", &["protocol"]),
    ("benchmarks", &["registry-compat-tests", "protocol"]),
];

/// Crates outside the tree that only one of ours may name, and who.
const HOMES: [(&str, &[&str]); 5] = [
    ("tonic", &["protocol", "registry-compat-tests"]),
    ("tonic-prost", &["protocol", "registry-compat-tests"]),
    ("prost", &["protocol", "registry-compat-tests"]),
    (
        "clap",
        &["appliance", "benchmarks", "registry-compat-tests"],
    ),
    (
        "tracing-subscriber",
        &["appliance", "benchmarks", "registry-compat-tests"],
    ),
];

const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

fn dependencies(manifest: &toml::Table) -> BTreeSet<&str> {
    let tables = DEPENDENCY_TABLES
        .iter()
        .filter_map(|table| manifest.get(*table)?.as_table());
    tables
        .flat_map(toml::Table::keys)
        .map(String::as_str)
        .collect()
}

fn problems_of(member: &str, manifest: &toml::Table) -> Vec<String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member) else {
        return vec![format!(
            "{member}: draw its arrows in the design and in arrows.rs"
        )];
    };
    let mut problems = Vec::new();
    for dependency in dependencies(manifest) {
        let is_ours = ARROWS.iter().any(|(name, _)| *name == dependency);
        if is_ours && !allowed.contains(&dependency) {
            problems.push(format!(
                "{member} imports {dependency}; the design has no such arrow: let both speak through protocol"
            ));
        }
        let home = HOMES.iter().find(|(name, _)| *name == dependency);
        if home.is_some_and(|(_, homes)| !homes.contains(&member)) {
            problems.push(format!(
                "{member} depends on {dependency}, which has its home elsewhere (arrows.rs)"
            ));
        }
    }
    let inherits = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"));
    if inherits != Some(&toml::Value::Boolean(true)) {
        problems.push(format!(
            "{member}: write `[lints] workspace = true` in its manifest"
        ));
    }
    problems
}

#[test]
fn the_arrows_between_crates_are_those_of_the_design() -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for member in members()? {
        let manifest: toml::Table = read(&format!("{member}/Cargo.toml"))?.parse()?;
        problems.extend(problems_of(&member, &manifest));
    }
    report(&problems);
    Ok(())
}

#[test]
fn only_the_appliance_binds_sockets() -> anyhow::Result<()> {
    let outside = |path: &str| {
        ["protocol/", "swarm/", "proxy/", "seed/", "scheduler/"]
            .iter()
            .any(|crate_| path.starts_with(crate_))
    };
    let mut problems = Vec::new();
    for file in files()?.iter().filter(|file| outside(&file.path)) {
        for line in file.production_lines() {
            if line.text.contains("Listener::bind") {
                let path = &file.path;
                problems.push(format!(
                    "{path}:{}: take a listener; only appliance binds",
                    line.number
                ));
            }
        }
    }
    report(&problems);
    Ok(())
}

#[test]
fn a_wrong_arrow_is_found() {
    let manifest = "[lints]\nworkspace = true\n[dependencies]\nscheduler.workspace = true\ntonic.workspace = true\n";
    let manifest: toml::Table = manifest.parse().unwrap();
    assert_eq!(problems_of("proxy", &manifest).len(), 2);
    assert_eq!(problems_of("protocol", &manifest).len(), 1);
    assert!(problems_of("nobody", &manifest)[0].contains("draw its arrows"));
}
