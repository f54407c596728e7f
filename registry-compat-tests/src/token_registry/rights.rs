//! Pure: who may read and write what, as it is at the moment, and what a scope grants.
//!
//! Knows users, repositories and switches; of tokens it knows nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;

use super::Door;

/// All of a registry that a test may change while it runs. Every value is valid.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Passwords by user.
    pub users: BTreeMap<String, String>,
    pub repositories: BTreeMap<String, Repository>,
    /// How long a token lives that is given from now on.
    pub token_life: Duration,
    /// How long an address at the storage host is good.
    pub signature_life: Duration,
    /// What somebody is told who is known, and has no right.
    pub forbidden: Forbidden,
    /// What HEAD of a blob is answered, where the registry has none.
    pub refuses_head: Option<StatusCode>,
    /// POST at the token server is answered 404.
    pub refuses_post: bool,
    /// Every answer begins so much later.
    pub latency: Duration,
    /// The storage host begins its answers so much later, besides.
    pub storage_latency: Duration,
    /// Where connections end at once.
    pub down: BTreeSet<Door>,
    /// The realm that is told in place of its own token server's.
    pub other_realm: Option<String>,
    /// Where blobs are said to be, in place of its own storage host.
    pub other_storage: Option<String>,
    /// Sizes of blobs by digest that HEAD tells of although nobody has them.
    pub claimed_blobs: BTreeMap<String, u64>,
    /// Manifests by tag or digest that nobody pushed.
    pub claimed_manifests: BTreeMap<String, ClaimedManifest>,
}

/// Who may do what with a repository; one that is not named is nobody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repository {
    pub is_public: bool,
    /// Who may pull.
    pub readers: BTreeSet<String>,
    /// Who may push and pull.
    pub writers: BTreeSet<String>,
}

/// What somebody is told who is known, and has no right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidden {
    /// 401 with `insufficient_scope`, as Docker Hub.
    Insufficient,
    /// 403.
    Denied,
    /// 404, as if nothing were there; anonymous tokens are told so too.
    Hidden,
}

/// A manifest that a registry tells of.
#[derive(Debug, Clone)]
pub struct ClaimedManifest {
    pub media_type: String,
    pub digest: String,
    pub bytes: Bytes,
}

/// What is done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Pull,
    Push,
}

/// A right to one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) repository: String,
    pub(super) actions: BTreeSet<Action>,
}

/// Rights that are asked for at once; further ones are not granted.
const SCOPES_MAX: usize = 64;

// === impl Rules ===

impl Default for Rules {
    fn default() -> Self {
        Self {
            users: BTreeMap::new(),
            repositories: BTreeMap::new(),
            token_life: Duration::from_secs(300),
            signature_life: Duration::from_secs(300),
            forbidden: Forbidden::Insufficient,
            refuses_head: None,
            refuses_post: false,
            latency: Duration::ZERO,
            storage_latency: Duration::ZERO,
            down: BTreeSet::new(),
            other_realm: None,
            other_storage: None,
            claimed_blobs: BTreeMap::new(),
            claimed_manifests: BTreeMap::new(),
        }
    }
}

impl Rules {
    /// A user with a password.
    pub fn user(&mut self, name: &str, password: &str) -> &mut Self {
        self.users.insert(name.to_owned(), password.to_owned());
        self
    }

    /// A repository that anybody may pull.
    pub fn public(&mut self, repository: &str) -> &mut Self {
        self.repository(repository).is_public = true;
        self
    }

