//! `darter ca`: what it prints, and what it gives to which runtime.

use std::{
    path::Path,
    process::{Command, Output},
};

use anyhow::ensure;

fn ca(arguments: &[&str], data_dir: &Path) -> anyhow::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darter"));
    command.arg("ca").args(arguments).env_clear();
    Ok(command.arg("--data-dir").arg(data_dir).output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_authority_is_shown_with_what_it_can_speak_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let none = ca(&["show"], folder.path())?;
    ensure!(!none.status.success(), "nothing was made, nothing is shown");
    for (name, told) in [
        (
            "docker.io",
            "# speaks for: registry-1.docker.io, index.docker.io;",
        ),
        ("10.0.0.7:5000", "# speaks for: 10.0.0.7;"),
        ("localhost", "# speaks for: localhost, 127.0.0.1, ::1;"),
    ] {
        let first = said(&ca(&["show", name], folder.path())?);
        ensure!(first.contains(told), "{first}");
        ensure!(first.contains("# until: 20") && first.contains("# SHA-256: "));
        let block = first.matches("-----BEGIN CERTIFICATE-----").count();
        ensure!(block == 1 && !first.contains("PRIVATE"), "{first}");
        ensure!(
            said(&ca(&["show", name], folder.path())?) == first,
            "made anew"
        );
    }
    let all = said(&ca(&["show"], folder.path())?);
    ensure!(all.matches("# speaks for").count() == 3, "{all}");
    let bad = ca(&["show", "https://x"], folder.path())?;
    ensure!(!bad.status.success());
    Ok(())
}

#[test]
fn those_that_the_configuration_intercepts_are_shown_too() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("darter.toml");
    let text = format!(
        "data_dir = {:?}\n[proxy]\nintercept = [\"ghcr.io\", \"*.pkg.dev\"]\n",
        folder.path().join("data")
    );
    std::fs::write(&file, text)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_darter"));
    command.args(["ca", "show", "--config"]).arg(&file);
    let all = said(&command.env_clear().output()?);
    ensure!(
        all.contains("# ghcr.io\n") && all.matches("# until").count() == 1,
        "{all}"
    );
    Ok(())
}

#[test]
fn a_runtime_is_given_an_authority_for_its_registry_alone() -> anyhow::Result<()> {
    let (folder, root) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let below = root.path().to_string_lossy().into_owned();
    let install = |runtime, registry| {
        let words = ["install", runtime, "--registry", registry, "--root", &below];
        ca(&words, folder.path())
    };
    let installed = |path: &str| std::fs::read_to_string(root.path().join(path));
    ensure!(install("docker", "r.example:5000")?.status.success());
    let authority = installed("etc/docker/certs.d/r.example:5000/darter-ca.crt")?;
    ensure!(authority.starts_with("-----BEGIN CERTIFICATE-----"));
    ensure!(install("podman", "r.example:5000")?.status.success());
    let same = installed("etc/containers/certs.d/r.example:5000/darter-ca.crt")?;
    ensure!(same == authority, "one registry has one authority");
    ensure!(install("crio", "ghcr.io")?.status.success());
    let other = installed("etc/containers/certs.d/ghcr.io/darter-ca.crt")?;
    ensure!(other != authority, "each registry has its own");

    let refused = install("docker", "docker.io")?;
    let advice = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success() && advice.contains("SSL_CERT_DIR"),
        "{advice}"
    );
    ensure!(!install("podman", "localhost")?.status.success());
    Ok(())
}

#[test]
fn a_file_of_the_runtime_that_is_there_is_left_as_it_is() -> anyhow::Result<()> {
    let (folder, root) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let below = root.path().to_string_lossy().into_owned();
    let words = [
        "install",
        "containerd",
        "--registry",
        "ghcr.io",
        "--root",
        &below,
    ];
    let hosts = root
        .path()
        .join("etc/containerd/certs.d/ghcr.io/hosts.toml");
    ensure!(ca(&words, folder.path())?.status.success());
    let line = "ca = [\"/etc/containerd/certs.d/ghcr.io/darter-ca.crt\"]";
    let expect = format!("server = \"https://ghcr.io\"\n{line}\n");
    ensure!(std::fs::read_to_string(&hosts)? == expect);
    let again = ca(&words, folder.path())?;
    ensure!(
        !said(&again).contains("add this line"),
        "it names it already"
    );

    std::fs::write(&hosts, "server = \"https://ghcr.io\"\n")?;
    let told = said(&ca(&words, folder.path())?);
    ensure!(told.contains(line), "{told}");
    ensure!(std::fs::read_to_string(&hosts)? == "server = \"https://ghcr.io\"\n");
    Ok(())
}
