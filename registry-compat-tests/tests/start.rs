//! How a node starts on machines that are not as it would like them: each is made of namespaces, in
//! which it alone runs.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use protocol::Role;
use registry_compat_tests::{
    can_run,
    cluster::Cluster,
    darter::{Darter, Home},
    process,
};

use crate::two_hosts::FLOW_LIMIT;

/// What a machine needs for its namespaces to be made.
const PROGRAMS: [&str; 7] = ["curl", "ip", "mount", "nsenter", "setpriv", "sh", "unshare"];

const FREE_PORTS: &str = "[proxy]\nlisten = \"127.0.0.1:0\"\n[swarm]\nlisten = \"127.0.0.1:0\"\n\
                          [scheduler]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";

/// `darter run` on `home` where a shell has run `script` in namespaces of its own.
fn run_after(script: &str, home: &Home) -> Result<Command> {
    let data = home.path().join("data");
    run_with(&format!("data_dir = {data:?}\n{FREE_PORTS}"), script, home)
}

/// As [`run_after`], with this configuration.
fn run_with(config: &str, script: &str, home: &Home) -> Result<Command> {
    let config = home.write("darter.toml", config)?;
    let mut command = process::command("unshare");
    command.args(["--net", "--mount", "--", "sh", "-ec"]);
    command.arg(format!("{script}\nexec \"$0\" run --config \"$1\""));
    command.arg(home.binary()).arg(config);
    command.current_dir(home.path().join("data"));
    Ok(command)
}

/// The one sentence of a node that does not start on `home` after `script`.
fn refusal_after(script: &str, home: &Home) -> Result<String> {
    let ended = process::run(run_after(script, home)?, FLOW_LIMIT)?;
    let told = ended.output;
    ensure!(ended.status.code() == Some(1), "{}: {told}", ended.status);
    let lines = told.lines();
    let sentences: Vec<_> = lines.filter(|line| line.starts_with("darter: ")).collect();
    ensure!(sentences.len() == 1, "one sentence, not: {told}");
    Ok(sentences[0].to_owned())
}

#[test]
fn a_data_directory_that_is_full_or_not_writable_is_told_in_one_sentence() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    for (options, why) in [
        ("size=4k", "is full; free some space"),
        ("ro", "is not writable; choose another with --data-dir"),
    ] {
        let home = Home::new()?;
        let script = format!("mount -t tmpfs -o {options} darter-test \"$PWD\"");
        let told = refusal_after(&script, &home)?;
        ensure!(told.contains(why), "{options}: {told}");
        ensure!(told.contains("data directory"), "{options}: {told}");
        let left = fs::read_dir(home.path().join("data"))?.count();
        ensure!(left == 0, "{options}: {left} files beside the mount");
    }
    Ok(())
}

#[test]
fn a_machine_with_or_without_ipv6_is_listened_on_where_it_can_be() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let loopback = "ip link set lo up";
    let off = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";
    for (script, families) in [(loopback.to_owned(), 2), (format!("{off}\n{loopback}"), 1)] {
        let home = Home::new()?;
        let darter = Darter::start(run_after(&script, &home)?, &home)?;
        let log = darter.log()?;
        let warnings = log.matches("this machine has no IPv6 loopback").count();
        // One for the proxy and one for the admin port.
        ensure!(warnings == if families == 2 { 0 } else { 2 }, "{log}");
        for listener in ["proxy", "admin"] {
            let addresses = darter.listeners(listener)?;
            ensure!(addresses.len() == families, "{listener}: {addresses:?}");
        }
        darter.stop()?;
    }
    Ok(())
}

#[test]
fn containers_reach_the_mirror_at_a_bridge_that_is_made_later() -> Result<()> {
    if !can_run(&PROGRAMS)? {
        return Ok(());
    }
    let (home, roles) = (Home::new()?, [Role::Proxy]);
    let cluster = Cluster::of("127.0.0.1:9".parse()?, &[], &[])?;
    let papers = cluster.papers("node", &roles)?;
    let config = cluster.config(&home, &cluster.plan("node", &roles), Some(&papers))?;
    let also = "[proxy]\nalso_listen = [\"172.17.0.1:65001\"]\n";
    let config = config.replacen("[proxy]\n", also, 1);
    let darter = Darter::start(run_with(&config, "ip link set lo up", &home)?, &home)?;
    let inside = |script: &str| {
        let mut command = process::command("nsenter");
        let id = darter.id().to_string();
        command.args(["--target", &id, "--net", "--", "sh", "-ec", script]);
        process::run(command, FLOW_LIMIT)
    };
    let ask = || inside("curl -s -o /dev/null -m 5 -w %{http_code} http://172.17.0.1:65001/v2/");
    let early = ask()?;
    ensure!(!early.status.success(), "{}", early.output);
    let made = inside(
        "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up",
    )?;
    ensure!(made.status.success(), "{}", made.output);
    let ping = ask()?;
    ensure!(ping.output.trim() == "200", "{}", ping.output);
    darter.stop()
}
