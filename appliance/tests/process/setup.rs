//! `darter setup` on files as they lie on a disk: what it shows, what it writes, what it takes back.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::running::command;

const RUNTIMES: [&str; 7] = [
    "docker",
    "containerd",
    "podman",
    "crio",
    "buildkit",
    "k3s",
    "rke2",
];
/// Those that are set up as clients of a mirror alone.
const MIRRORED: [&str; 2] = ["k3s", "rke2"];

const DAEMON: &str = "etc/docker/daemon.json";
const HOSTS: &str = "etc/containerd/certs.d/docker.io/hosts.toml";
const CONTAINERS: &str = "etc/containers/registries.conf.d/50-darter.conf";
const BUILDKITD: &str = "etc/buildkit/buildkitd.toml";
const K3S: &str = "etc/rancher/k3s/registries.yaml";
const RKE2: &str = "etc/rancher/rke2/registries.yaml";

/// A machine's files, and the data directory of its node.
struct Machine {
    folder: TempDir,
}

struct Told {
    out: String,
    err: String,
}

// === impl Machine ===

impl Machine {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("root"))?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        Ok(fs::write(path, text)?)
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path).with_context(|| format!("{}", path.display()))
    }

    fn run(&self, words: &[&str]) -> Result<(bool, Told)> {
        let mut setup = command();
        setup.arg("setup").args(words);
        setup.arg("--root").arg(self.path(""));
        setup.arg("--data-dir").arg(self.folder.path().join("data"));
        let output = setup.stderr(Stdio::piped()).output()?;
        let told = Told {
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        };
        Ok((output.status.success(), told))
    }

    fn setup(&self, words: &[&str]) -> Result<Told> {
        let (is_ok, told) = self.run(words)?;
        ensure!(is_ok, "{words:?}: {}", told.err);
        Ok(told)
    }

    fn refusal(&self, words: &[&str]) -> Result<String> {
        let (is_ok, told) = self.run(words)?;
        ensure!(!is_ok, "{words:?} was not refused: {}", told.err);
        Ok(told.err)
    }

    fn record(&self, runtime: &str) -> PathBuf {
        let directory = self.folder.path().join("data/setup").join(runtime);
        directory.join("record.json")
    }

    /// Every file and directory, with mode and text.
    fn all(&self) -> Result<Vec<(PathBuf, u32, String)>> {
        let mut found = Vec::new();
        let mut open = vec![self.path("")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                let mode = fs::symlink_metadata(&path)?.permissions().mode();
                let text = match path.is_dir() {
                    true => String::new(),
                    false => fs::read_to_string(&path)?,
                };
                if path.is_dir() {
                    open.push(path.clone());
                }
                found.push((path, mode, text));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// A machine on which people have written files, each in their own way.
fn lived_in() -> Result<Machine> {
    let machine = Machine::new()?;
    machine.write(DAEMON, "{\n   \"log-driver\":\"json-file\",\n   \"registry-mirrors\": [\n      \"https://old.example\"\n   ]\n}")?;
    fs::set_permissions(machine.path(DAEMON), fs::Permissions::from_mode(0o640))?;
    machine.write("etc/containerd/config.toml", "# by hand\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\tsnapshotter = \"native\" # odd\n")?;
    machine.write(HOSTS, "server = \"https://registry-1.docker.io\"\r\n\r\n# the old one\r\n[host.\"https://old.example\"]\r\n")?;
    machine.write(
        BUILDKITD,
        "debug = true # why\n\n[registry.\"docker.io\"]\n  mirrors = [ \"old.example\" ]",
    )?;
    machine.write(
        K3S,
        "# logins\nconfigs:\n  \"r.example:5000\":\n    auth: {username: a, password: b}",
    )?;
    fs::set_permissions(machine.path(K3S), fs::Permissions::from_mode(0o600))?;
    machine.write(
        "etc/containers/registries.conf",
        "unqualified-search-registries = []\n",
    )?;
    Ok(machine)
}

#[test]
fn setup_and_undo_bring_every_byte_back() -> Result<()> {
    for machine in [lived_in()?, Machine::new()?] {
        let before = machine.all()?;
        for runtime in RUNTIMES {
            let modes = ["mirror", "intercept"].into_iter();
            for mode in modes.filter(|mode| *mode == "mirror" || !MIRRORED.contains(&runtime)) {
                machine.setup(&[runtime, "--mode", mode])?;
                ensure!(machine.all()? != before, "{runtime} {mode} did nothing");
                machine.setup(&[runtime, "--undo"])?;
                assert_eq!(machine.all()?, before, "{runtime} {mode}");
                assert!(!machine.record(runtime).exists());
            }
        }
        for runtime in RUNTIMES {
            machine.setup(&[runtime])?;
        }
        for runtime in RUNTIMES {
            machine.setup(&[runtime, "--undo"])?;
        }
        assert_eq!(machine.all()?, before, "all at once");
    }
    Ok(())
}

#[test]
fn a_second_setup_changes_nothing_and_says_so() -> Result<()> {
    let machine = lived_in()?;
    for runtime in RUNTIMES {
        machine.setup(&[runtime])?;
        let before = machine.all()?;
        let told = machine.setup(&[runtime])?;
        assert!(told.err.contains("already"), "{runtime}: {}", told.err);
        assert!(!told.err.contains("then: "), "{runtime}: {}", told.err);
        assert_eq!(machine.all()?, before);
        let shown = machine.setup(&[runtime, "--dry-run"])?;
        assert_eq!(shown.out, "", "{runtime}");
    }
    Ok(())
}

#[test]
fn a_dry_run_shows_the_very_change_and_makes_none() -> Result<()> {
    let machine = lived_in()?;
    let before = machine.all()?;
    let told = machine.setup(&["docker", "--dry-run"])?;
    assert!(
        told.out.contains("\n+      \"http://localhost:65001\",\n"),
        "{}",
        told.out
    );
    assert!(
        told.out.contains("\n       \"https://old.example\"\n"),
        "{}",
        told.out
    );
    assert!(told.err.contains("would be changed"), "{}", told.err);
    assert!(
        told.err.contains("then: systemctl reload docker"),
        "{}",
        told.err
    );
    let told = machine.setup(&["podman", "--dry-run"])?;
    assert!(told.out.starts_with("--- /dev/null\n+++ "), "{}", told.out);
    assert!(
        told.err.contains("would be made") && told.err.contains("nothing to restart"),
        "{}",
        told.err
    );
    assert_eq!(machine.all()?, before);
    assert!(!machine.folder.path().join("data").exists());
    machine.setup(&["podman"])?;
    let told = machine.setup(&["podman", "--undo", "--dry-run"])?;
    assert!(
        told.out.contains("+++ /dev/null\n") && told.err.contains("would be removed"),
        "{}{}",
        told.out,
        told.err
    );
    assert!(machine.path(CONTAINERS).exists());
    Ok(())
}

#[test]
fn what_people_write_after_a_setup_stays_through_a_setup_and_an_undo() -> Result<()> {
    let machine = lived_in()?;
    machine.setup(&["docker"])?;
    let edited = machine.text(DAEMON)?.replace("json-file", "journald");
    fs::write(machine.path(DAEMON), &edited)?;
    let told = machine.setup(&["docker"])?;
    assert!(told.err.contains("already"), "{}", told.err);
    let told = machine.setup(&["docker", "--undo"])?;
    assert!(told.err.contains("what people wrote stays"), "{}", told.err);
    let left = machine.text(DAEMON)?;
    assert_eq!(
        left,
        "{\n   \"log-driver\":\"journald\",\n   \"registry-mirrors\": [\n      \"https://old.example\"\n   ]\n}"
    );

    machine.setup(&["docker"])?;
    let edited = machine.text(DAEMON)?.replace("65001", "65001/x");
    fs::write(machine.path(DAEMON), edited)?;
    machine.setup(&["docker"])?;
    assert_eq!(
        machine
            .text(DAEMON)?
            .matches("http://localhost:65001")
            .count(),
        2
    );
    machine.setup(&["docker", "--undo"])?;
    assert!(machine.text(DAEMON)?.contains("65001/x\""));
    Ok(())
}

#[test]
fn an_edited_file_of_ours_is_refused_with_what_to_do() -> Result<()> {
    let machine = Machine::new()?;
    machine.setup(&["podman"])?;
    let edited = machine
        .text(CONTAINERS)?
        .replace("insecure = true", "insecure = false");
    fs::write(machine.path(CONTAINERS), &edited)?;
    let told = machine.refusal(&["podman", "--undo"])?;
    assert!(
        told.contains("by hand") && told.contains(&CONTAINERS[3..]),
        "{told}"
    );
    assert_eq!(machine.text(CONTAINERS)?, edited);
    Ok(())
}

#[test]
fn what_does_not_parse_is_refused_with_the_place_and_nothing_is_written() -> Result<()> {
    for (runtime, name, text, place) in [
        (
            "docker",
            DAEMON,
            "{\n  \"debug\": ,\n}\n",
            "line 2, column 12",
        ),
        (
            "containerd",
            HOSTS,
            "server = \"x\"\n[host\n",
            "line 2, column ",
        ),
        (
            "containerd",
            "etc/containerd/config.toml",
            "a = \n",
            "line 1, column 5",
        ),
        ("buildkit", BUILDKITD, "\n\n= 1\n", "line 3, column 1"),
        ("podman", CONTAINERS, "# somebody's\n", "somebody else"),
        ("k3s", K3S, "mirrors: {}\n", "line 1: it has mirrors"),
        ("rke2", RKE2, "a: b\n{}\n", "line 2: this is not plainly"),
    ] {
        let machine = Machine::new()?;
        machine.write(name, text)?;
        let before = machine.all()?;
        let told = machine.refusal(&[runtime])?;
        assert!(
            told.contains(place) && told.contains(&format!("/{name}")),
            "{told}"
        );
        assert_eq!(machine.all()?, before, "{told}");
    }
    Ok(())
}

/// A setup that was cut off after its record, and after its first file.
#[test]
fn a_setup_that_was_cut_off_is_finished_or_undone() -> Result<()> {
    let whole = lived_in()?;
    let before = whole.all()?;
    whole.setup(&["containerd"])?;
    for written in [None, Some("etc/containerd/config.toml"), Some(HOSTS)] {
        for words in [&["containerd", "--undo"][..], &["containerd"]] {
            let cut = lived_in()?;
            fs::create_dir_all(cut.record("containerd").parent().context("its directory")?)?;
            fs::copy(whole.record("containerd"), cut.record("containerd"))?;
            if let Some(written) = written {
                cut.write(written, &whole.text(written)?)?;
            }
            cut.setup(words)?;
            let all = |machine: &Machine| -> Result<Vec<String>> {
                Ok(machine
                    .all()?
                    .into_iter()
                    .map(|(_, _, text)| text)
                    .collect())
            };
            match words {
                [_, _] => assert_eq!(
                    all(&cut)?,
                    before
                        .iter()
                        .map(|(_, _, text)| text.clone())
                        .collect::<Vec<_>>()
                ),
                _ => assert_eq!(all(&cut)?, all(&whole)?),
            }
            cut.setup(&["containerd", "--undo"])?;
            assert_eq!(all(&cut)?.len(), before.len());
        }
    }
    Ok(())
}

#[test]
fn another_wish_takes_the_place_of_the_last_one() -> Result<()> {
    let machine = lived_in()?;
    let before = machine.all()?;
    machine.setup(&[
        "containerd",
        "--registry",
        "ghcr.io",
        "--registry",
        "quay.io",
    ])?;
    machine.setup(&["containerd", "--registry", "quay.io", "--port", "7"])?;
    assert!(!machine.path("etc/containerd/certs.d/ghcr.io").exists());
    let quay = machine.text("etc/containerd/certs.d/quay.io/hosts.toml")?;
    assert!(
        quay.contains("http://localhost:7\"") && !quay.contains("65001"),
        "{quay}"
    );
    machine.setup(&["containerd", "--mode", "intercept", "--registry", "a.test"])?;
    assert!(!machine.path("etc/containerd/certs.d/quay.io").exists());
    let unit = machine.text("etc/systemd/system/containerd.service.d/darter.conf")?;
    assert!(unit.contains("\nEnvironment=\"HTTPS_PROXY=http://localhost:65001\" \"NO_PROXY=localhost,127.0.0.0/8,::1\"\n"), "{unit}");
    machine.setup(&["containerd", "--undo"])?;
    assert_eq!(machine.all()?, before);
    Ok(())
}

#[test]
fn a_file_that_two_runtimes_share_stays_until_both_are_undone() -> Result<()> {
    let machine = Machine::new()?;
    machine.setup(&["podman"])?;
    machine.setup(&["crio", "--registry", "quay.io"])?;
    assert!(!machine.text(CONTAINERS)?.contains("docker.io"));
    machine.setup(&["crio", "--undo"])?;
    assert!(machine.text(CONTAINERS)?.contains("docker.io"));
    machine.setup(&["podman", "--undo"])?;
    assert!(machine.all()?.is_empty());
    Ok(())
}

#[test]
fn a_link_is_followed_and_not_replaced() -> Result<()> {
    let machine = Machine::new()?;
    machine.write("usr/share/daemon.json", "{}\n")?;
    fs::create_dir_all(machine.path("etc/docker"))?;
    symlink("/usr/share/daemon.json", machine.path(DAEMON))?;
    machine.setup(&["docker"])?;
    assert!(machine.path(DAEMON).is_symlink());
    assert!(machine.text("usr/share/daemon.json")?.contains("65001"));
    machine.setup(&["docker", "--undo"])?;
    assert_eq!(machine.text("usr/share/daemon.json")?, "{}\n");
    Ok(())
}

#[test]
fn the_registries_of_the_configuration_are_set_up_with_their_endpoints() -> Result<()> {
    let machine = Machine::new()?;
    let file = machine.folder.path().join("darter.toml");
    let data = machine.folder.path().join("data");
    fs::write(
        &file,
        format!(
            "data_dir = {data:?}\n[proxy]\nlisten = \"127.0.0.1:7000\"\n[[proxy.registry]]\nname = \"r.example:5000\"\nendpoint = \"http://10.0.0.1:5000/\"\n[[proxy.registry]]\nname = \"q.example\"\n"
        ),
    )?;
    let run = |runtime: &str| -> Result<String> {
        let mut setup = command();
        setup
            .args(["setup", runtime, "--root"])
            .arg(machine.path(""));
        let output = setup
            .arg("--config")
            .arg(&file)
            .stderr(Stdio::piped())
            .output()?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(output.status.success(), "{told}");
        Ok(told)
    };
    run("containerd")?;
    let hosts = machine.text("etc/containerd/certs.d/r.example:5000/hosts.toml")?;
    assert!(
        hosts.starts_with("server = \"http://10.0.0.1:5000\"\n")
            && hosts.contains("localhost:7000"),
        "{hosts}"
    );
    let any = machine.text("etc/containerd/certs.d/_default/hosts.toml")?;
    assert!(!any.contains("server"), "{any}");
    let told = run("podman")?;
    assert!(told.contains("r.example:5000 is left out"), "{told}");
    let containers: toml::Table = machine.text(CONTAINERS)?.parse()?;
    let mirror = &containers["registry"][0]["mirror"][0];
    assert_eq!(
        mirror["location"].as_str(),
        Some("localhost:7000/q.example")
    );
    assert_eq!(mirror["insecure"].as_bool(), Some(true));
    assert!(machine.record("podman").starts_with(&data));
    Ok(())
}

#[test]
fn what_would_break_a_runtime_is_refused_or_left_out() -> Result<()> {
    let machine = Machine::new()?;
    let told = machine.refusal(&["docker", "--registry", "ghcr.io"])?;
    assert!(told.contains("alone"), "{told}");
    machine.write(
        "etc/systemd/system/crio.service.d/proxy.conf",
        "[Service]\nEnvironment=https_proxy=http://corp\n",
    )?;
    let told = machine.refusal(&["crio", "--mode", "intercept"])?;
    assert!(
        told.contains("proxy.conf") && told.contains("already"),
        "{told}"
    );
    machine.write("etc/containerd/certs.d/ghcr.io/ca.crt", "")?;
    let told = machine.setup(&["containerd", "--registry", "ghcr.io"])?;
    assert!(told.err.contains("ghcr.io is left out"), "{}", told.err);
    Ok(())
}

#[test]
fn k3s_and_rke2_are_given_a_mirror_of_everything_and_told_to_restart() -> Result<()> {
    for (runtime, name, restart) in [
        ("k3s", K3S, "then: systemctl restart k3s, or k3s-agent"),
        (
            "rke2",
            RKE2,
            "then: systemctl restart rke2-server, or rke2-agent",
        ),
    ] {
        let machine = Machine::new()?;
        let told = machine.setup(&[runtime])?;
        assert!(told.err.contains(restart), "{}", told.err);
        let text = machine.text(name)?;
        for registry in ["docker.io", "ghcr.io", "*"] {
            let entry =
                format!("\n  \"{registry}\":\n    endpoint:\n      - \"http://localhost:65001\"\n");
            assert!(text.contains(&entry), "{text}");
        }
        // What people add later stays, through another setup and through the undo.
        let login = "configs:\n  a.test: {}\n";
        machine.write(name, &format!("{text}{login}"))?;
        machine.setup(&[runtime, "--registry", "quay.io"])?;
        let text = machine.text(name)?;
        assert!(
            text.contains("quay.io") && !text.contains("ghcr.io") && text.contains(login),
            "{text}"
        );
        machine.setup(&[runtime, "--undo"])?;
        assert_eq!(machine.text(name)?, login);
        let told = machine.refusal(&[runtime, "--mode", "intercept"])?;
        assert!(told.contains("use --mode mirror"), "{told}");
    }
    Ok(())
}

#[test]
fn who_is_intercepted_is_believed_for_its_registries_until_the_undo() -> Result<()> {
    for machine in [lived_in()?, Machine::new()?] {
        let before = machine.all()?;
        let wish = ["--mode", "intercept", "--registry", "ghcr.io"];
        for (runtime, certificates, naming) in [
            ("docker", "docker", None),
            ("podman", "containers", None),
            ("crio", "containers", None),
            (
                "containerd",
                "containerd",
                Some("etc/containerd/certs.d/ghcr.io/hosts.toml"),
            ),
            ("buildkit", "buildkit", Some(BUILDKITD)),
        ] {
            let certificate = format!("etc/{certificates}/certs.d/ghcr.io/darter-ca.crt");
            let told = machine.setup(&[&[runtime], &wish[..]].concat())?;
            assert!(
                told.err.contains("intercept = [\"ghcr.io\"]"),
                "{}",
                told.err
            );
            let text = machine.text(&certificate)?;
            assert!(text.starts_with("-----BEGIN CERTIFICATE-----\n"), "{text}");
            if let Some(naming) = naming {
                let text = machine.text(naming)?;
                let line = format!("ca = [\"/{certificate}\"]");
                assert!(text.contains(&line), "{text}");
            }
            let told = machine.setup(&[&[runtime], &wish[..]].concat())?;
            assert!(told.err.contains("already"), "{}", told.err);
            machine.setup(&[runtime, "--undo"])?;
            assert_eq!(machine.all()?, before, "{runtime}");
        }
    }
    Ok(())
}

#[test]
fn a_dry_run_makes_no_authority_and_what_dockerd_would_not_believe_is_told() -> Result<()> {
    let machine = Machine::new()?;
    let told = machine.setup(&["podman", "--mode", "intercept", "--dry-run"])?;
    assert!(
        told.out.contains("+(the certificate that is made then)"),
        "{}",
        told.out
    );
    assert!(!machine.folder.path().join("data").exists());
    let told = machine.setup(&["docker", "--mode", "intercept"])?;
    assert!(
        told.err.contains("SSL_CERT_DIR") && told.err.contains("intercept = [\"docker.io\"]"),
        "{}",
        told.err
    );
    Ok(())
}

#[test]
fn what_the_configuration_intercepts_is_set_up_and_not_asked_for_again() -> Result<()> {
    let machine = Machine::new()?;
    let file = machine.folder.path().join("darter.toml");
    let data = machine.folder.path().join("data");
    let text = format!(
        "data_dir = {data:?}\n[proxy]\nintercept = [\"quay.io\", \"*.gcr.io\"]\n[[proxy.registry]]\nname = \"a.example\"\n"
    );
    fs::write(&file, text)?;
    let mut setup = command();
    setup.args(["setup", "podman", "--mode", "intercept", "--root"]);
    setup.arg(machine.path("")).arg("--config").arg(&file);
    let output = setup.stderr(Stdio::piped()).output()?;
    let told = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{told}");
    assert!(!told.contains("intercept ="), "{told}");
    assert!(
        machine
            .path("etc/containers/certs.d/quay.io/darter-ca.crt")
            .exists()
    );
    assert!(
        !machine
            .path("etc/containers/certs.d/a.example/darter-ca.crt")
            .exists()
    );
    Ok(())
}

#[test]
fn a_record_that_somebody_else_may_have_written_is_not_believed() -> Result<()> {
    let machine = Machine::new()?;
    machine.setup(&["docker"])?;
    let record = machine.record("docker");
    assert_eq!(fs::metadata(&record)?.permissions().mode() & 0o777, 0o600);
    let directory = record.parent().context("its directory")?;
    assert_eq!(fs::metadata(directory)?.permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&record, fs::Permissions::from_mode(0o666))?;
    let told = machine.refusal(&["docker", "--undo"])?;
    assert!(told.contains("not believed"), "{told}");
    assert!(Path::new(&machine.path(DAEMON)).exists());
    Ok(())
}
