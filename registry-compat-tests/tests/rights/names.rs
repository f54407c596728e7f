//! Names, redirects and token servers that lead where Darter must not go: nobody there is connected
//! to.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{can_run, http::Request, token_registry::Door};

use super::{Form, OTHER, OWNER, Stage};

/// Where nobody may come.
struct Trap(TcpListener);

// === impl Trap ===

impl Trap {
    fn set() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.3", 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    fn address(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// A connection that was made waits in the kernel, whether or not anything was sent.
    fn is_empty(&self) -> Result<()> {
        ensure!(self.0.accept().is_err(), "somebody has connected");
        Ok(())
    }
}

#[test]
fn a_registry_that_is_named_by_a_place_inside_is_not_asked() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    // Even where patterns would let the names through, places inside are not.
    let stage = Stage::start("allow = [\"*.0.3\", \"*.169.254\", \"*.0.0.1\", \"*.0.1\"]")?;
    let (trap, digest) = (Trap::set()?, stage.put("named")?.digest);
    let port = trap.address()?.port();
    let own = stage.proxy.port();
    let mut names: Vec<String> = [
        "127.0.0.3:PORT",
        "localhost:PORT",
        "[::1]:PORT",
        "[::ffff:127.0.0.3]:PORT",
        "0x7f000003:PORT",
        "2130706435:PORT",
        "127.3:PORT",
        "0177.0.0.3:PORT",
        "127.0.0.3",
        "169.254.169.254",
        "169.254.169.254:80",
        "[fe80::1]:PORT",
        "[fd00:ec2::254]",
        "0.0.0.0:PORT",
        "10.0.0.1",
        "192.168.0.1:PORT",
        "127.0.0.1:OWN",
        "localhost:OWN",
        "[::1]:OWN",
        "ann:secret@registry.test",
        "ann@127.0.0.3:PORT",
        "registry.test@127.0.0.3:PORT",
        "registry.test/team",
        "registry.test:443/../..",
        "registry.test%23",
        "registry.test%3Fx",
        "http://127.0.0.3:PORT",
        "https://registry.test",
        "//registry.test",
        "registry.test%00",
        "registry.test%0d%0aHost:x",
        "..",
        "registry.test:PORT",
        "registry.test:99999",
        "registry.test.:PORT",
    ]
    .map(|name| {
        let name = name.replace("PORT", &port.to_string());
        name.replace("OWN", &own.to_string())
    })
    .into();
    names.push("a".repeat(300));
    for name in &names {
        for rest in [format!("blobs/{digest}"), "manifests/latest".to_owned()] {
            let by_ns = format!("/v2/team/own/{rest}?ns={name}");
            let by_prefix = format!("/v2/{name}/team/own/{rest}");
            // In a path what has a slash is the name before it, and a longer repository.
            let by_prefix = (!name.contains('/')).then_some(by_prefix);
            for target in [Some(by_ns), by_prefix].into_iter().flatten() {
                let whole = Request::get(&target).fetch(stage.proxy);
                let whole = whole.with_context(|| target.clone())?;
                let is_refused = matches!(whole.status, 400 | 403 | 404);
                // A path that climbs is another path; that nothing is answered is what counts.
                ensure!(is_refused, "{target}: {} {}", whole.status, whole.text());
            }
        }
    }
    trap.is_empty()?;
    ensure!(
        stage.registry.heard().is_empty(),
        "{:#?}",
        stage.registry.heard()
    );
    stage.darter.stop()
}

#[test]
fn a_redirect_into_the_inside_is_not_followed() -> Result<()> {
    leads_inside(|stage, url| {
        stage
            .registry
            .change(|rules| rules.other_storage = Some(url));
    })
}

#[test]
fn a_token_server_inside_is_not_asked() -> Result<()> {
    leads_inside(|stage, url| {
        stage.registry.change(|rules| rules.other_realm = Some(url));
    })
}

/// A registry that sends Darter to a trap, by `lead` and by several spellings.
fn leads_inside(lead: impl Fn(&Stage, String)) -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("")?;
    let trap = Trap::set()?;
    let port = trap.address()?.port();
    let others = stage.evil.address(Door::Storage);
    let basic = registry_compat_tests::token_registry::basic(OWNER.0, OWNER.1);
    let own = stage.bearer(OWNER, "team/own")?;
    for place in [
        format!("127.0.0.3:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.3]:{port}"),
        format!("2130706435:{port}"),
        format!("ann:x@127.0.0.3:{port}"),
        format!("registry.test@127.0.0.3:{port}"),
        // Trusted, but by another registry.
        others.to_string(),
        "169.254.169.254".to_owned(),
        "10.0.0.1".to_owned(),
        stage.proxy.to_string(),
    ] {
        for scheme in ["https", "http"] {
            let url = format!("{scheme}://{place}/x");
            lead(&stage, url.clone());
            let digest = stage.put(&url)?.digest;
            for form in Form::ALL {
                for authorization in [None, Some(&own), Some(&basic)] {
                    let target = ("registry.test", "team/own");
                    let request = form.request("GET", target, &format!("blobs/{digest}"));
                    let request = match authorization {
                        None => request,
                        Some(value) => request.header("Authorization", value),
                    };
                    let whole = request.fetch(stage.proxy)?;
                    let is_good = whole.status == 200 && whole.body.len() == super::SIZE;
                    ensure!(!is_good || authorization == Some(&own), "{url}: given");
                }
            }
        }
    }
    trap.is_empty()?;
    ensure!(
        stage.evil.heard().is_empty(),
        "another registry's store was asked"
    );
    let basics = stage.evil.heard_with(&basic);
    ensure!(basics.is_empty());
    let other = stage.bearer(OTHER, "team/others")?;
    ensure!(stage.registry.heard_with(&other).is_empty());
    stage.darter.stop()
}
