//! Edits of files as people have written them.

use super::*;

const URL: &str = "http://localhost:65001";

fn docker() -> Edit {
    Edit::DockerMirror {
        url: URL.to_owned(),
    }
}

fn hosts(server: Option<&str>) -> Edit {
    Edit::ContainerdHost {
        url: URL.to_owned(),
        server: server.map(str::to_owned),
    }
}

fn buildkit() -> Edit {
    Edit::BuildkitMirrors {
        authority: "localhost:65001".to_owned(),
        registries: vec!["docker.io".to_owned(), "ghcr.io".to_owned()],
    }
}

fn registries_yaml() -> Edit {
    Edit::RegistriesYaml {
        url: URL.to_owned(),
        registries: vec!["docker.io".to_owned(), "*".to_owned()],
    }
}

fn config_path(text: &str) -> Edit {
    match ConfigPath::find(text) {
        Ok(FoundPath::Unnamed(path)) => Edit::ContainerdConfigPath(path),
        other => panic!("{other:?}"),
    }
}

/// `text` becomes `put`, a second time changes nothing, and taken out it is `left`.
#[track_caller]
fn check(edit: &Edit, text: &str, put: &str, left: Option<&str>) {
    assert_eq!(edit.put_in(text).as_deref(), Ok(put), "put in");
    assert_eq!(edit.put_in(put).as_deref(), Ok(put), "put in twice");
    assert!(edit.stands_in(put) && !edit.stands_in(text), "stands in");
    let taken = edit.take_out(put);
    assert_eq!(
        taken.as_ref().map(|left| left.as_deref()),
        Ok(left),
        "taken out"
    );
    let untouched = edit.take_out(text).unwrap();
    assert!(
        untouched.is_none_or(|left| left == text),
        "nothing to take out"
    );
}

#[track_caller]
fn refused(edit: &Edit, text: &str, told: &str) {
    for error in [
        edit.put_in(text).unwrap_err(),
        edit.take_out(text).unwrap_err(),
    ] {
        assert!(error.to_string().starts_with(told), "{error}");
    }
}

#[test]
fn a_mirror_is_put_first_and_the_look_of_daemon_json_stays() {
    let alone = "{\n  \"registry-mirrors\": [\"http://localhost:65001\"]\n}\n";
    check(&docker(), "", alone, None);
    check(
        &docker(),
        "{\n\t\"debug\": true\n}\n",
        "{\n\t\"debug\": true,\n\t\"registry-mirrors\": [\"http://localhost:65001\"]\n}\n",
        Some("{\n\t\"debug\": true\n}\n"),
    );
    check(
        &docker(),
        "{\n    \"registry-mirrors\": [ \"https://other\" ],\n      \"odd\" : {\"a\":1}}",
        "{\n    \"registry-mirrors\": [\"http://localhost:65001\",  \"https://other\" ],\n      \"odd\" : {\"a\":1}}",
        Some("{\n    \"registry-mirrors\": [\"https://other\" ],\n      \"odd\" : {\"a\":1}}"),
    );
    check(
        &docker(),
        "{\"registry-mirrors\": [\n    \"https://other\"\n  ]\n}",
        "{\"registry-mirrors\": [\n    \"http://localhost:65001\",\n    \"https://other\"\n  ]\n}",
        Some("{\"registry-mirrors\": [\n    \"https://other\"\n  ]\n}"),
    );
}

#[test]
fn a_mirror_that_people_put_elsewhere_in_the_list_stays_there() {
    let text = r#"{"registry-mirrors": ["https://other", "http://localhost:65001/"]}"#;
    assert!(docker().stands_in(text));
}

