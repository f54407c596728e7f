//! Pure: which login a file in the form of docker's `config.json` has for an endpoint.
//!
//! Own code, since the crate for it runs helpers without a time limit and reads their answers without
//! a bound. Nothing that is read here stands in an error.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;
use protocol::RegistryName;
use serde::Deserialize;
use url::Url;

use super::{credential::Credential, registry::is_docker_hub};

/// What the file says of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Nothing,
    Login(Credential),
    /// A program is to be asked; `otherwise` holds where it knows nothing.
    Helper {
        program: String,
        server: String,
        otherwise: Option<Credential>,
    },
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: HashMap<String, Auth>,
    creds_store: String,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// The names of Docker Hub in such files; helpers know it as [`HUB_SERVER`].
const HUB_HOSTS: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];
const HUB_SERVER: &str = "https://index.docker.io/v1/";
/// The user whose password is an identity token.
const TOKEN_USER: &str = "<token>";

const NO_FORM: &str = "is not in the form of docker's config.json";

/// The hosts whose login is used for `endpoint`, best first: its own, and the registry's.
pub(super) fn hosts(registry: &RegistryName, endpoint: &Url) -> Vec<String> {
    let host = endpoint.host_str().unwrap_or_default();
    let mut hosts = vec![match endpoint.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }];
    match is_docker_hub(registry) {
        true => hosts.extend(HUB_HOSTS.map(ToOwned::to_owned)),
        false => hosts.push(registry.to_string()),
    }
    hosts
}

/// What `file` has for the first of `hosts` of which it has anything.
pub(super) fn look_up(file: &[u8], hosts: &[String]) -> Result<Entry, &'static str> {
    let file: File = serde_json::from_slice(file).map_err(|_| NO_FORM)?;
    for host in hosts {
        let auth = file.auths.iter().find(|(key, _)| is_of(key, host));
        let login = match auth {
            Some((_, auth)) => auth.login()?,
            None => None,
        };
        let helper = file.cred_helpers.iter().find(|(key, _)| is_of(key, host));
        let (key, helper) = match helper {
            Some((key, helper)) => (Some(key), helper),
            None => (auth.map(|(key, _)| key), &file.creds_store),
        };
        // A store for all is asked for what was once logged in to, and for nothing else.
        if !helper.is_empty() && key.is_some() {
            let server = match HUB_HOSTS.contains(&host.as_str()) {
                true => HUB_SERVER,
                false => key.unwrap_or(host),
            };
            return Ok(Entry::Helper {
                program: program(helper)?,
                server: server.to_owned(),
                otherwise: login,
            });
        }
        if let Some(login) = login {
            return Ok(Entry::Login(login));
        }
    }
    Ok(Entry::Nothing)
}

/// The login in what a helper wrote; `None` where it knows of none.
pub(super) fn told_by_helper(answer: &[u8]) -> Result<Option<Credential>, &'static str> {
    if answer.is_empty() {
        return Ok(None);
    }
    let told: HelperAnswer =
        serde_json::from_slice(answer).map_err(|_| "the helper's answer is none")?;
    match told.username.as_str() {
        TOKEN_USER => Credential::refresh(&told.secret),
        user => basic(&format!("{user}:{}", told.secret)),
    }
    .map(Some)
}

// === impl Auth ===

impl Auth {
    fn login(&self) -> Result<Option<Credential>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Credential::refresh(&self.identitytoken).map(Some);
        }
        if !self.registrytoken.is_empty() {
            return header(&format!("Bearer {}", self.registrytoken)).map(Some);
        }
        if !self.auth.is_empty() {
            let decoded = BASE64_STANDARD.decode(self.auth.trim());
            let decoded = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = decoded.ok_or("an `auth` is no base64")?;
            return basic(decoded.trim_end_matches('\0')).map(Some);
        }
        match self.username.is_empty() {
            true => Ok(None),
            false => basic(&format!("{}:{}", self.username, self.password)).map(Some),
        }
    }
}

const EMPTY: &str = "a login is empty";

fn basic(user_and_password: &str) -> Result<Credential, &'static str> {
    Credential::basic(user_and_password).ok_or(EMPTY)
}

fn header(text: &str) -> Result<Credential, &'static str> {
    let value = HeaderValue::from_str(text).map_err(|_| "a login has signs that none has")?;
    Credential::from_header(&value).ok_or(EMPTY)
}

/// The program of a helper's name, which must lead into no other directory.
fn program(helper: &str) -> Result<String, &'static str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    match helper.chars().all(is_plain) {
        true => Ok(format!("docker-credential-{helper}")),
        false => Err("names a helper with signs that no program has"),
    }
}

