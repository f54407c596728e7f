//! Anonymous first, tokens, and what becomes of a caller's credential.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use swarm::source::{Access, SourceError, SystemNames};
use tokio::time::timeout;

use super::{
    credential, fetch_blob, pass,
    registry::{Asked, Registry, Reply},
    upstreams, upstreams_that_wait,
};

const BODY: &[u8] = b"content";

/// A registry with a token server under `/token`: `token` answers there, by the Authorization it
/// was sent, and `takes` says which Authorization reads content.
async fn with_tokens(
    token: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static,
    takes: &'static [&'static str],
) -> Registry {
    Registry::start(move |asked| {
        let authorization = asked.header("authorization").unwrap_or("-");
        if asked.target.starts_with("/token") {
            return match token(authorization) {
                Some(token) => Reply::new(
                    "200 OK",
                    format!("{{\"token\":\"{token}\",\"expires_in\":300}}").as_bytes(),
                ),
                None => Reply::status("401 Unauthorized"),
            };
        }
        if takes.contains(&authorization) {
            Reply::serve(asked, BODY)
        } else {
            challenge(asked)
        }
    })
    .await
}

fn challenge(asked: &Asked) -> Reply {
    let host = asked.header("host").unwrap_or_default();
    let challenge = format!(
        r#"Bearer realm="http://{host}/token?a=b",service="s",scope="repository:team/image:pull""#
    );
    Reply::new(
        &format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}"),
        b"{}",
    )
}

/// What each request was for and with: `content` or `token`, and its Authorization.
fn seen(registry: &Registry) -> Vec<String> {
    let what = |asked: &Asked| {
        if asked.target.starts_with("/token") {
            "token"
        } else {
            "content"
        }
    };
    registry
        .asked()
        .iter()
        .map(|asked| {
            format!(
                "{} {}",
                what(asked),
                asked.header("authorization").unwrap_or("-")
            )
        })
        .collect()
}

#[tokio::test]
async fn an_anonymous_token_is_fetched_once_and_remembered() {
    let registry = with_tokens(|_| Some("anon"), &["Bearer anon"]).await;
    let upstreams = upstreams(registry.address, &[]);
    for _ in 0..2 {
        let fetched = fetch_blob(&upstreams, credential("Bearer mine"))
            .await
            .unwrap();
        assert_eq!(
            (fetched.access, &fetched.bytes[..]),
            (Access::Anonymous, BODY)
        );
    }
    let expect = [
        "content -",
        "token -",
        "content Bearer anon",
        "content Bearer anon",
    ];
    assert_eq!(seen(&registry), expect);
    assert_eq!(
        registry.asked()[1].target,
        "/token?a=b&service=s&scope=repository%3Ateam%2Fimage%3Apull"
    );
}

