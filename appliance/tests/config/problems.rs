//! What is told of a file that cannot be used: everything, at once, with lines.

use appliance::config::{BUILT_ROLES, read};
use protocol::Role;

use crate::papers::papers;

/// Reads `text` and compares the problems, one a line.
#[track_caller]
fn check(text: &str, expect: &[&str]) {
    let problems = read(text).err().unwrap_or_default();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, expect, "{text}");
}

#[test]
fn an_empty_file_is_the_default() {
    check("", &[]);
    check("# nothing\n", &[]);
}

#[test]
fn a_misspelt_key_is_told_with_the_nearest_known_one() {
    check(
        "data_dri = \"/x\"",
        &["line 1: data_dri: is no known key; did you mean `data_dir`?"],
    );
    check(
        "\n[admin]\nlisen = 1",
        &["line 3: admin.lisen: is no known key; did you mean `listen`?"],
    );
    check(
        "[admim]\n",
        &["line 1: admim: is no known key; did you mean `admin`?"],
    );
    check(
        "[identity]\nzzz = 1",
        &["line 2: identity.zzz: is no known key; known here: ca, cert, key"],
    );
}

#[test]
fn every_problem_is_told_at_once() {
    check(
        "drain_timeout = \"soon\"\ncolour = 1\nconnections_max = 0\n[admin]\nlisten = \"here\"\n",
        &[
            "line 1: drain_timeout: invalid value: string \"soon\", expected a duration",
            "line 2: colour: is no known key; known here: data_dir, roles, drain_timeout, connections_max, log_format, identity, proxy, swarm, scheduler, seed, admin",
            "line 3: connections_max: must be at least 1",
            "line 5: admin.listen: invalid socket address syntax",
        ],
    );
}

#[test]
fn a_rate_that_is_none_or_too_slow_is_told() {
    check(
        "[swarm]\nserve_rate = \"fast\"\nfetch_rate = \"64kbit/s\"\nsource_rate = \"0MB/s\"\nprefetch_rate = \"10MiB/s\"\n",
        &[
            "line 2: swarm.serve_rate: `fast` is no rate; a rate is written as in \"50MB/s\", \"200Mbit/s\" or \"unlimited\"",
            "line 3: swarm.fetch_rate: must be at least 1Mbit/s, or pieces take longer than anybody waits",
            "line 4: swarm.source_rate: nothing could move at a rate of 0; write \"unlimited\" for no limit",
        ],
    );
}

#[test]
fn a_role_that_is_not_built_is_refused_by_name() {
    check(
        "roles = [\"manager\", \"proxy\", \"cook\"]",
        &[
            "line 1: roles: the manager role is not in this version; remove it",
            "line 1: roles: `cook` is no role; the roles are manager, scheduler, seed, proxy",
        ],
    );
    check(
        "roles = []",
        &["line 1: roles: must name at least one of scheduler, seed, proxy"],
    );
    check(
        "[manager]\nlisten = \"127.0.0.1:65003\"",
        &["line 1: manager: the manager role is not in this version; remove its table"],
    );
}

#[test]
fn certificate_files_come_together() {
    check(
        "[identity]\nca = \"ca.pem\"\nkey = \"key.pem\"",
        &["line 1: identity.cert: is missing: ca, cert and key are given together or not at all"],
    );
    let missing = |line, key: &str, file: &str| {
        format!(
            "line {line}: identity.{key}: {file} cannot be read: No such file or directory (os error 2)"
        )
    };
    check(
        "[identity]\nca = \"/no/ca\"\ncert = \"/no/cert\"\nkey = \"/no/key\"",
        &[
            &missing(2, "ca", "/no/ca"),
            &missing(3, "cert", "/no/cert"),
            &missing(4, "key", "/no/key"),
        ],
    );
}