/// Whether the key of an entry is `host`, perhaps written as a URL of its API. Keys of single
/// repositories are none of ours.
fn is_of(key: &str, host: &str) -> bool {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").unwrap_or(bare);
    let bare = bare.strip_suffix("/v2").unwrap_or(bare);
    bare.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    /// What the file has for `host`: the scheme, or the helper and the server it is asked for.
    #[track_caller]
    fn check(file: &str, host: &str, expect: &str) {
        let seen = match look_up(file.as_bytes(), &[host.to_owned()]) {
            Ok(Entry::Nothing) => "-".to_owned(),
            Ok(Entry::Login(login)) => format!("{:?}", login.scheme()),
            Ok(Entry::Helper {
                program,
                server,
                otherwise,
            }) => format!("{program} {server} {}", otherwise.is_some()),
            Err(problem) => format!("! {problem}"),
        };
        assert_eq!(seen, expect, "{file} {host}");
    }

    #[test]
    fn a_login_is_found_however_it_is_written() {
        let auth = r#"{"auths":{"r.example:5000":{"auth":"dTpw"}}}"#;
        check(auth, "r.example:5000", "Basic");
        check(auth, "r.example", "-");
        let url = r#"{"auths":{"https://R.example/v2/":{"auth":"dTpw"}}}"#;
        check(url, "r.example", "Basic");
        let of_one = r#"{"auths":{"r.example/team":{"auth":"dTpw"}}}"#;
        check(of_one, "r.example", "-");
        let split = r#"{"auths":{"r":{"username":"u","password":"p","email":"x"}}}"#;
        check(split, "r", "Basic");
        let identity = r#"{"auths":{"r":{"auth":"dTo=","identitytoken":"t"}}}"#;
        check(identity, "r", "Refresh");
        check(r#"{"auths":{"r":{"registrytoken":"t"}}}"#, "r", "Bearer");
        check(r#"{"auths":{"r":{}}}"#, "r", "-");
        check("{}", "r", "-");
    }

    #[test]
    fn a_helper_is_asked_for_its_own_registries_and_a_store_for_what_was_logged_in_to() {
        let own = r#"{"credHelpers":{"r":"ecr-login"},"credsStore":"pass"}"#;
        check(own, "r", "docker-credential-ecr-login r false");
        check(own, "other", "-");
        let store = r#"{"auths":{"r":{},"https://index.docker.io/v1/":{"auth":"dTpw"}},"credsStore":"pass"}"#;
        check(store, "r", "docker-credential-pass r false");
        let hub = "docker-credential-pass https://index.docker.io/v1/ true";
        check(store, "index.docker.io", hub);
        check(
            r#"{"credHelpers":{"r":"../x"}}"#,
            "r",
            "! names a helper with signs that no program has",
        );
    }

    #[test]
    fn what_is_no_such_file_is_told_without_its_text() {
        check("", "r", "! is not in the form of docker's config.json");
        check(
            r#"{"auths":{"r":{"auth":"%"}}}"#,
            "r",
            "! an `auth` is no base64",
        );
        check(
            r#"{"auths":{"r":{"registrytoken":"a\nb"}}}"#,
            "r",
            "! a login has signs that none has",
        );
    }

    #[test]
    fn a_helper_tells_a_password_or_an_identity_token() {
        let scheme = |answer: &str| {
            let told = told_by_helper(answer.as_bytes());
            told.map(|login| login.map(|login| format!("{:?}", login.scheme())))
        };
        let answer = r#"{"ServerURL":"r","Username":"u","Secret":"p"}"#;
        assert_eq!(scheme(answer), Ok(Some("Basic".to_owned())));
        let token = r#"{"ServerURL":"r","Username":"<token>","Secret":"p"}"#;
        assert_eq!(scheme(token), Ok(Some("Refresh".to_owned())));
        assert_eq!(scheme(""), Ok(None));
        assert!(scheme("no").is_err());
    }

    #[test]
    fn the_login_of_the_endpoint_goes_before_that_of_the_registry() {
        let hosts = |name: &str, endpoint: &str| {
            hosts(&name.parse().unwrap(), &Url::parse(endpoint).unwrap()).join(" ")
        };
        assert_eq!(
            hosts("r.example", "http://10.0.0.1:5000/"),
            "10.0.0.1:5000 r.example"
        );
        let hub = "registry-1.docker.io index.docker.io docker.io registry-1.docker.io";
        assert_eq!(hosts("docker.io", "https://registry-1.docker.io/"), hub);
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_fall(file in any::<Vec<u8>>()) {
            let _ = look_up(&file, &["r".to_owned()]);
            let _ = told_by_helper(&file);
        }
    }
}
