//! What an operator asks of a node that runs alone: status, explain, preheat.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Output, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::running::{FREE_PORTS, Running, command};

/// Runs `darter` with `words` for the node on `folder`.
fn operate(folder: &Path, words: &[&str]) -> Result<Output> {
    let mut command = command();
    command
        .args(words)
        .arg("--data-dir")
        .arg(folder.join("data"));
    Ok(command.stderr(Stdio::piped()).output()?)
}

/// Its sentence, if it failed with one.
fn refused(folder: &Path, words: &[&str]) -> Result<String> {
    let output = operate(folder, words)?;
    anyhow::ensure!(output.status.code() == Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr)?;
    anyhow::ensure!(
        told.starts_with("darter: ") && told.lines().count() == 1,
        "{told}"
    );
    Ok(told)
}

fn digest() -> String {
    format!("sha256:{}", "0".repeat(64))
}

#[test]
fn status_is_told_to_programs_as_well() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let _node = Running::up(folder.path(), FREE_PORTS)?;
    // Whoever explains has waited for the session to be open.
    operate(folder.path(), &["explain", &digest()])?;
    let status: Value = {
        let output = operate(folder.path(), &["status", "--json"])?;
        serde_json::from_slice(&output.stdout)?
    };
    assert_eq!(status["phase"], "ready");
    assert_eq!(
        status["sessions"],
        serde_json::json!({"open": 1, "known": 1})
    );
    assert_eq!(status["downloads"], serde_json::json!([]));
    assert_eq!(status["bytes"]["source"], 0);
    assert_eq!(status["scheduler"]["host_count"], 1);
    assert_eq!(status["scheduler"]["hosts"][0]["is_seed"], true);
    Ok(())
}

#[test]
fn a_watched_status_is_shown_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let _node = Running::up(folder.path(), FREE_PORTS)?;
    let mut watch = command()
        .args(["status", "--watch", "--data-dir"])
        .arg(folder.path().join("data"))
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(watch.stdout.take().context("stdout is piped")?).lines();
    let mut shown = lines
        .map_while(Result::ok)
        .filter(|line| line.starts_with("darter "));
    let twice = (shown.next(), shown.next());
    watch.kill()?;
    watch.wait()?;
    assert!(
        matches!(&twice, (Some(first), Some(second)) if first == second),
        "{twice:?}"
    );
    Ok(())
}

#[test]
fn explain_tells_of_a_content_that_nobody_is_getting() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let _node = Running::up(folder.path(), FREE_PORTS)?;
    let output = operate(folder.path(), &["explain", &digest()])?;
    let told = String::from_utf8(output.stdout)?;
    assert!(
        told.contains("at the scheduler local\nnobody is getting it now"),
        "{told}"
    );
    let output = operate(
        folder.path(),
        &["explain", &digest(), "--host", "local", "--json"],
    )?;
    let told: Value = serde_json::from_slice(&output.stdout)?;
    // The scheduler knows nothing of the task, so it has nobody to judge.
    let alone = serde_json::json!([{"host": "local", "state": null, "candidates": []}]);
    assert_eq!(told["children"], alone);
    Ok(())
}

#[test]
fn a_preheat_that_cannot_be_done_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // A port on which nobody listens: it was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let registry =
        format!("[[proxy.registry]]\nname = \"away.test\"\nendpoint = \"http://{nobody}\"\n");
    let _node = Running::up(folder.path(), &format!("{FREE_PORTS}{registry}"))?;
    let told = refused(folder.path(), &["preheat", "No Image"])?;
    assert!(told.contains("is no image name"), "{told}");
    let told = refused(folder.path(), &["preheat", "a", "--platform", "linux"])?;
    assert!(told.contains("os/architecture"), "{told}");
    let told = refused(folder.path(), &["preheat", "evil.example/a"])?;
    assert!(told.contains("evil.example"), "{told}");
    let told = refused(folder.path(), &["preheat", "away.test/a", "--scope", "all"])?;
    assert!(told.contains("away.test"), "{told}");
    Ok(())
}

#[test]
fn a_preheat_asks_a_node_that_runs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let told = refused(folder.path(), &["preheat", "nginx"])?;
    assert!(told.contains("no node runs on "), "{told}");
    Ok(())
}
