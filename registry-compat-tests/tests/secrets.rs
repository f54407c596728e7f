//! Credentials and signed addresses stay out of logs, metrics and errors: with everything logged
//! that can be, on every way that a secret comes in and fails.

use anyhow::{Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise},
    darter::{Darter, Home},
    fault_registry::{Fault, FaultRegistry, Guard, On, REALM_SECRET, Times},
    http::{Request, Whole},
    registry::free_address,
};

use crate::faults::Asker;

/// A password as it is sent, and as it was typed.
const CREDENTIALS: [&str; 2] = ["bWU6c2VjcmV0LXBhc3N3b3Jk", "secret-password"];
const SIGNATURE: &str = "secret-signature";

struct Stage {
    registry: FaultRegistry,
    home: Home,
    darter: Darter,
}

// === impl Stage ===

impl Stage {
    fn start(also_trust: &[String]) -> Result<Self> {
        let (registry, home) = (FaultRegistry::start()?, Home::new()?);
        let free = "listen = \"127.0.0.1:0\"";
        let config = format!(
            "data_dir = {:?}\n[proxy]\n{free}\ndefault_registry = \"registry.test\"\n\
             tag_ttl = \"0s\"\n[[proxy.registry]]\nname = \"registry.test\"\n\
             endpoint = \"http://{}\"\nalso_trust = {also_trust:?}\n\
             [swarm]\n{free}\n[scheduler]\n{free}\n[admin]\n{free}\n",
            home.path().join("data"),
            registry.address(),
        );
        let darter = Darter::run_logging("trace", &config, &home)?;
        Ok(Self {
            registry,
            home,
            darter,
        })
    }

    /// Asks as every family, with a password; no body of an error may have a secret in it.
    fn ask_all(&self, rest: &str) -> Result<()> {
        for asker in Asker::ALL {
            let request = asker.request("GET", rest);
            let authorization = format!("Basic {}", CREDENTIALS[0]);
            self.ask(&request.header("Authorization", &authorization))?;
        }
        Ok(())
    }

    fn ask(&self, request: &Request) -> Result<Whole> {
        let whole = request.fetch(self.darter.proxy()?)?;
        is_clean("an answer", &whole.text())?;
        Ok(whole)
    }

    /// A blob that the registry redirects to `store` with a signature.
    fn redirect(&self, store: &str) -> Result<String> {
        let bytes = noise(store, 10_000)?;
        let digest = digest_of(&bytes);
        self.registry.put_blob(&digest, bytes);
        let path = format!("/blobs/{digest}");
        let signed = Fault::RedirectTo(format!("http://{store}/x?signature={SIGNATURE}"));
        self.registry.fail(On::Any, &path, Times::Always, signed);
        Ok(path[1..].to_owned())
    }

    /// Reads all that the node has told anybody.
    fn ends_silent(self) -> Result<()> {
        is_clean("/metrics", &self.darter.metrics()?)?;
        let log = self.darter.log()?;
        ensure!(log.contains("\"DEBUG\""), "not everything was logged");
        is_clean("the log", &log)?;
        let kept = self.home.operate(&["cache", "ls"]).output()?;
        is_clean("cache ls", &String::from_utf8_lossy(&kept.stdout))?;
        self.darter.stop()
    }
}

fn is_clean(what: &str, text: &str) -> Result<()> {
    let secrets = CREDENTIALS.into_iter().chain([SIGNATURE, REALM_SECRET]);
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(secret));
        ensure!(line.is_none(), "{secret} in {what}: {line:?}");
    }
    Ok(())
}

#[test]
fn a_password_and_a_signed_address_are_told_nobody_whatever_the_store_does() -> Result<()> {
    let (failing, absent) = (FaultRegistry::start()?, free_address()?.to_string());
    let failing = failing.address().to_string();
    let stage = Stage::start(&[failing.clone(), absent.clone()])?;
    stage.registry.guard(Guard::Basic);
    for store in [failing, absent, "10.255.255.1".to_owned()] {
        let rest = stage.redirect(&store)?;
        stage.ask_all(&rest)?;
    }
    stage.ends_silent()
}

#[test]
fn what_a_realm_has_in_its_query_is_not_told_when_the_token_is_given_or_refused() -> Result<()> {
    let stage = Stage::start(&[])?;
    stage.registry.guard(Guard::Token);
    let bytes = noise("token", 10_000)?;
    let rest = format!("blobs/{}", digest_of(&bytes));
    stage.registry.put_blob(&digest_of(&bytes), bytes);
    stage.ask_all("manifests/no-such-tag")?;
    stage.ask_all(&rest)?;
    stage.ends_silent()?;
    for status in [401, 500] {
        let stage = Stage::start(&[])?;
        stage.registry.guard(Guard::Token);
        let refused = Fault::Status(status);
        stage
            .registry
            .fail(On::Any, "/token", Times::Always, refused);
        for rest in ["manifests/latest", &rest] {
            stage.ask_all(rest)?;
        }
        ensure!(!stage.registry.asked("/token").is_empty());
        stage.ends_silent()?;
    }
    Ok(())
}

/// A user before the host is no part of any name, and whoever writes one there may mean a password.
#[test]
fn a_user_where_a_registry_is_named_is_refused_and_not_repeated() -> Result<()> {
    let stage = Stage::start(&[])?;
    let user = format!("me:{}", CREDENTIALS[1]);
    for target in [
        format!("/v2/team/app/manifests/latest?ns={user}@registry.test"),
        format!(
            "/v2/team/app/manifests/latest?ns=me%3A{}%40registry.test",
            CREDENTIALS[1]
        ),
        format!("http://{user}@registry.test/v2/team/app/manifests/latest"),
        format!("/v2/{user}@registry.test/team/app/manifests/latest"),
        format!(
            "/v2/me%3A{}%40registry.test%2Fteam/app/manifests/latest",
            CREDENTIALS[1]
        ),
        format!("/v2/team/app/manifests/{user}@registry.test"),
        format!("/v2/team/app/blobs/{user}@registry.test"),
    ] {
        let whole = stage.ask(&Request::get(&target))?;
        ensure!(whole.status == 400, "{target}: {}", whole.status);
    }
    stage.ends_silent()
}
