//! Credentials are planted at every way in, used and refused, and then looked for in everything that
//! Darter leaves behind or shows: logs at their loudest, metrics, answers, files, its own process.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use registry_compat_tests::{
    can_run,
    http::Whole,
    token_registry::{Door, Settings, TokenForm, basic},
};

use crate::rights::{Form, OTHER, OWNER, Stage};

/// The longest file that is looked through; nothing here is longer.
const FILE_LEN_MAX: u64 = 256 << 20;

/// What was planted, and what it is called in a failure.
#[derive(Default)]
struct Planted(Vec<(&'static str, String)>);

// === impl Planted ===

impl Planted {
    fn plant(&mut self, what: &'static str, secret: &str) {
        assert!(secret.len() > 8, "too short to be found by chance");
        self.0.push((what, secret.to_owned()));
    }

    fn is_not_in(&self, place: &str, bytes: &[u8]) -> Result<()> {
        // Secrets are ASCII, which stays as it is.
        let text = String::from_utf8_lossy(bytes);
        for (what, secret) in &self.0 {
            ensure!(!text.contains(secret), "the {what} is in {place}");
        }
        Ok(())
    }

    fn is_in_no_file_below(&self, directory: &Path) -> Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let place = entry.path().display().to_string();
            self.is_not_in("the name of a file", place.as_bytes())?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                count += self.is_in_no_file_below(&entry.path())?;
            } else if kind.is_file() {
                ensure!(
                    entry.metadata()?.len() <= FILE_LEN_MAX,
                    "{place} is too long"
                );
                self.is_not_in(&place, &fs::read(entry.path())?)?;
                count += 1;
            }
        }
        Ok(count)
    }
}

#[test]
fn what_is_planted_is_found_nowhere() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    for token_form in [TokenForm::Opaque, TokenForm::Jwt] {
        let settings = Settings {
            token_form,
            ..Settings::default()
        };
        let stage = Stage::start_logging("trace", settings, "tag_ttl = \"0s\"")?;
        let planted = use_all(&stage)?;
        planted.is_not_in("/metrics", stage.darter.metrics()?.as_bytes())?;
        let log = stage.darter.log()?;
        ensure!(log.contains("\"TRACE\""), "not everything was logged");
        planted.is_not_in("the log", log.as_bytes())?;
        let files = planted.is_in_no_file_below(stage.home())?;
        ensure!(files > 5, "no more than {files} files");
        for name in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{name}", stage.darter.id());
            planted.is_not_in(&path, &fs::read(&path)?)?;
        }
        let home = stage.stop()?;
        planted.is_in_no_file_below(home.path())?;
    }
    Ok(())
}

/// Every kind of credential in every way that it is used, and that it fails.
fn use_all(stage: &Stage) -> Result<Planted> {
    let mut planted = Planted::default();
    planted.plant("password", OWNER.1);
    let login = basic(OWNER.0, OWNER.1);
    planted.plant("password as it is sent", login.trim_start_matches("Basic "));
    let wrong = basic(OTHER.0, "a-wrong-password");
    planted.plant("wrong password", "a-wrong-password");
    planted.plant(
        "wrong password as it is sent",
        wrong.trim_start_matches("Basic "),
    );
    let token = stage.registry.token(OWNER.0, OWNER.1, "team/own")?;
    planted.plant("token", &token);
    let revoked = stage.registry.token(OWNER.0, OWNER.1, "team/own")?;
    planted.plant("revoked token", &revoked);
    stage.registry.revoke(&revoked);
    let refresh = stage.registry.refresh_token(OWNER.0)?;
    planted.plant("refresh token", &refresh);
    planted.plant("path of a forbidden redirect", "signature-of-another");
    planted.plant("query of a realm", "secret-of-the-realm");
    let (own, revoked) = (format!("Bearer {token}"), format!("Bearer {revoked}"));
    // A refresh token is no credential for a registry, and may come as one by mistake.
    let refresh = format!("Bearer {refresh}");
    let authorizations = [&own, &login, &wrong, &revoked, &refresh];
    let ask = |rest: &str| -> Result<()> {
        for form in Form::ALL {
            for authorization in authorizations {
                for method in ["GET", "HEAD"] {
                    let request = form.request(method, ("registry.test", "team/own"), rest);
                    let request = request.header("Authorization", authorization);
                    shows_nothing(&planted, &request.fetch(stage.proxy)?)?;
                }
            }
        }
        Ok(())
    };
    let content = stage.put("planted")?;
    for rest in [
        format!("blobs/{}", content.digest),
        format!("manifests/{}", content.manifest_digest),
        "manifests/no-such-tag".to_owned(),
        "tags/list".to_owned(),
        format!("referrers/{}", content.manifest_digest),
    ] {
        ask(&rest)?;
    }
    fail_all(stage, &planted, &own)?;
    let used = stage.registry.heard_of(Door::Storage, "GET", "");
    ensure!(!used.is_empty() && !stage.registry.heard_with(&own).is_empty());
    // What the registry has signed.
    for signature in stage.registry.signatures() {
        planted.plant("signature", &signature);
    }
    Ok(planted)
}

/// The storage host fails, is forbidden and is another's, each time behind an address with a secret in
/// it; then tokens are to be had nowhere.
fn fail_all(stage: &Stage, planted: &Planted, own: &str) -> Result<()> {
    let cold = |seed: &str| Ok::<_, anyhow::Error>(format!("blobs/{}", stage.put(seed)?.digest));
    let store = stage.evil.address(Door::Storage);
    let ask = |rest: &str| -> Result<()> {
        for form in Form::ALL {
            let request = form.request("GET", ("registry.test", "team/own"), rest);
            let whole = request.header("Authorization", own).fetch(stage.proxy)?;
            shows_nothing(planted, &whole)?;
        }
        Ok(())
    };
    stage
        .registry
        .change(|rules| rules.signature_life = Duration::ZERO);
    ask(&cold("expired")?)?;
    stage.registry.change(|rules| {
        rules.other_storage = Some("https://10.255.255.1/signature-of-another".to_owned());
    });
    ask(&cold("forbidden")?)?;
    stage.registry.change(|rules| {
        rules.other_storage = Some(format!("https://{store}/signature-of-another"));
    });
    ask(&cold("elsewhere")?)?;
    // Where tokens are to be had may be a secret too.
    stage.registry.change(|rules| {
        rules.other_realm = Some("https://10.255.255.1/token?key=secret-of-the-realm".to_owned());
    });
    ask(&cold("realm")?)
}

fn shows_nothing(planted: &Planted, whole: &Whole) -> Result<()> {
    // A challenge is passed on as it is: who asks needs its realm.
    let mut headers = whole.headers.clone();
    headers.retain(|(name, _)| name != "www-authenticate");
    planted.is_not_in("a header", format!("{headers:?}").as_bytes())?;
    planted.is_not_in("an answer", &whole.body)
}
