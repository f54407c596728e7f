//! This node's own login: when it is used, and what becomes of it.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use swarm::source::{
    Access, Config, Keyring, Outside, RegistryConfig, SourceError, SourceMetrics, Timeouts,
    Upstreams,
};

use super::{
    REGISTRY, credential, fetch_blob, pass,
    registry::{Registry, Reply},
};

const BODY: &[u8] = b"content";
/// `node:secret`, and another password.
const LOGIN: &str = "bm9kZTpzZWNyZXQ=";
const NEXT: &str = "bm9kZTpuZXh0";

/// A file that changes, and how often it and a helper were asked.
#[derive(Default)]
struct Keys {
    file: Mutex<String>,
    helped: Mutex<Vec<String>>,
    /// What the helper says.
    answer: Mutex<String>,
}

impl Keyring for Keys {
    fn file(&self, _: PathBuf) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        let file = self
            .file
            .lock()
            .expect("nobody panicked")
            .clone()
            .into_bytes();
        Box::pin(async move { Ok(file) })
    }

    fn helper(&self, program: String, server: String) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        self.helped
            .lock()
            .expect("nobody panicked")
            .push(format!("{program} {server}"));
        let answer = self
            .answer
            .lock()
            .expect("nobody panicked")
            .clone()
            .into_bytes();
        Box::pin(async move { Ok(answer) })
    }
}

// === impl Keys ===

impl Keys {
    fn new(file: &str) -> Arc<Self> {
        let keys = Arc::new(Self::default());
        keys.write(file);
        keys
    }

    /// A file with one password for the registry.
    fn login(auth: &str) -> Arc<Self> {
        Self::new(&password(auth))
    }

    /// A helper that knows this user and password.
    fn helper_says(&self, user: &str, secret: &str) {
        let answer = format!(r#"{{"Username":"{user}","Secret":"{secret}"}}"#);
        *self.answer.lock().expect("nobody panicked") = answer;
    }

    fn write(&self, file: &str) {
        *self.file.lock().expect("nobody panicked") = file.to_owned();
    }
}

fn password(auth: &str) -> String {
    format!(r#"{{"auths":{{"{REGISTRY}":{{"auth":"{auth}"}}}}}}"#)
}

/// [`REGISTRY`] is at `registry`, for which this node's login is in `keys`.
fn upstreams(registry: &Registry, keys: &Arc<Keys>) -> Upstreams {
    let endpoint = format!("http://{}/", registry.address);
    let entry = RegistryConfig {
        endpoints: vec![endpoint.parse().expect("a URL")],
        also_trust: Vec::new(),
        ca: Vec::new(),
        client: None,
        docker_config: Some(PathBuf::from("config.json")),
    };
    let config = Config {
        registries: HashMap::from([(REGISTRY.parse().expect("a name"), entry)]),
        timeouts: Timeouts {
            backoff: Duration::from_millis(1),
            ..Timeouts::default()
        },
        ..Config::default()
    };
    let metrics = SourceMetrics::register(&prometheus::Registry::new()).expect("a fresh registry");
    let outside = Outside {
        keyring: Arc::clone(keys) as _,
        ..Outside::default()
    };
    Upstreams::with_outside(config, metrics, outside).expect("no CA that could be wrong")
}

/// A registry that wants a password and takes the one that `takes` has at the time.
async fn guarded(takes: &Arc<Mutex<&'static str>>) -> Registry {
    let takes = Arc::clone(takes);
    Registry::start(move |asked| {
        let wanted = format!("Basic {}", takes.lock().expect("nobody panicked"));
        match asked.header("authorization") {
            Some(shown) if shown == wanted => Reply::serve(asked, BODY),
            _ => Reply::status("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\""),
        }
    })
    .await
}

#[tokio::test]
async fn what_is_public_is_read_without_the_login_and_what_it_opens_is_private() {
    let public = Registry::start(|asked| Reply::serve(asked, BODY)).await;
    let upstreams_of_public = upstreams(&public, &Keys::login(LOGIN));
    let fetched = fetch_blob(&upstreams_of_public, None).await.unwrap();
    assert_eq!(fetched.access, Access::Anonymous);
    assert_eq!(public.header_of_each("authorization"), ["-"]);
    let private = guarded(&Arc::new(Mutex::new(LOGIN))).await;
    let fetched = fetch_blob(&upstreams(&private, &Keys::login(LOGIN)), None).await;
    assert_eq!(fetched.unwrap().access, Access::Caller);
}

/// A registry that tells everybody 404 to whom it gives nothing: strangers by an anonymous token.
async fn hiding() -> Registry {
    Registry::start(|asked| {
        let shown = asked.header("authorization").unwrap_or("-");
        let host = asked.header("host").unwrap_or_default();
        let token =
            |token: &str| Reply::new("200 OK", format!("{{\"token\":\"{token}\"}}").as_bytes());
        match (asked.target.starts_with("/token"), shown) {
            (true, "-") => token("anonymous"),
            (true, shown) if shown == format!("Basic {LOGIN}") => token("known"),
            (true, _) => Reply::status("401 Unauthorized"),
            (false, "-") => {
                let told = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"");
                Reply::status(&format!("401 Unauthorized\r\n{told}"))
            }
            (false, "Bearer known") => Reply::serve(asked, BODY),
            (false, "Bearer ended") => {
                let told = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"");
                Reply::status(&format!("401 Unauthorized\r\n{told}"))
            }
            (false, "Bearer ill") => Reply::status("500 Internal Server Error"),
            (false, _) => Reply::status("404 Not Found"),
        }
    })
    .await
}