#[test]
fn a_daemon_json_that_docker_would_not_read_is_refused_with_the_place() {
    refused(
        &docker(),
        "{\n  \"debug\": true,\n}",
        "line 3, column 1: trailing comma",
    );
    refused(&docker(), "{\n  // why\n}", "line 2, column 3: ");
    refused(&docker(), "[]", "the file must be an object");
    assert!(docker().put_in(r#"{"registry-mirrors": "x"}"#).is_err());
}

#[test]
fn our_host_is_asked_before_the_others_and_comments_stay() {
    check(
        &hosts(Some("https://ghcr.io")),
        "",
        "server = \"https://ghcr.io\"\n\n[host.\"http://localhost:65001\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        None,
    );
    check(
        &hosts(None),
        "",
        "[host.\"http://localhost:65001\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        None,
    );
    let text = "# ours since 2019\nserver = \"https://r.example\" # the real one\n\n# the old mirror\n[host.\"https://old\"]\n    skip_verify = true\n";
    check(
        &hosts(None),
        text,
        "# ours since 2019\nserver = \"https://r.example\" # the real one\n\n[host.\"http://localhost:65001\"]\ncapabilities = [\"pull\", \"resolve\"]\n\n# the old mirror\n[host.\"https://old\"]\n    skip_verify = true\n",
        Some(text),
    );
    refused(&hosts(None), "server = \n", "line 1, column 10: ");
    assert!(hosts(None).put_in("host = 1").is_err());
}

#[test]
fn the_directory_of_hosts_is_named_by_the_version_of_the_file() {
    check(
        &config_path(""),
        "",
        "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
        None,
    );
    let second = "version = 2\n# why\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\" # odd\n";
    check(
        &config_path(second),
        second,
        &format!(
            "{second}\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n"
        ),
        Some(second),
    );
    let third = "version = 3\n";
    check(
        &config_path(third),
        third,
        "version = 3\n\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
        None,
    );
    let first = "root = \"/x\"\n";
    check(
        &config_path(first),
        first,
        "root = \"/x\"\n\n[plugins.cri.registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
        Some(first),
    );
}

#[test]
fn what_containerd_has_already_decides() {
    let find = |text: &str| ConfigPath::find(text);
    let cri = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n";
    assert_eq!(
        find(&format!("{cri}config_path = \"/a:/b\"\n")),
        Ok(FoundPath::Named("/a".to_owned()))
    );
    assert!(matches!(
        find(&format!("{cri}config_path = \"\"\n")),
        Ok(FoundPath::Unnamed(_))
    ));
    assert_eq!(find("disabled_plugins = [\"cri\"]\n"), Ok(FoundPath::NoCri));
    let old = find(&format!(
        "{cri}[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n"
    ));
    assert!(old.unwrap_err().to_string().contains("older way"));
    assert!(find("version = 9\n").is_err());
    let syntax = find("version = 2\n[plugins\n").unwrap_err();
    assert!(
        syntax.to_string().starts_with("line 2, column "),
        "{syntax}"
    );
}

#[test]
fn builders_keep_their_own_mirrors_behind_ours() {
    let own = "[registry.\"localhost:65001\"]\nhttp = true\n";
    let mirrors = "mirrors = [\"localhost:65001\"]\n";
    check(
        &buildkit(),
        "",
        &format!("[registry.\"docker.io\"]\n{mirrors}\n[registry.\"ghcr.io\"]\n{mirrors}\n{own}"),
        None,
    );
    let text =
        "debug = true # why\n[registry.\"docker.io\"]\n  mirrors = [\"old.example\"] # kept\n";
    check(
        &buildkit(),
        text,
        &format!(
            "debug = true # why\n[registry.\"docker.io\"]\n  mirrors = [\"localhost:65001\", \"old.example\"] # kept\n\n[registry.\"ghcr.io\"]\n{mirrors}\n{own}"
        ),
        Some(
            "debug = true # why\n[registry.\"docker.io\"]\n  mirrors = [ \"old.example\"] # kept\n",
        ),
    );
    refused(&buildkit(), "[registry\n", "line 1, column ");
    assert!(buildkit().put_in("registry = 1\n").is_err());
}

#[test]
fn a_file_of_ours_is_given_up_with_what_people_added_left_over() {
    let own = Edit::Own {
        text: format!("{OWN_HEADER}a = 1\n"),
    };
    let put = format!("{OWN_HEADER}a = 1\n");
    check(&own, "", &put, None);
    let added = format!("{put}b = 2\n");
    assert!(own.stands_in(&added));
    assert_eq!(own.take_out(&added), Ok(Some("b = 2\n".to_owned())));
    let edited = format!("{OWN_HEADER}a = 3\n");
    assert!(
        own.take_out(&edited)
            .unwrap_err()
            .to_string()
            .contains("by hand")
    );
    assert!(
        own.put_in("b = 2\n")
            .unwrap_err()
            .to_string()
            .contains("move it away")
    );
    assert_eq!(own.put_in(&edited), Ok(put));
}

#[test]
fn a_record_of_today_is_read_tomorrow() {
    for edit in [docker(), hosts(None), config_path(""), buildkit()] {
        let text = serde_json::to_string(&edit).unwrap();
        assert_eq!(serde_json::from_str::<Edit>(&text).unwrap(), edit, "{text}");
    }
}

#[test]
fn an_authority_is_named_beside_those_that_people_name() {
    let containerd = Edit::ContainerdAuthority {
        certificate: "/c/darter-ca.crt".to_owned(),
        server: Some("https://a.test".to_owned()),
    };
    check(
        &containerd,
        "",
        "server = \"https://a.test\"\nca = [\"/c/darter-ca.crt\"]\n",
        None,
    );
    check(
        &containerd,
        "ca = [\"/theirs\"] # why\nserver = \"https://b.test\"\n\n[host.\"https://m\"]\n",
        "ca = [\"/theirs\", \"/c/darter-ca.crt\"] # why\nserver = \"https://b.test\"\n\n[host.\"https://m\"]\n",
        Some("ca = [\"/theirs\"] # why\nserver = \"https://b.test\"\n\n[host.\"https://m\"]\n"),
    );
    let one = containerd.put_in("ca = \"/theirs\"\n").unwrap_err();
    assert_eq!(one.to_string(), "ca must be a list");
    let buildkit = Edit::BuildkitAuthorities {
        certificates: vec![("a.test".to_owned(), "/b/darter-ca.crt".to_owned())],
    };
    check(
        &buildkit,
        "debug = true\n",
        "debug = true\n\n[registry.\"a.test\"]\nca = [\"/b/darter-ca.crt\"]\n",
        Some("debug = true\n"),
    );
}

#[test]
fn a_certificate_of_ours_is_renewed_and_nothing_else_is_written_over() {
    let pem = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n");
    let edit = Edit::Certificate { text: pem("new") };
    check(&edit, "", &pem("new"), None);
    assert_eq!(edit.put_in(&pem("old")), Ok(pem("new")));
    assert_eq!(edit.take_out(&pem("newer")), Ok(None));
    assert!(edit.put_in("a key\n").is_err());
    assert_eq!(edit.take_out("a key\n"), Ok(Some("a key\n".to_owned())));
}

/// What [`registries_yaml`] puts into a file.
const MIRRORS: &str = "# Made by `darter setup`; `darter setup --undo` removes it.\n\
    mirrors:\n  \"docker.io\":\n    endpoint:\n      - \"http://localhost:65001\"\n  \
    \"*\":\n    endpoint:\n      - \"http://localhost:65001\"\n\
    # The end of what `darter setup` made.\n";

#[test]
fn mirrors_are_put_behind_what_else_a_registries_yaml_has() {
    check(&registries_yaml(), "", MIRRORS, None);
    let theirs = "---\n# why\nconfigs: # of ours\n  \"r.example:5000\":\n    auth: {username: a,\n      password: \"mirrors: \"}\n\n";
    check(
        &registries_yaml(),
        theirs,
        &format!("{theirs}{MIRRORS}"),
        Some(theirs),
    );
    // What people write around it stays.
    let edited = format!("# mine\n{MIRRORS}configs:\n  x: {{}}\n");
    let taken = registries_yaml().take_out(&edited);
    assert_eq!(
        taken.unwrap().as_deref(),
        Some("# mine\nconfigs:\n  x: {}\n")
    );
    // Another wish takes the place of an earlier one of which there is no record.
    let other = edited.replace("docker.io", "quay.io");
    assert_eq!(registries_yaml().put_in(&other).as_ref(), Ok(&edited));
    let told = registries_yaml().take_out(&other).unwrap_err().to_string();
    assert!(told.contains("was edited"), "{told}");
    let unended = registries_yaml().put_in("configs: {}");
    assert_eq!(unended, Ok(format!("configs: {{}}\n{MIRRORS}")));
}

#[test]
fn a_registries_yaml_that_a_key_cannot_simply_be_put_behind_is_refused_with_what_to_add() {
    for (text, told) in [
        ("mirrors:\n  docker.io:\n", "line 1: it has mirrors already"),
        ("configs:\n  a: b\nmirrors: {}\n", "line 3: it has mirrors"),
        ("\"mirrors\":\n", "line 1: this is not plainly"),
        ("'mirrors': {}\n", "line 1: "),
        ("? mirrors\n: {}\n", "line 1: "),
        ("{mirrors: {}}\n", "line 1: "),
        ("configs: {\n}\n", "line 2: "),
        ("a: &x {}\n<<: *x\n", "line 2: "),
        ("  configs:\n  mirrors:\n", "line 1: "),
        ("# one\n---\na: b\n---\nc: d\n", "line 4: "),
        ("a: b\n---\n", "line 2: "),
        ("a: b\n...\n", "line 2: "),
        ("%YAML 1.2\n---\n", "line 1: "),
        ("a:\n\tb: c\n", "line 2: "),
        ("\u{feff}a: b\n", "line 1: "),
        ("- mirrors\n", "line 1: "),
    ] {
        let error = registries_yaml().put_in(text).unwrap_err().to_string();
        assert!(error.starts_with(told), "{text:?}: {error}");
        assert!(error.ends_with(MIRRORS), "{error}");
        let left = registries_yaml().take_out(text).unwrap();
        assert_eq!(left.as_deref(), Some(text));
    }
}
