//! Pure: what the facts mean, and what mends it.

use std::{fmt, time::Duration};

use bytesize::ByteSize;
use serde::Serialize;

use super::facts::{Certificate, Disk, Facts, Greeting, Listener, Runtime, Setup, Upstream};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) what: String,
    /// Empty where there is nothing to mend.
    pub(super) mend: String,
}

/// A clock that is this far off is told of, and one that is so far off that tokens and certificates
/// are not taken.
const CLOCK_WARN: Duration = Duration::from_secs(30);
const CLOCK_FAIL: Duration = Duration::from_secs(5 * 60);

/// A certificate that ends within this is told of.
const EXPIRY_WARN: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The registry of the image that is pulled where none is named.
const DEFAULT_REGISTRY: &str = "docker.io";

/// Everything that was looked at, in the order of the way that a pull takes.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![configuration(facts), disk(facts)];
    findings.extend(facts.certificates.iter().map(|one| certificate(facts, one)));
    findings.push(node(facts));
    findings.extend(listeners(facts));
    findings.extend(clock(facts));
    findings.extend(facts.upstreams.iter().flat_map(upstream));
    findings.extend(facts.runtimes.iter().filter_map(|one| runtime(facts, one)));
    findings.extend(pull(facts));
    findings
}

fn configuration(facts: &Facts) -> Finding {
    match &facts.configuration_problem {
        None => Finding::ok("the configuration can be run".to_owned()),
        Some(problem) => Finding::fail(
            problem.clone(),
            "correct the file; `darter check-config FILE` tells every problem in it",
        ),
    }
}

fn disk(facts: &Facts) -> Finding {
    let shown = facts.data_dir.display();
    let Disk {
        free,
        min_free,
        is_writable,
        is_open,
    } = match &facts.disk {
        Ok(disk) => *disk,
        Err(problem) => {
            return Finding::fail(
                format!("the data directory {shown}: {problem}"),
                "start the node, which makes it, or name another with --data-dir; look as the user of the node",
            );
        }
    };
    let room = ByteSize(free);
    if !is_writable {
        return Finding::fail(
            format!("the data directory {shown} is not writable"),
            "give it to the user of the node, or look as that user",
        );
    }
    if free < min_free {
        return Finding::fail(
            format!(
                "the disk of {shown} has {room} left, fewer than min_free ({}): nothing new is kept",
                ByteSize(min_free)
            ),
            "free some space, or lower [swarm] min_free",
        );
    }
    if is_open {
        return Finding::warn(
            format!("others than its owner may write to the data directory {shown}"),
            format!("chmod go-w {shown}"),
        );
    }
    if free < min_free.saturating_mul(2) {
        return Finding::warn(
            format!("the disk of {shown} has {room} left"),
            "free some space, or lower [swarm] storage_quota",
        );
    }
    Finding::ok(format!(
        "the data directory {shown} is writable, {room} left"
    ))
}

fn certificate(facts: &Facts, certificate: &Certificate) -> Finding {
    let of = &certificate.of;
    let (from, until) = match &certificate.validity {
        Ok(validity) => *validity,
        Err(problem) => {
            return Finding::warn(
                format!("{of} cannot be looked at: {problem}"),
                "look as the user of the node",
            );
        }
    };
    let date = humantime::format_rfc3339_seconds;
    if facts.now < from {
        return Finding::fail(
            format!("{of} holds from {} on, which is not yet", date(from)),
            "set the clock of this host: timedatectl set-ntp true",
        );
    }
    if until <= facts.now {
        return Finding::fail(
            format!("{of} has ended at {}", date(until)),
            certificate.renewal.clone(),
        );
    }
    if until < facts.now + EXPIRY_WARN {
        return Finding::warn(
            format!("{of} ends at {}", date(until)),
            certificate.renewal.clone(),
        );
    }
    Finding::ok(format!("{of} holds until {}", date(until)))
}

fn node(facts: &Facts) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    match &facts.node {
        Err(problem) => Finding::fail(
            problem.clone(),
            "start it: systemctl start darter, or darter up",
        ),
        Ok(node) if node.phase != "ready" => Finding::warn(
            format!("the node is {}", node.phase),
            "look again in a minute; its log says what it waits for",
        ),
        Ok(node) if node.version != own => Finding::warn(
            format!(
                "the node is Darter {}, and this command {own}",
                node.version
            ),
            "restart the node",
        ),
        Ok(_) => Finding::ok(format!("the node runs, Darter {own}")),
    }
}

fn listeners(facts: &Facts) -> Vec<Finding> {
    let name = |listener: &Listener| format!("{} {}", listener.name, listener.address);
    let all = facts.listeners.iter();
    if facts.node.is_err() {
        let taken = all.filter(|listener| listener.answered.is_ok());
        return taken
            .map(|listener| {
                Finding::fail(
                    format!("somebody else answers at {}", name(listener)),
                    "stop what does (ss -ltnp names it), or give Darter another port",
                )
            })
            .collect();
    }
    let failed: Vec<Finding> = all
        .clone()
        .filter_map(|listener| {
            let problem = listener.answered.as_ref().err()?;
            Some(Finding::fail(
                format!("nobody answers at {}: {problem}", name(listener)),
                "look for a firewall rule on this host's own addresses; the log of the node",
            ))
        })
        .collect();
    if failed.is_empty() {
        let names: Vec<String> = all.map(name).collect();
        return vec![Finding::ok(format!("answered: {}", names.join(", ")))];
    }
    failed
}