#[tokio::test]
async fn where_strangers_are_told_404_who_is_known_is_asked_for_all_the_same() {
    let known = format!("Basic {LOGIN}");
    // As the caller, whose password buys a token, and as the node.
    for (keys, shown) in [
        (Keys::new("{}"), credential(&known)),
        (Keys::login(LOGIN), None),
        (Keys::login(LOGIN), credential("Bearer mine")),
    ] {
        let registry = hiding().await;
        let fetched = fetch_blob(&upstreams(&registry, &keys), shown).await;
        assert_eq!(fetched.unwrap().access, Access::Caller);
    }
    // Whose token has ended is told to get another.
    let registry = hiding().await;
    let upstreams_of_it = upstreams(&registry, &Keys::new("{}"));
    let outcome = fetch_blob(&upstreams_of_it, credential("Bearer ended")).await;
    assert!(
        matches!(outcome, Err(SourceError::Refused(_))),
        "{outcome:?}"
    );
    // Who is not known is told what strangers are, and an illness is not taken for that.
    for (shown, expect) in [
        (None, 404),
        (credential("Bearer mine"), 404),
        (credential("Bearer ill"), 500),
    ] {
        let registry = hiding().await;
        let outcome = fetch_blob(&upstreams(&registry, &Keys::login(NEXT)), shown).await;
        match outcome {
            Err(SourceError::Status(answer)) => assert_eq!(answer.status, expect),
            outcome => panic!("{outcome:?}, not {expect}"),
        }
    }
}

#[tokio::test]
async fn a_caller_shows_his_own_first_and_the_login_opens_what_that_does_not() {
    let registry = guarded(&Arc::new(Mutex::new(LOGIN))).await;
    let upstreams = upstreams(&registry, &Keys::login(LOGIN));
    for _ in 0..2 {
        let fetched = fetch_blob(&upstreams, credential("Bearer mine")).await;
        assert_eq!(fetched.unwrap().access, Access::Caller);
    }
    let (mine, node) = ("Bearer mine", format!("Basic {LOGIN}"));
    let seen = registry.header_of_each("authorization");
    assert_eq!(seen, ["-", mine, &node, mine, &node]);
}

