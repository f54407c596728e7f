//! Pure: scopes of tokens (distribution specification, "Token Scope Documentation") as a client of a
//! path prefix writes them, and as the registry knows them.

use protocol::{RegistryName, Repository};
use swarm::source::BearerChallenge;

use crate::route::{Form, NameReader};

/// Scopes of one registry, as it knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scopes {
    /// Nothing where the client names no repository.
    pub(super) registry: Option<RegistryName>,
    /// With spaces between.
    pub(super) text: String,
}

/// Why scopes are not asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScopeError {
    #[error("{0:?} is no scope of a repository")]
    Malformed(String),
    #[error("the scopes are of several registries, whose tokens are several too")]
    Several,
}

/// Scopes in one question.
const SCOPES_MAX: usize = 32;

// === impl Scopes ===

impl Scopes {
    /// Reads `written`, each text one scope or several with spaces between.
    pub(super) fn read<'a>(
        written: impl IntoIterator<Item = &'a str>,
        names: &NameReader<'_>,
    ) -> Result<Self, ScopeError> {
        let (mut registry, mut scopes) = (None, Vec::new());
        let items = written.into_iter().flat_map(str::split_ascii_whitespace);
        for item in items.take(SCOPES_MAX) {
            let (of, scope) = read_one(item, names)?;
            if registry.get_or_insert_with(|| of.clone()) != &of {
                return Err(ScopeError::Several);
            }
            scopes.push(scope);
        }
        let text = scopes.join(" ");
        Ok(Self { registry, text })
    }
}

fn read_one(item: &str, names: &NameReader<'_>) -> Result<(RegistryName, String), ScopeError> {
    let malformed = || ScopeError::Malformed(item.chars().take(100).collect());
    let (kind, rest) = item.split_once(':').ok_or_else(malformed)?;
    // A registry with a port has a colon too: the actions come after the last.
    let (name, actions) = rest.rsplit_once(':').ok_or_else(malformed)?;
    let is_repository = kind == "repository" || kind.starts_with("repository(");
    if !is_repository {
        return Err(malformed());
    }
    let (registry, repository) = names.read(name).map_err(|_| malformed())?;
    let scope = format!("{kind}:{repository}:{actions}");
    Ok((registry, scope))
}

/// The scopes of the registry's `challenge` as a client spells them that named it by `form`; what a
/// pull needs where it names none.
pub(super) fn spelled(
    challenge: Option<&BearerChallenge>,
    form: Form,
    registry: &RegistryName,
    repository: Option<&Repository>,
) -> Option<String> {
    let told = challenge.and_then(|challenge| challenge.scope.as_deref());
    let default = repository.map(|repository| format!("repository:{repository}:pull"));
    let scopes = told.map(str::to_owned).or(default)?;
    let spelled = scopes.split_ascii_whitespace().map(|scope| {
        let parts = scope
            .split_once(':')
            .filter(|(kind, _)| kind.starts_with("repository"));
        match (form, parts) {
            (Form::Prefix, Some((kind, rest))) => format!("{kind}:{registry}/{rest}"),
            (Form::Prefix | Form::Ns | Form::Bare | Form::Forward, _) => scope.to_owned(),
        }
    });
    Some(spelled.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(written: &[&str], expect: Result<(Option<&str>, &str), &str>) {
        let default = "docker.io".parse().unwrap();
        let names = NameReader {
            default_registry: &default,
        };
        let seen = Scopes::read(written.iter().copied(), &names);
        let seen = seen
            .as_ref()
            .map(|scopes| {
                let registry = scopes.registry.as_ref().map(RegistryName::as_str);
                (registry, scopes.text.as_str())
            })
            .map_err(ToString::to_string);
        match (seen, expect) {
            (Ok(seen), Ok(expect)) => assert_eq!(seen, expect),
            (Err(seen), Err(expect)) => assert!(seen.contains(expect), "{seen}"),
            (seen, expect) => panic!("{seen:?}, not {expect:?}"),
        }
    }

    #[test]
    fn the_prefix_names_the_registry_and_goes() {
        read(
            &["repository:ghcr.io/org/img:pull"],
            Ok((Some("ghcr.io"), "repository:org/img:pull")),
        );
        read(
            &["repository:r.example:5000/img:pull,push"],
            Ok((Some("r.example:5000"), "repository:img:pull,push")),
        );
        read(
            &["repository:library/alpine:pull"],
            Ok((Some("docker.io"), "repository:library/alpine:pull")),
        );
        read(
            &["repository:docker.io/alpine:pull"],
            Ok((Some("docker.io"), "repository:library/alpine:pull")),
        );
        read(
            &[
                "repository:ghcr.io/a:pull repository:ghcr.io/b:pull",
                "repository(plugin):ghcr.io/c:pull",
            ],
            Ok((
                Some("ghcr.io"),
                "repository:a:pull repository:b:pull repository(plugin):c:pull",
            )),
        );
        read(&[], Ok((None, "")));
    }

    #[test]
    fn what_cannot_be_one_question_is_refused() {
        read(
            &["repository:ghcr.io/a:pull", "repository:quay.io/a:pull"],
            Err("several"),
        );
        for bad in [
            "x",
            "repository:a",
            "registry:catalog:*",
            "repository::pull",
            "repository:ghcr.io/A:pull",
            "repository:ghcr.io/../a:pull",
        ] {
            read(&[bad], Err("is no scope"));
        }
    }

    #[track_caller]
    fn spells(form: Form, told: Option<&str>, expect: Option<&str>) {
        let challenge = BearerChallenge {
            realm: "https://a.example/token".to_owned(),
            service: None,
            scope: told.map(str::to_owned),
        };
        let registry = "r.example:5000".parse().unwrap();
        let repository = "a/b".parse().unwrap();
        let seen = spelled(Some(&challenge), form, &registry, Some(&repository));
        assert_eq!(seen.as_deref(), expect);
    }

    #[test]
    fn a_challenge_names_the_repository_as_the_client_does() {
        let told = Some("repository:a/b:pull,push registry:catalog:*");
        let expect = Some("repository:r.example:5000/a/b:pull,push registry:catalog:*");
        spells(Form::Prefix, told, expect);
        spells(Form::Bare, told, told);
        let expect = Some("repository:r.example:5000/a/b:pull");
        spells(Form::Prefix, None, expect);
    }
}
