//! Commands that print and end.

use std::process::Command;

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `darter` with `arguments`, with no environment of ours.
fn darter(arguments: &[&str]) -> anyhow::Result<Ended> {
    let output = Command::new(env!("CARGO_BIN_EXE_darter"))
        .args(arguments)
        .env_clear()
        .output()?;
    Ok(Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}

#[test]
fn the_version_is_that_of_the_package() -> anyhow::Result<()> {
    let ended = darter(&["--version"])?;
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (Some(0), concat!("darter ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    Ok(())
}

#[test]
fn a_resolved_configuration_is_one_that_checks() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("darter.toml");
    std::fs::write(&file, "connections_max = 7\n")?;
    let ended = darter(&["check-config", &file.to_string_lossy()])?;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(
        ended.out.contains("connections_max = 7\n") && ended.out.contains("65009"),
        "{}",
        ended.out
    );
    std::fs::write(&file, &ended.out)?;
    assert_eq!(
        darter(&["check-config", &file.to_string_lossy()])?.out,
        ended.out
    );
    Ok(())
}

#[test]
fn a_bad_configuration_is_told_whole_and_ends_with_1() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("darter.toml");
    std::fs::write(&file, "connections_max = 0\ndata_dri = \"/x\"\n")?;
    let ended = darter(&["check-config", &file.to_string_lossy()])?;
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
    assert_eq!(ended.err.lines().count(), 3, "{}", ended.err);
    Ok(())
}

#[test]
fn a_missing_configuration_is_named() -> anyhow::Result<()> {
    let ended = darter(&["check-config", "/nowhere/darter.toml"])?;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .err
            .starts_with("darter: /nowhere/darter.toml cannot be read: No such file"),
        "{}",
        ended.err
    );
    Ok(())
}
