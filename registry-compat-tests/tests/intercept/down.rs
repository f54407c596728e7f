//! A node on which Darter does not run: that is no registry that is down.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    clients::{Client, Naming, Own, Reference, Visit},
    namespace::DARTER_UID,
    process,
};

use super::{
    LIMIT,
    transparent::{Scene, programs, rules},
};

/// The shipped unit.
const UNIT: &str = "../deploy/systemd/darter.service";

/// The command that the unit has for `key`, in a line that an operator takes the `#` from.
fn command_of(key: &str) -> Result<Vec<String>> {
    let unit = fs::read_to_string(UNIT)?;
    let line = unit.lines().find_map(|line| {
        let line = line.strip_prefix('#').unwrap_or(line);
        line.strip_prefix(key)?.strip_prefix('=')
    });
    let line = line.with_context(|| format!("the unit has no {key}"))?;
    let words = line.trim_start_matches(['-', '+']).split(' ');
    Ok(words.map(str::to_owned).collect())
}

#[test]
fn where_it_is_killed_the_unit_takes_its_rules_away() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let scene = Scene::open(&rules(&DARTER_UID.to_string())?)?;
    let ask = || -> Result<String> {
        let mut curl = scene.room.client("curl");
        curl.args(["--silent", "--max-time", "20", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{http_code}", "--cacert"])
            .arg(scene.papers.ca());
        curl.args(["--resolve", "registry.test:443:10.77.0.2"]);
        curl.arg("https://registry.test/v2/");
        Ok(process::run(curl, LIMIT)?.output)
    };
    scene.darter.kill()?;
    ensure!(ask()? == "000", "somebody answers at the port of the rules");
    let command = command_of("ExecStopPost")?;
    let mut undo = scene.room.client(&command[0]);
    undo.args(&command[1..]);
    process::check(undo, LIMIT)?;
    let seen = ask()?;
    ensure!(seen == "200", "{seen}");
    scene.registry.asked_only_by("curl/")
}

/// The node's own image above all has to come from somewhere then.
#[test]
fn while_it_is_down_the_files_of_setup_lead_to_the_registry_itself() -> Result<()> {
    if !can_run(&programs())? {
        return Ok(());
    }
    let scene = Scene::open("")?;
    let authority = fs::read_to_string(scene.papers.ca())?;
    let trusted = "/etc/containers/registry.pem".to_owned();
    let setups = [("podman", Client::Podman), ("containerd", Client::Ctr)];
    let setups = setups.map(|(runtime, client)| {
        anyhow::Ok((
            client,
            scene
                .home
                .setup(runtime, &["--registry", "registry.test"])?,
        ))
    });
    scene.darter.stop()?;
    for setup in setups {
        let (client, mut files) = setup?;
        ensure!(
            files
                .iter()
                .any(|(_, text)| text.contains("localhost:65001")),
            "{files:?} name no mirror"
        );
        files.push((trusted.clone(), authority.clone()));
        let visit = Visit {
            room: &scene.room,
            image: &scene.golden.image,
            naming: &Naming::Own(Own {
                name: "registry.test/team/sealed".to_owned(),
                files,
                variables: vec![("SSL_CERT_FILE".to_owned(), trusted.clone())],
            }),
            reference: Reference::Tag,
            login: None,
        };
        client.pull(&visit).with_context(|| format!("{client:?}"))?;
    }
    ensure!(!scene.registry.accesses()?.is_empty(), "who has answered?");
    Ok(())
}
