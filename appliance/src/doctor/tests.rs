//! What is said of facts as they are found.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    facts::{Certificate, Disk, Facts, Greeting, Listener, Node, Pulled, Runtime, Setup, Upstream},
    judge::{Level, judge},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const GIB: u64 = 1 << 30;

fn now() -> SystemTime {
    UNIX_EPOCH + DAY * 20_000
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A host on which everything is well.
fn well() -> Facts {
    let proxy = address("0.0.0.0:65001");
    Facts {
        now: now(),
        configuration_problem: None,
        data_dir: PathBuf::from("/data"),
        disk: Ok(Disk {
            free: 10 * GIB,
            min_free: GIB,
            is_writable: true,
            is_open: false,
        }),
        node: Ok(Node {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: "ready".to_owned(),
            listeners: [("proxy".to_owned(), vec![proxy])].into(),
        }),
        listeners: vec![Listener {
            name: "proxy".to_owned(),
            address: proxy,
            answered: Ok(()),
        }],
        certificates: vec![Certificate {
            of: "the certificate".to_owned(),
            renewal: "renew it".to_owned(),
            validity: Ok((now() - DAY, now() + DAY * 365)),
        }],
        upstreams: vec![upstream("docker.io", true)],
        runtimes: vec![Runtime {
            name: "docker",
            is_installed: true,
            setup: Ok(Setup::Recorded {
                missing: Vec::new(),
                is_port_named: true,
            }),
        }],
        pull: Some(Ok(Pulled {
            image: "docker.io/library/hello-world:latest".to_owned(),
            blob: "sha256:00".to_owned(),
            len: 7,
        })),
        is_default_image: true,
        port: 65001,
    }
}

fn upstream(registry: &str, is_configured: bool) -> Upstream {
    Upstream {
        registry: registry.to_owned(),
        is_configured,
        answer: Ok(Greeting {
            status: 401,
            has_challenge: true,
            dates: Some((now(), now())),
        }),
        login_problem: None,
    }
}

/// What is found besides that all is well: `level what mend` of each.
fn found(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = well();
    change(&mut facts);
    let findings = judge(&facts).into_iter();
    let ill = findings.filter(|finding| finding.level != Level::Ok);
    ill.map(|finding| finding.to_string()).collect()
}

/// One finding alone, which begins and ends so.
#[track_caller]
fn check(change: impl FnOnce(&mut Facts), begins: &str, ends: &str) {
    let found = found(change);
    let [one] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(one.starts_with(begins) && one.ends_with(ends), "{one}");
}

#[test]
fn a_host_on_which_all_is_well_has_nothing_but_ok() {
    let findings = judge(&well());
    assert!(findings.iter().all(|finding| finding.level == Level::Ok));
    assert!(findings.iter().all(|finding| finding.mend.is_empty()));
    assert_eq!(findings.len(), 9, "{findings:?}");
}

#[test]
fn every_problem_of_the_configuration_is_told_in_one_line() {
    check(
        |facts| facts.configuration_problem = Some("line 1: a\n  line 2: b\n".to_owned()),
        "fail  line 1: a; line 2: b  correct the file",
        "every problem in it",
    );
}

#[test]
fn a_disk_is_told_of_before_and_when_nothing_is_kept_any_more() {
    let disk = |free, is_writable, is_open| {
        move |facts: &mut Facts| {
            facts.disk = Ok(Disk {
                free,
                min_free: GIB,
                is_writable,
                is_open,
            });
        }
    };
    check(
        disk(GIB - 1, true, false),
        "fail  the disk of /data has",
        "min_free",
    );
    check(
        disk(2 * GIB - 1, true, false),
        "warn  the disk of /data has",
        "storage_quota",
    );
    check(
        disk(2 * GIB, true, true),
        "warn  others than",
        "chmod go-w /data",
    );
    check(
        disk(GIB, false, false),
        "fail  the data directory /data is not",
        "that user",
    );
    check(
        |facts| facts.disk = Err("no such".to_owned()),
        "fail  the data directory /data: no such",
        "the user of the node",
    );
}

#[test]
fn a_certificate_is_judged_by_the_clock_of_this_host() {
    let holds =
        |from, until| move |facts: &mut Facts| facts.certificates[0].validity = Ok((from, until));
    let second = Duration::from_secs(1);
    check(
        holds(now() + second, now() + DAY * 99),
        "fail  the certificate holds from",
        "set-ntp true",
    );
    check(
        holds(now() - DAY, now()),
        "fail  the certificate has ended",
        "  renew it",
    );
    check(
        holds(now() - DAY, now() + DAY * 14 - second),
        "warn  the certificate ends at",
        "  renew it",
    );
    assert!(found(holds(now(), now() + DAY * 14)).is_empty());
}

#[test]
fn a_node_that_does_not_run_and_who_has_its_port_are_told_apart() {
    let found = found(|facts| {
        facts.node = Err("no node runs".to_owned());
        facts.pull = None;
    });
    assert!(
        found[0].starts_with("fail  no node runs  start it"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("fail  somebody else answers at proxy 0.0.0.0:65001"),
        "{found:?}"
    );
    check(
        |facts| facts.listeners[0].answered = Err("refused".to_owned()),
        "fail  nobody answers at proxy 0.0.0.0:65001: refused",
        "the log of the node",
    );
    check(
        |facts| facts.node.as_mut().unwrap().phase = "draining".to_owned(),
        "warn  the node is draining",
        "waits for",
    );
    check(
        |facts| facts.node.as_mut().unwrap().version = "0.0.1".to_owned(),
        "warn  the node is Darter 0.0.1",
        "restart the node",
    );
}

#[test]
fn the_clock_is_wrong_where_no_registry_agrees_with_it() {
    let by = |seconds| {
        move |facts: &mut Facts| {
            let theirs = now() - Duration::from_secs(seconds);
            facts.upstreams[0].answer.as_mut().unwrap().dates = Some((theirs, now()));
        }
    };
    assert!(found(by(30)).is_empty());
    check(by(31), "warn  the clock differs by 31s", "set-ntp true");
    check(by(301), "fail  the clock differs by 5m 1s", "set-ntp true");
    let one_agrees = found(|facts| {
        by(301)(facts);
        facts.upstreams.push(upstream("r.test", true));
    });
    assert!(one_agrees.is_empty(), "{one_agrees:?}");
}

#[test]
fn what_mends_a_registry_is_told_by_what_is_wrong_with_it() {
    for (problem, mend) in [
        (
            "r.test cannot be reached: invalid peer certificate: UnknownIssuer",
            "check the clock",
        ),
        ("r.test cannot be reached: dns error", "getent hosts r.test"),
        (
            "r.test cannot be reached: Connection refused (os error 111)",
            "correct its endpoint",
        ),
        (
            "r.test leads to a private address, which this registry is not trusted with",
            "[[proxy.registry]]",
        ),
        (
            "r.test cannot be reached: received corrupt message",
            "with http://",
        ),
        ("nothing came within 15s", "upstream_proxy"),
    ] {
        let broken = |is_configured| {
            move |facts: &mut Facts| {
                facts.upstreams.push(Upstream {
                    answer: Err(problem.to_owned()),
                    ..upstream("r.test", is_configured)
                });
            }
        };
        check(broken(true), &format!("fail  r.test: {problem}  "), mend);
        check(broken(false), &format!("warn  r.test: {problem}  "), mend);
    }
    for (status, begins) in [
        (401, "fail  docker.io answers 401"),
        (404, "fail  docker.io answers 404"),
        (429, "warn  docker.io answers 429"),
        (503, "fail  docker.io answers 503"),
    ] {
        let answers = |facts: &mut Facts| {
            let answer = facts.upstreams[0].answer.as_mut().unwrap();
            (answer.status, answer.has_challenge) = (status, false);
        };
        check(answers, begins, "");
    }
    check(
        |facts| facts.upstreams[0].login_problem = Some("/f: denied".to_owned()),
        "fail  the login for docker.io cannot be read: /f: denied",
        "docker_config names",
    );
}

#[test]
fn a_runtime_is_told_of_where_it_does_not_come_here() {
    let is = |is_installed, setup| {
        move |facts: &mut Facts| {
            facts.port = 7;
            facts.runtimes[0].is_installed = is_installed;
            facts.runtimes[0].setup = setup;
        }
    };
    let recorded = |missing: &[&str], is_port_named| {
        let missing = missing.iter().map(PathBuf::from).collect();
        Ok(Setup::Recorded {
            missing,
            is_port_named,
        })
    };
    let command = "  darter setup docker --port 7";
    assert!(found(is(false, Ok(Setup::None))).is_empty());
    assert!(found(is(true, Ok(Setup::ByHand))).is_empty());
    let mut facts = well();
    is(false, Ok(Setup::ByHand))(&mut facts);
    assert_eq!(judge(&facts).len(), 8);
    check(
        is(true, Ok(Setup::None)),
        "warn  docker is not pointed here",
        command,
    );
    check(
        is(true, recorded(&[], false)),
        "fail  docker is not pointed at port 7",
        command,
    );
    check(
        is(false, recorded(&["/a", "/b"], true)),
        "fail  docker: /a and /b was changed",
        "--undo",
    );
    check(
        is(true, Err("denied".to_owned())),
        "warn  whether docker",
        "set it up",
    );
}

#[test]
fn a_host_without_the_internet_is_told_that_no_pull_was_tried_out() {
    let apart = |is_default_image| {
        move |facts: &mut Facts| {
            facts.upstreams[0].is_configured = false;
            facts.upstreams[0].answer = Err("dns error".to_owned());
            facts.pull = Some(Err("hello-world: 502".to_owned()));
            facts.is_default_image = is_default_image;
        }
    };
    let told = found(apart(true));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[1].starts_with("warn  no pull was tried out"),
        "{told:?}"
    );
    let told = found(apart(false));
    assert!(told[1].starts_with("fail  hello-world: 502"), "{told:?}");
    check(
        |facts| facts.pull = Some(Err("hello-world: 502".to_owned())),
        "fail  hello-world: 502",
        "has more",
    );
}
