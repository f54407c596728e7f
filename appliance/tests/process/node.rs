//! A whole node: what it answers, why it does not start, how it stops.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Stdio,
};

use super::running::{FREE_PORTS, PATIENCE, Running, command, get};

/// Runs `darter up` where it cannot start and returns its sentence.
fn refusal(folder: &Path, data_dir: &Path, config: &str) -> anyhow::Result<String> {
    let file = folder.join("refused.toml");
    std::fs::write(&file, config)?;
    let output = command()
        .args(["up", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(data_dir)
        .stderr(Stdio::piped())
        .output()?;
    anyhow::ensure!(output.status.code() == Some(1), "exit {:?}", output.status);
    let told = String::from_utf8(output.stderr)?;
    let sentences: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("darter: "))
        .collect();
    anyhow::ensure!(sentences.len() == 1, "one sentence, not: {told}");
    Ok(sentences[0].to_owned())
}

/// On both families, where the machine has them: that it then listens on both is another test's.
#[test]
fn a_node_answers_wherever_it_listens() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Running::up(folder.path(), FREE_PORTS)?;
    for address in node.addresses("admin")? {
        assert!(get(address, "/livez")?.ends_with("ok\n"));
        assert!(get(address, "/healthz")?.ends_with("ok\n"));
        assert!(get(address, "/readyz")?.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics")?.contains("darter_build_info{version="));
        assert!(get(address, "/else")?.starts_with("HTTP/1.1 404"));
    }
    Ok(())
}

/// A family with no child yet does not show; those that show are in the list that users read.
#[test]
fn every_metric_is_documented() -> anyhow::Result<()> {
    const README: &str = include_str!("../../../README.md");
    let folder = tempfile::tempdir()?;
    let node = Running::up(folder.path(), FREE_PORTS)?;
    let metrics = get(node.addresses("admin")?[0], "/metrics")?;
    let families = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = families.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(
            README.contains(&format!("`{name}`")),
            "README lists no {name}"
        );
    }
    Ok(())
}

#[test]
fn the_mirror_answers_its_ping_wherever_it_listens() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Running::up(folder.path(), FREE_PORTS)?;
    for address in node.addresses("proxy")? {
        let answer = get(address, "/v2/")?;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"),
            "{answer}"
        );
        let denied = get(address, "/v2/evil.example/x/manifests/latest")?;
        assert!(
            denied.starts_with("HTTP/1.1 403") && denied.contains("DENIED"),
            "{denied}"
        );
    }
    Ok(())
}

#[test]
fn the_cache_is_listed_and_what_is_not_there_is_neither_removed_nor_pinned() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let _node = Running::up(folder.path(), FREE_PORTS)?;
    let cache = |words: &[&str]| -> anyhow::Result<(bool, String)> {
        let mut cache = command();
        cache
            .arg("cache")
            .args(words)
            .arg("--data-dir")
            .arg(folder.path().join("data"));
        let output = cache.stderr(Stdio::piped()).output()?;
        let told = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(told)?))
    };
    let (listed, told) = cache(&["ls"])?;
    assert!(listed && told.contains("0 contents"), "{told}");
    let absent = format!("sha256:{}", "0".repeat(64));
    let (removed, told) = cache(&["rm", &absent])?;
    assert!(!removed && told.contains("is not in the store"), "{told}");
    let (pinned, told) = cache(&["pin", &absent])?;
    assert!(!pinned && told.contains("is not in the store"), "{told}");
    let (unpinned, told) = cache(&["unpin", &absent])?;
    assert!(!unpinned && told.contains("is not pinned"), "{told}");
    Ok(())
}

#[test]
fn status_asks_the_running_node() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Running::up(folder.path(), FREE_PORTS)?;
    let output = command()
        .args(["status", "--data-dir"])
        .arg(folder.path().join("data"))
        .output()?;
    let told = String::from_utf8(output.stdout)?;
    assert!(output.status.success() && told.contains("ready"), "{told}");
    assert!(
        told.contains(&node.addresses("admin")?[0].to_string()),
        "{told}"
    );
    Ok(())
}

#[test]
fn status_without_a_node_says_where_it_looked() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let output = command()
        .args(["status", "--data-dir"])
        .arg(folder.path())
        .stderr(Stdio::piped())
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr)?.contains(&folder.path().display().to_string()));
    Ok(())
}

#[test]
fn a_taken_port_is_named_with_its_owner_and_its_key() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let config = FREE_PORTS.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let told = refusal(folder.path(), &folder.path().join("data"), &config)?;
    assert!(
        told.starts_with(&format!("darter: port {port} is taken by ")),
        "{told}"
    );
    assert!(
        told.contains(&format!("(pid {})", std::process::id())) && told.contains("set "),
        "{told}"
    );
    Ok(())
}

#[test]
fn a_data_directory_that_cannot_be_used_is_told_in_one_sentence() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    std::fs::write(&file, "")?;
    let told = refusal(folder.path(), &file, FREE_PORTS)?;
    assert!(
        told.contains("is not a directory; choose another"),
        "{told}"
    );
    let told = refusal(folder.path(), Path::new("/proc/darter"), FREE_PORTS)?;
    assert!(told.contains("the data directory /proc/darter"), "{told}");
    Ok(())
}

#[test]
fn a_data_directory_belongs_to_one_process() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let _first = Running::up(folder.path(), FREE_PORTS)?;
    let told = refusal(folder.path(), &folder.path().join("data"), FREE_PORTS)?;
    assert!(told.contains("is in use by another darter (pid "), "{told}");
    Ok(())
}

#[test]
fn up_binds_loopback_addresses_only() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_papers, identity) = crate::papers::papers(&appliance::config::BUILT_ROLES)?;
    let config = FREE_PORTS.replacen("127.0.0.1:0", "0.0.0.0:0", 1) + &identity;
    let told = refusal(folder.path(), &folder.path().join("data"), &config)?;
    assert!(told.contains("binds loopback addresses only"), "{told}");
    Ok(())
}

#[test]
fn a_connection_that_waits_for_its_next_request_ends_in_order() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Running::up(folder.path(), FREE_PORTS)?;
    let address = node.addresses("admin")?[0];
    let mut running = TcpStream::connect(address)?;
    running.set_read_timeout(Some(PATIENCE))?;
    // One answered request shows that the connection was accepted. No other follows; how bodies under
    // way end is a matter of `registry-compat-tests/tests/drain.rs`.
    running.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut first = [0; 12];
    running.read_exact(&mut first)?;
    assert_eq!(&first, b"HTTP/1.1 200");
    node.signal("TERM")?;
    assert_eq!(node.ended()?, Some(0));
    // The connection ended with FIN: the rest of the answer, then the end.
    let mut rest = String::new();
    running.read_to_string(&mut rest)?;
    assert!(rest.ends_with("ok\n"), "{rest}");
    assert!(
        TcpStream::connect(address).is_err(),
        "nobody listens any more"
    );
    Ok(())
}

#[test]
fn an_interrupt_ends_the_process_as_well() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Running::up(folder.path(), FREE_PORTS)?;
    node.signal("INT")?;
    assert_eq!(node.ended()?, Some(0));
    Ok(())
}