#[test]
fn what_is_wrong_in_certs_d_is_told_with_its_file() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let own = folder.path().join("ghcr.io");
    std::fs::create_dir_all(own.join("b.cert"))?;
    std::fs::write(own.join("a.crt"), "none")?;
    std::fs::write(own.join("b.key"), "none")?;
    let own = own.display();
    check(
        &format!("[proxy]\ncerts_d = [\"/none\", {:?}]\n", folder.path()),
        &[
            &format!("line 2: proxy.certs_d: {own}/a.crt holds no certificate"),
            &format!("line 2: proxy.certs_d: {own}/b.cert cannot be read: it is no file"),
        ],
    );
    let large = std::fs::File::create(folder.path().join("large.pem"))?;
    large.set_len((4 << 20) + 1)?;
    let large = folder.path().join("large.pem");
    check(
        &format!("[[proxy.registry]]\nname = \"r.example\"\nca = {large:?}\n"),
        &[&format!(
            "line 1: proxy.registry[r.example].ca: {} cannot be read: it has more than 4194304 bytes",
            large.display()
        )],
    );
    Ok(())
}

#[test]
fn a_role_that_the_certificate_does_not_give_is_told() -> anyhow::Result<()> {
    let (folder, table) = papers(&[Role::Proxy])?;
    check(&format!("roles = [\"proxy\"]\n{table}"), &[]);
    let cert = folder.path().join("cert.pem");
    check(
        &format!("roles = [\"proxy\", \"seed\"]\n{table}"),
        &[&format!(
            "line 4: identity.cert: the certificate in {} does not give this host the role seed; its roles are in the URI name",
            cert.display()
        )],
    );
    Ok(())
}

#[test]
fn nothing_listens_to_others_before_the_host_has_an_identity() -> anyhow::Result<()> {
    let admin = "[admin]\nlisten = \"0.0.0.0:65009\"\n";
    check(
        admin,
        &["line 2: admin.listen: must be a loopback address while [identity] is not set"],
    );
    let bridge = "[proxy]\nalso_listen = [\"172.17.0.1:65001\"]\n";
    check(
        bridge,
        &["line 2: proxy.also_listen: must be a loopback address while [identity] is not set"],
    );
    let (_folder, table) = papers(&BUILT_ROLES)?;
    check(&format!("{admin}{bridge}{table}"), &[]);
    check(
        "[proxy]\nalso_listen = [\"127.0.0.1:65001\"]",
        &["line 2: proxy.also_listen: 127.0.0.1:65001 is an address of proxy.listen already"],
    );
    Ok(())
}

#[test]
fn a_port_that_is_redirected_to_is_a_listener_like_all_others() {
    let listen = |address: &str| {
        format!("[proxy]\nintercept = [\"ghcr.io\"]\ntransparent_listen = \"{address}\"\n")
    };
    check(&listen("127.0.0.1:65443"), &[]);
    check(
        &listen("0.0.0.0:65443"),
        &[
            "line 3: proxy.transparent_listen: must be a loopback address while [identity] is not set",
        ],
    );
    check(
        &listen("127.0.0.1:65001"),
        &[
            "line 3: proxy.transparent_listen: 127.0.0.1:65001 is an address of proxy.listen already",
        ],
    );
    check(
        &listen("65443"),
        &["line 3: proxy.transparent_listen: `65443` is not written address:port"],
    );
    check(
        "[proxy]\ntransparent_listen = \"127.0.0.1:65443\"",
        &["line 2: proxy.transparent_listen: is of no use while proxy.intercept names nothing"],
    );
}

#[test]
fn what_is_intercepted_may_be_asked_and_who_tunnels_is_one_of_three() {
    check(
        "[proxy]\nintercept = [\"evil.example\", \"*\"]\n",
        &[
            "line 2: proxy.intercept: evil.example is not a registry that may be asked: give it a \
             [[proxy.registry]] or allow it",
            "line 2: proxy.intercept: \"*\": a pattern is a host name with `*` for whole labels, and \
             must end with at least two labels that are written out",
        ],
    );
    check(
        "[proxy]\ntunnel = \"everyone\"",
        &[
            "line 2: proxy.tunnel: unknown variant `everyone`, expected one of `none`, `local`, `any`",
        ],
    );
}

#[test]
fn a_text_that_is_no_toml_is_told_by_line() {
    let problems = read("data_dir = \n[admin\n").err().unwrap_or_default();
    assert!(
        problems.iter().any(|problem| problem.line() == 1),
        "{problems:?}"
    );
}