#[tokio::test]
async fn a_login_that_is_refused_is_looked_for_again_but_not_each_time() {
    let takes = Arc::new(Mutex::new(LOGIN));
    let (registry, keys) = (guarded(&takes).await, Keys::login(LOGIN));
    let upstreams = upstreams(&registry, &keys);
    fetch_blob(&upstreams, None).await.unwrap();
    *takes.lock().expect("nobody panicked") = NEXT;
    for _ in 0..2 {
        let outcome = fetch_blob(&upstreams, None).await;
        assert!(
            matches!(outcome, Err(SourceError::Refused(_))),
            "{outcome:?}"
        );
    }
    keys.write(&password(NEXT));
    pass(Duration::from_secs(6)).await;
    fetch_blob(&upstreams, None).await.unwrap();
    keys.write("{}");
    pass(Duration::from_secs(6)).await;
    let outcome = fetch_blob(&upstreams, None).await;
    assert!(
        matches!(outcome, Err(SourceError::Refused(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_helper_is_asked_for_another_login_in_the_request_that_was_refused() {
    let takes = Arc::new(Mutex::new(LOGIN));
    let registry = guarded(&takes).await;
    let keys = Keys::new(&format!(r#"{{"credHelpers":{{"{REGISTRY}":"x"}}}}"#));
    keys.helper_says("node", "secret");
    let upstreams = upstreams(&registry, &keys);
    fetch_blob(&upstreams, None).await.unwrap();
    pass(Duration::from_secs(11)).await;
    *takes.lock().expect("nobody panicked") = NEXT;
    keys.helper_says("node", "next");
    fetch_blob(&upstreams, None).await.unwrap();
    assert_eq!(keys.helped.lock().expect("nobody panicked").len(), 2);
    // A helper that knows no better is not asked for each that is refused.
    *takes.lock().expect("nobody panicked") = LOGIN;
    for _ in 0..3 {
        let outcome = fetch_blob(&upstreams, None).await;
        assert!(
            matches!(outcome, Err(SourceError::Refused(_))),
            "{outcome:?}"
        );
    }
    assert_eq!(keys.helped.lock().expect("nobody panicked").len(), 2);
}

#[tokio::test]
async fn an_identity_token_of_a_helper_buys_tokens_and_is_shown_to_no_registry() {
    let registry = Registry::start(|asked| {
        let host = asked.header("host").unwrap_or_default();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="s""#);
        match (asked.method.as_str(), asked.header("authorization")) {
            ("POST", None) => Reply::new("200 OK", b"{\"access_token\":\"bought\"}"),
            ("GET", Some("Bearer bought")) => Reply::serve(asked, BODY),
            _ => Reply::status(&format!(
                "401 Unauthorized\r\nWWW-Authenticate: {challenge}"
            )),
        }
    })
    .await;
    let keys = Keys::new(&format!(r#"{{"credHelpers":{{"{REGISTRY}":"x"}}}}"#));
    keys.helper_says("<token>", "node-secret");
    let upstreams = upstreams(&registry, &keys);
    for _ in 0..2 {
        let fetched = fetch_blob(&upstreams, None).await.unwrap();
        assert_eq!(fetched.access, Access::Caller);
    }
    let helped = keys.helped.lock().expect("nobody panicked").clone();
    assert_eq!(helped, [format!("docker-credential-x {REGISTRY}")]);
    for asked in registry.asked() {
        assert!(!format!("{asked:?}").contains("node-secret"), "{asked:?}");
    }
}

#[tokio::test]
async fn what_is_public_when_it_begins_is_not_finished_with_the_login() {
    let registry = Registry::start(|asked| match asked.earlier {
        0 => Reply::new("200 OK", BODY).cut(3),
        _ if asked.header("authorization").is_some() => Reply::serve(asked, BODY),
        _ => Reply::status("403 Forbidden"),
    })
    .await;
    let outcome = fetch_blob(&upstreams(&registry, &Keys::login(LOGIN)), None).await;
    assert!(
        matches!(outcome, Err(SourceError::Refused(_))),
        "{outcome:?}"
    );
    assert_eq!(registry.header_of_each("authorization"), ["-", "-"]);
}
