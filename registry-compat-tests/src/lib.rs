//! The harness of the compatibility tests and of the benchmarks: real registries, real clients,
//! sealed rooms for both, and the running `darter` binary, all made and removed by the test.
//!
//! Everything is synchronous but the registry that misbehaves on purpose: a test drives processes
//! and sockets one step after another and says what it waits for.

pub mod authority;
pub mod cable;
pub mod clients;
pub mod cluster;
pub mod content;
pub mod darter;
pub mod fault_registry;
pub mod http;
pub mod image;
pub mod member;
pub mod namespace;
pub mod noise;
pub mod own_registry;
pub mod process;
pub mod registry;
pub mod relay;
pub mod star;
pub mod token_registry;
pub mod web_proxy;

use std::{fs, path::Path};

use anyhow::{Result, bail};

/// Says whether a test that needs root and installed programs can run here.
///
/// # Errors
/// Something is missing and the run is one in which a skip is a failure (`CI=true`).
pub fn can_run(programs: &[&str]) -> Result<bool> {
    let mut missing: Vec<String> = programs
        .iter()
        .filter(|program| !installed(program))
        .map(|program| format!("{program} is not installed"))
        .collect();
    if !rustix::process::geteuid().is_root() {
        missing.push("not root".to_owned());
    }
    if missing.is_empty() {
        return Ok(true);
    }
    if skip_is_failure() {
        bail!("cannot run here: {}", missing.join(", "));
    }
    // Direct output, not captured: a skip must be seen in a passing run.
    let told = format!("SKIPPED: {}\n", missing.join(", "));
    let _nobody_listens = std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes());
    Ok(false)
}

#[expect(
    clippy::disallowed_methods,
    reason = "only the harness may know that it runs in CI"
)]
fn skip_is_failure() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

fn installed(program: &str) -> bool {
    ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .any(|directory| fs::metadata(Path::new(directory).join(program)).is_ok())
}