    /// A repository that these may pull.
    pub fn private(&mut self, repository: &str, readers: &[&str]) -> &mut Self {
        let rights = self.repository(repository);
        rights.is_public = false;
        rights.readers = readers.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Lets a user push to a repository, and pull from it.
    pub fn writer(&mut self, repository: &str, name: &str) -> &mut Self {
        let writers = &mut self.repository(repository).writers;
        writers.insert(name.to_owned());
        self
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    pub(super) fn is_user(&self, name: &str, password: &str) -> bool {
        self.users.get(name).is_some_and(|known| known == password)
    }

    /// Whether `user`, or nobody in particular, has the right now.
    pub(super) fn may(&self, user: Option<&str>, repository: &str, action: Action) -> bool {
        let Some(rights) = self.repositories.get(repository) else {
            return false;
        };
        let user = user.filter(|user| self.users.contains_key(*user));
        let writes = user.is_some_and(|user| rights.writers.contains(user));
        let reads = user.is_some_and(|user| rights.readers.contains(user));
        match action {
            Action::Pull => rights.is_public || reads || writes,
            Action::Push => writes,
        }
    }

    /// What of these scopes `user` gets; what it has no right to is left out, as real servers do.
    pub(super) fn grant<'a>(
        &self,
        user: Option<&str>,
        scopes: impl IntoIterator<Item = &'a str>,
    ) -> Vec<Access> {
        let words = scopes.into_iter().flat_map(str::split_ascii_whitespace);
        let asked = words.take(SCOPES_MAX).filter_map(Access::parse);
        let granted = asked.map(|mut access| {
            access
                .actions
                .retain(|action| self.may(user, &access.repository, *action));
            access
        });
        granted
            .filter(|access| !access.actions.is_empty())
            .collect()
    }
}

// === impl Action, Access ===

impl Action {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

impl Access {
    /// `repository:<name>:<actions>`, in which the name may have colons; other types give nothing.
    fn parse(scope: &str) -> Option<Self> {
        let (repository, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
        let mut read = BTreeSet::new();
        for word in actions.split(',') {
            match word {
                "pull" => drop(read.insert(Action::Pull)),
                "push" => drop(read.insert(Action::Push)),
                "*" => read.extend([Action::Pull, Action::Push]),
                _ => {}
            }
        }
        Some(Self {
            repository: repository.to_owned(),
            actions: read,
        })
    }

    pub(super) fn holds(&self, repository: &str, action: Action) -> bool {
        self.repository == repository && self.actions.contains(&action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let mut rules = Rules::default();
        rules.user("ann", "a").user("bob", "b");
        rules.public("open").private("team/app", &["ann"]);
        rules.writer("team/app", "bob");
        rules
    }

    #[track_caller]
    fn check(user: Option<&str>, scope: &str, expect: &str) {
        let granted = rules().grant(user, [scope]);
        let words: Vec<String> = granted
            .iter()
            .flat_map(|access| {
                let each = access.actions.iter();
                each.map(|action| format!("{} {}", action.word(), access.repository))
            })
            .collect();
        assert_eq!(words.join(", "), expect, "{user:?} {scope}");
    }

    #[test]
    fn a_scope_grants_what_its_user_may_and_no_more() {
        check(None, "repository:open:pull,push", "pull open");
        check(None, "repository:team/app:pull", "");
        check(
            Some("ann"),
            "repository:team/app:pull,push",
            "pull team/app",
        );
        let both = "pull team/app, push team/app";
        check(Some("bob"), "repository:team/app:*", both);
        check(
            Some("ann"),
            "repository:open:pull repository:team/app:pull",
            "pull open, pull team/app",
        );
        check(Some("gone"), "repository:team/app:pull", "");
        check(Some("ann"), "repository:nowhere:pull", "");
    }

    #[test]
    fn what_is_no_scope_grants_nothing() {
        for scope in [
            "",
            "repository",
            "repository:open",
            "registry:catalog:*",
            ":::",
            "repository:open:delete",
        ] {
            check(Some("bob"), scope, "");
        }
    }

    #[test]
    fn a_user_that_is_gone_has_no_right_left() {
        let mut rules = rules();
        rules.users.remove("ann");
        assert!(!rules.may(Some("ann"), "team/app", Action::Pull));
        assert!(rules.may(Some("ann"), "open", Action::Pull));
    }
}