/// By the registry that differs least: one clock may be wrong, all are not.
fn clock(facts: &Facts) -> Option<Finding> {
    let answers = facts
        .upstreams
        .iter()
        .filter_map(|one| one.answer.as_ref().ok());
    let differences = answers.filter_map(|answer| {
        let (theirs, ours) = answer.dates?;
        Some(match ours.duration_since(theirs) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        })
    });
    let least = differences.min()?;
    let told = humantime::format_duration(Duration::from_secs(least.as_secs()));
    let what = format!("the clock differs by {told} from that of every registry");
    let mend = "set the clock of this host: timedatectl set-ntp true";
    Some(match least {
        least if CLOCK_FAIL < least => Finding::fail(what, mend),
        least if CLOCK_WARN < least => Finding::warn(what, mend),
        _ => Finding::ok("the clock agrees with a registry's".to_owned()),
    })
}

fn upstream(upstream: &Upstream) -> Vec<Finding> {
    let name = &upstream.registry;
    let mut findings = vec![match &upstream.answer {
        Ok(greeting) => greeted(name, *greeting),
        Err(problem) => {
            let mend = mend_of(problem).replace("NAME", name);
            let what = format!("{name}: {problem}");
            match upstream.is_configured {
                true => Finding::fail(what, mend),
                // Many hosts are not to reach it, and do without.
                false => Finding::warn(what, mend),
            }
        }
    }];
    findings.extend(upstream.login_problem.iter().map(|problem| {
        Finding::fail(
            format!("the login for {name} cannot be read: {problem}"),
            "let the user of the node read the file that docker_config names",
        )
    }));
    findings
}

fn greeted(name: &str, greeting: Greeting) -> Finding {
    match (greeting.status, greeting.has_challenge) {
        (200, _) => Finding::ok(format!("{name} answers")),
        (401, true) => Finding::ok(format!("{name} answers, and asks who comes")),
        (429, _) => Finding::warn(
            format!("{name} answers 429: it limits this address"),
            "wait, or give it a login by docker_config",
        ),
        (500.., _) => Finding::fail(
            format!("{name} answers {}", greeting.status),
            "the registry or what stands before it is ill: ask who runs it",
        ),
        (status, _) => Finding::fail(
            format!("{name} answers {status} to GET /v2/, as no registry does"),
            "correct the endpoint of its [[proxy.registry]]",
        ),
    }
}

/// What helps against `problem`, which a registry or the way to it has.
fn mend_of(problem: &str) -> &'static str {
    let problem = problem.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| problem.contains(word));
    if has(&["certificate", "unknownissuer"]) {
        "name the PEM file of its authority as ca in its [[proxy.registry]], and check the clock"
    } else if has(&["dns", "lookup", "name or service", "resolve", "no address"]) {
        "look at this host's DNS: getent hosts NAME"
    } else if has(&["refused"]) {
        "nobody listens there: start the registry, or correct its endpoint"
    } else if has(&["not trusted with"]) {
        "name it with its endpoint in [[proxy.registry]]"
    } else if has(&["tls", "corrupt", "invalid message"]) {
        "what answers there speaks no TLS: begin its endpoint with http://"
    } else {
        "look at routes and firewalls to it, and whether this host needs [proxy] upstream_proxy"
    }
}

fn runtime(facts: &Facts, runtime: &Runtime) -> Option<Finding> {
    let name = runtime.name;
    let command = match facts.port {
        crate::setup::PROXY_PORT => format!("darter setup {name}"),
        port => format!("darter setup {name} --port {port}"),
    };
    Some(match &runtime.setup {
        // CRI-O reads the file that is podman's, too.
        Ok(Setup::None | Setup::ByHand) if !runtime.is_installed => return None,
        Ok(Setup::None) => Finding::warn(format!("{name} is not pointed here"), command),
        Ok(Setup::ByHand) => Finding::ok(format!("{name} is pointed here by hand")),
        Ok(Setup::Recorded { missing, .. }) if !missing.is_empty() => {
            let shown: Vec<String> = missing
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            Finding::fail(
                format!(
                    "{name}: {} was changed since its setup",
                    shown.join(" and ")
                ),
                format!("{command}, or darter setup {name} --undo"),
            )
        }
        Ok(Setup::Recorded {
            is_port_named: false,
            ..
        }) => Finding::fail(
            format!("{name} is not pointed at port {}", facts.port),
            command,
        ),
        Ok(Setup::Recorded { .. }) => Finding::ok(format!("{name} is set up")),
        Err(problem) => Finding::warn(
            format!("whether {name} is set up cannot be told: {problem}"),
            "look as the user that has set it up",
        ),
    })
}

fn pull(facts: &Facts) -> Option<Finding> {
    let problem = match facts.pull.as_ref()? {
        Ok(pulled) => {
            return Some(Finding::ok(format!(
                "{} came through the node: its manifest and {} ({} bytes)",
                pulled.image, pulled.blob, pulled.len
            )));
        }
        Err(problem) => problem,
    };
    let hub = facts
        .upstreams
        .iter()
        .find(|upstream| upstream.registry == DEFAULT_REGISTRY);
    let is_apart = hub.is_none_or(|hub| !hub.is_configured && hub.answer.is_err());
    Some(if facts.is_default_image && is_apart {
        Finding::warn(
            format!("no pull was tried out: this host does not reach {DEFAULT_REGISTRY}"),
            "name an image that it does: --image REGISTRY/NAME",
        )
    } else {
        Finding::fail(
            problem.clone(),
            "see what is said of its registry above; the log of the node has more",
        )
    })
}

// === impl Finding ===

impl Finding {
    fn ok(what: String) -> Self {
        Self {
            level: Level::Ok,
            what: one_line(&what),
            mend: String::new(),
        }
    }

    fn warn(what: String, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            what: one_line(&what),
            mend: mend.into(),
        }
    }

    fn fail(what: String, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            what: one_line(&what),
            mend: mend.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        write!(f, "{level}  {}  {}", self.what, self.mend)
    }
}

fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}