#[tokio::test]
async fn one_token_serves_all_who_wait_for_it() {
    let registry = with_tokens(|_| Some("anon"), &["Bearer anon"]).await;
    let upstreams = upstreams(registry.address, &[]);
    let fetches = (0..20).map(|_| fetch_blob(&upstreams, None));
    assert!(
        join_all(fetches)
            .await
            .into_iter()
            .all(|fetched| fetched.is_ok())
    );
    assert_eq!(
        seen(&registry)
            .iter()
            .filter(|line| line.starts_with("token"))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_bearer_is_used_as_it_is_after_anonymous_was_refused() {
    let registry = with_tokens(|_| Some("anon"), &["Bearer mine"]).await;
    let upstreams = upstreams(registry.address, &[]);
    let fetched = fetch_blob(&upstreams, credential("Bearer mine"))
        .await
        .unwrap();
    assert_eq!(fetched.access, Access::Caller);
    assert_eq!(
        seen(&registry),
        [
            "content -",
            "token -",
            "content Bearer anon",
            "content Bearer mine"
        ]
    );
    // For a moment it is known that anonymous readers are refused there.
    fetch_blob(&upstreams, credential("Bearer mine"))
        .await
        .unwrap();
    assert_eq!(seen(&registry)[4..], ["content Bearer mine"]);
    // Whoever comes without a credential asks for himself.
    let outcome = fetch_blob(&upstreams, None).await;
    assert!(
        matches!(outcome, Err(SourceError::Refused(_))),
        "{outcome:?}"
    );
    assert!(
        seen(&registry)[5..]
            .iter()
            .all(|line| !line.contains("mine")),
        "{:?}",
        seen(&registry)
    );
}

#[tokio::test]
async fn a_password_buys_a_token_of_its_own() {
    let token = |authorization: &str| match authorization {
        "Basic YTox" => Some("for-a"),
        "Basic YjoxMg==" => Some("for-b"),
        _ => None,
    };
    let registry = with_tokens(token, &["Bearer for-a", "Bearer for-b"]).await;
    let upstreams = upstreams(registry.address, &[]);
    for _ in 0..2 {
        assert_eq!(
            fetch_blob(&upstreams, credential("Basic YTox"))
                .await
                .unwrap()
                .access,
            Access::Caller
        );
    }
    fetch_blob(&upstreams, credential("Basic YjoxMg=="))
        .await
        .unwrap();
    let expect = [
        "content -",
        "token -",
        "token Basic YTox",
        "content Bearer for-a",
        "content Bearer for-a",
        "token Basic YjoxMg==",
        "content Bearer for-b",
    ];
    assert_eq!(seen(&registry), expect);
}

#[tokio::test]
async fn a_password_is_sent_to_a_registry_that_asks_for_one() {
    let registry = Registry::start(|asked| match asked.header("authorization") {
        Some("Basic YTox") => Reply::serve(asked, BODY),
        _ => Reply::status("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\""),
    });
    let registry = registry.await;
    let fetched = fetch_blob(&upstreams(registry.address, &[]), credential("Basic YTox"))
        .await
        .unwrap();
    assert_eq!(fetched.access, Access::Caller);
    assert_eq!(seen(&registry), ["content -", "content Basic YTox"]);
}

#[tokio::test]
async fn a_refusal_carries_the_challenge_untouched() {
    let registry = with_tokens(|_| None, &[]).await;
    for credential in [None, credential("Basic YTox"), credential("Bearer mine")] {
        let outcome = fetch_blob(&upstreams(registry.address, &[]), credential).await;
        let Err(SourceError::Refused(answer)) = outcome else {
            panic!("{outcome:?}")
        };
        let challenges: Vec<_> = answer
            .challenges()
            .map(|value| value.to_str().unwrap())
            .collect();
        let realm = format!(r#"Bearer realm="http://{}/token?a=b","#, registry.address);
        assert!(
            challenges.len() == 1 && challenges[0].starts_with(&realm),
            "{challenges:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_without_a_challenge_makes_no_loop() {
    let registry = Registry::start(|_| Reply::status("401 Unauthorized")).await;
    let outcome = fetch_blob(&upstreams(registry.address, &[]), None).await;
    assert!(
        matches!(outcome, Err(SourceError::Refused(_))),
        "{outcome:?}"
    );
    assert_eq!(seen(&registry), ["content -"]);
    let outcome = fetch_blob(&upstreams(registry.address, &[]), credential("Bearer mine")).await;
    assert!(
        matches!(outcome, Err(SourceError::Refused(_))),
        "{outcome:?}"
    );
    assert_eq!(seen(&registry)[1..], ["content -", "content Bearer mine"]);
}

#[tokio::test]
async fn a_remembered_token_that_is_no_longer_taken_is_replaced() {
    let registry = Registry::start(|asked| {
        if asked.target.starts_with("/token") {
            return Reply::new(
                "200 OK",
                format!("{{\"access_token\":\"t{}\"}}", asked.earlier).as_bytes(),
            );
        }
        let taken = if asked.earlier < 4 {
            "Bearer t1"
        } else {
            "Bearer t4"
        };
        if asked.header("authorization") == Some(taken) && asked.earlier != 3 {
            Reply::serve(asked, BODY)
        } else {
            challenge(asked)
        }
    });
    let registry = registry.await;
    let upstreams = upstreams(registry.address, &[]);
    for _ in 0..2 {
        assert_eq!(
            fetch_blob(&upstreams, None).await.unwrap().access,
            Access::Anonymous
        );
    }
    let expect = [
        "content -",
        "token -",
        "content Bearer t1",
        "content Bearer t1",
        "token -",
        "content Bearer t4",
    ];
    assert_eq!(seen(&registry), expect);
}

#[tokio::test]
async fn a_sick_token_server_is_asked_again_and_refuses_nobody() {
    let registry =
        Registry::start(
            |asked| match (asked.target.starts_with("/token"), asked.earlier) {
                (true, 1) => Reply::status("503 Service Unavailable"),
                (true, _) => Reply::new("200 OK", b"{\"token\":\"anon\"}"),
                (false, _) if asked.header("authorization") == Some("Bearer anon") => {
                    Reply::serve(asked, BODY)
                }
                (false, _) => challenge(asked),
            },
        );
    let registry = registry.await;
    let fetched = fetch_blob(&upstreams(registry.address, &[]), credential("Bearer mine"))
        .await
        .unwrap();
    assert_eq!(fetched.access, Access::Anonymous);
}

#[tokio::test]
async fn what_is_public_when_it_begins_is_not_finished_with_the_credential() {
    let registry = Registry::start(|asked| match asked.earlier {
        0 => Reply::new("200 OK", BODY).cut(3),
        _ if asked.header("authorization").is_some() => Reply::serve(asked, BODY),
        _ => Reply::status("403 Forbidden"),
    });
    let registry = registry.await;
    let outcome = fetch_blob(&upstreams(registry.address, &[]), credential("Bearer mine")).await;
    assert!(
        matches!(outcome, Err(SourceError::Refused(_))),
        "{outcome:?}"
    );
    assert_eq!(seen(&registry), ["content -", "content -"]);
}

#[tokio::test]
async fn while_a_token_holds_nobody_waits_long_for_a_server_that_does_not_give_the_next() {
    let hangs = || Reply::status("200 OK").cut(20).then_stall();
    let sick = || Reply::status("503 Service Unavailable");
    let refuses = || Reply::status("401 Unauthorized");
    for answer in [hangs, sick, refuses] {
        let is_well = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&is_well);
        let registry = Registry::start(move |asked| {
            if !asked.target.starts_with("/token") {
                return match asked.header("authorization") {
                    Some(_) => Reply::serve(asked, BODY),
                    None => challenge(asked),
                };
            }
            if !told.load(Ordering::SeqCst) {
                return answer();
            }
            let token = format!("{{\"token\":\"t{}\",\"expires_in\":300}}", asked.earlier);
            Reply::new("200 OK", token.as_bytes())
        });
        let registry = registry.await;
        let (long, names) = (Duration::from_secs(60), Arc::new(SystemNames));
        let upstreams = upstreams_that_wait(long, registry.address, &[], names);
        fetch_blob(&upstreams, None).await.unwrap();
        is_well.store(false, Ordering::SeqCst);
        pass(Duration::from_secs(250)).await;
        // One of them looks for the next token, for a second; the others do not even that.
        let fetches = (0..5).map(|_| fetch_blob(&upstreams, None));
        let all = timeout(Duration::from_secs(20), join_all(fetches)).await;
        assert!(all.unwrap().into_iter().all(|fetched| fetched.is_ok()));
        fetch_blob(&upstreams, None).await.unwrap();
        let seen = seen(&registry);
        let count = |line: &str| seen.iter().filter(|seen| *seen == line).count();
        assert_eq!(
            (count("token -"), count("content Bearer t1")),
            (2, 7),
            "{seen:?}"
        );
        is_well.store(true, Ordering::SeqCst);
        pass(Duration::from_secs(11)).await;
        fetch_blob(&upstreams, None).await.unwrap();
        let last = registry.asked();
        let last = last.last().and_then(|asked| asked.header("authorization"));
        assert!(last.is_some_and(|token| token != "Bearer t1"), "{last:?}");
    }
}
