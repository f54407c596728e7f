//! Pure: the tokens that were given, and what the registry says to who brings one or none.
//!
//! A token is known by its whole text, so that one of another's making is worth nothing whatever it
//! says. Rights are judged as they are now; the token says what of them it was given for.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    Caller,
    credential::Credential,
    rights::{Access, Action, Forbidden, Rules},
};

/// Tokens that are good, or were.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    issued: BTreeMap<String, Issued>,
    /// Oldest first.
    order: VecDeque<String>,
    /// Users by refresh token.
    refresh: BTreeMap<String, String>,
}

/// What a token was given for.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    /// `None` for anonymous.
    pub(super) user: Option<String>,
    pub(super) access: Vec<Access>,
    /// Since the epoch.
    pub(super) expires_at: Duration,
    pub(super) is_revoked: bool,
}

/// How a registry asks who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// By tokens of its token server.
    Bearer,
    /// By passwords alone; it has no token server.
    Basic,
}

/// Whether a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// 401 and a challenge, with this as its `error`.
    Challenge(Option<&'static str>),
    Denied,
    Hidden,
}

/// Tokens, and refresh tokens, that are remembered; the oldest tokens go first.
const TOKENS_MAX: usize = 10_000;

// === impl Tokens ===

impl Tokens {
    pub(super) fn issue(&mut self, token: String, issued: Issued) {
        while TOKENS_MAX <= self.issued.len() {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.issued.remove(&oldest);
        }
        self.order.push_back(token.clone());
        self.issued.insert(token, issued);
    }

    /// Remembers a token that buys others; `false` when there are too many.
    pub(super) fn remember_refresh(&mut self, token: String, user: &str) -> bool {
        let has_room = self.refresh.len() < TOKENS_MAX;
        if has_room {
            self.refresh.insert(token, user.to_owned());
        }
        has_room
    }

    pub(super) fn user_of_refresh(&self, token: &str) -> Option<&str> {
        self.refresh.get(token).map(String::as_str)
    }

    pub(super) fn revoke(&mut self, token: &str) {
        self.refresh.remove(token);
        if let Some(issued) = self.issued.get_mut(token) {
            issued.is_revoked = true;
        }
    }

    pub(super) fn revoke_all_of(&mut self, user: &str) {
        self.refresh.retain(|_, owner| owner != user);
        for issued in self.issued.values_mut() {
            issued.is_revoked |= issued.user.as_deref() == Some(user);
        }
    }

    pub(super) fn expire_all(&mut self, now: Duration) {
        for issued in self.issued.values_mut() {
            issued.expires_at = issued.expires_at.min(now);
        }
    }

    /// Who brings `credential`, and whether all that he `needs` is given to him.
    pub(super) fn judge(
        &self,
        (rules, scheme): (&Rules, Scheme),
        credential: &Credential,
        needs: &[(String, Action)],
        now: Duration,
    ) -> (Caller, Verdict) {
        let invalid = (Caller::Unknown, Verdict::Challenge(Some("invalid_token")));
        let may = |user: Option<&str>| {
            let mut each = needs.iter();
            each.all(|(repository, action)| rules.may(user, repository, *action))
        };
        match (scheme, credential) {
            (Scheme::Basic, Credential::None) if !needs.is_empty() && may(None) => {
                (Caller::Nobody, Verdict::Allow)
            }
            (_, Credential::None) => (Caller::Nobody, Verdict::Challenge(None)),
            (Scheme::Basic, Credential::Basic { user, password })
                if rules.is_user(user, password) =>
            {
                let verdict = match may(Some(user)) {
                    true => Verdict::Allow,
                    false => forbidden(rules, true),
                };
                (Caller::User(user.clone()), verdict)
            }
            (Scheme::Bearer, Credential::Bearer(token)) => {
                let Some(issued) = self.issued.get(token) else {
                    return invalid;
                };
                if issued.is_revoked || issued.expires_at <= now {
                    return invalid;
                }
                let user = issued.user.as_deref();
                let caller = user.map_or(Caller::Anonymous, |user| Caller::User(user.to_owned()));
                if !may(user) {
                    return (caller, forbidden(rules, user.is_some()));
                }
                let mut each = needs.iter();
                let is_in_scope = each.all(|(repository, action)| {
                    let mut access = issued.access.iter();
                    access.any(|access| access.holds(repository, *action))
                });
                let verdict = match is_in_scope {
                    true => Verdict::Allow,
                    false => Verdict::Challenge(Some("insufficient_scope")),
                };
                (caller, verdict)
            }
            (_, Credential::Basic { .. } | Credential::Bearer(_) | Credential::Other) => {
                (Caller::Unknown, Verdict::Challenge(None))
            }
        }
    }
}

/// What is told to somebody without a right. Who is nobody may still become somebody.
fn forbidden(rules: &Rules, is_user: bool) -> Verdict {
    match rules.forbidden {
        Forbidden::Hidden => Verdict::Hidden,
        Forbidden::Denied if is_user => Verdict::Denied,
        Forbidden::Denied | Forbidden::Insufficient => {
            Verdict::Challenge(Some("insufficient_scope"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    /// The verdict on `token`, given to `user` for pulls of `team/app`, at a pull of `repository`.
    #[track_caller]
    fn check(
        change: impl FnOnce(&mut Rules, &mut Tokens),
        (user, repository): (Option<&str>, &str),
        expect: Verdict,
    ) {
        let mut rules = Rules::default();
        rules.user("ann", "a").user("bob", "b");
        rules
            .private("team/app", &["ann"])
            .private("team/b", &["ann"]);
        let mut tokens = Tokens::default();
        let issued = Issued {
            user: user.map(str::to_owned),
            access: rules.grant(user, ["repository:team/app:pull"]),
            expires_at: NOW + Duration::from_secs(1),
            is_revoked: false,
        };
        tokens.issue("token".to_owned(), issued);
        change(&mut rules, &mut tokens);
        let bearer = Credential::Bearer("token".to_owned());
        let needs = [(repository.to_owned(), Action::Pull)];
        let (_, verdict) = tokens.judge((&rules, Scheme::Bearer), &bearer, &needs, NOW);
        assert_eq!(verdict, expect);
    }

    #[test]
    fn a_token_is_good_for_its_user_its_scope_and_its_time() {
        let (ann, bob) = (Some("ann"), Some("bob"));
        let insufficient = Verdict::Challenge(Some("insufficient_scope"));
        let invalid = Verdict::Challenge(Some("invalid_token"));
        check(|_, _| {}, (ann, "team/app"), Verdict::Allow);
        check(|_, _| {}, (ann, "team/b"), insufficient);
        check(|_, _| {}, (bob, "team/app"), insufficient);
        check(|_, _| {}, (None, "team/app"), insufficient);
        let private = |rules: &mut Rules, _: &mut Tokens| {
            rules.private("team/app", &[]);
        };
        check(private, (ann, "team/app"), insufficient);
        let hidden = |rules: &mut Rules, _: &mut Tokens| rules.forbidden = Forbidden::Hidden;
        check(hidden, (bob, "team/app"), Verdict::Hidden);
        check(hidden, (None, "team/app"), Verdict::Hidden);
        let denied = |rules: &mut Rules, _: &mut Tokens| rules.forbidden = Forbidden::Denied;
        check(denied, (bob, "team/app"), Verdict::Denied);
        check(denied, (None, "team/app"), insufficient);
        check(
            |_, tokens| tokens.expire_all(NOW),
            (ann, "team/app"),
            invalid,
        );
        check(
            |_, tokens| tokens.revoke("token"),
            (ann, "team/app"),
            invalid,
        );
        check(
            |_, tokens| tokens.revoke_all_of("ann"),
            (ann, "team/app"),
            invalid,
        );
        let of_bob = |_: &mut Rules, tokens: &mut Tokens| tokens.revoke_all_of("bob");
        check(of_bob, (ann, "team/app"), Verdict::Allow);
    }

    #[test]
    fn a_password_is_good_where_there_are_no_tokens_and_only_there() {
        let mut rules = Rules::default();
        rules
            .user("ann", "a")
            .private("app", &["ann"])
            .public("open");
        let basic = |password: &str| Credential::Basic {
            user: "ann".to_owned(),
            password: password.to_owned(),
        };
        let of = |scheme, credential: &Credential, repository: &str| {
            let needs = [(repository.to_owned(), Action::Pull)];
            Tokens::default()
                .judge((&rules, scheme), credential, &needs, NOW)
                .1
        };
        let challenge = Verdict::Challenge(None);
        assert_eq!(of(Scheme::Basic, &basic("a"), "app"), Verdict::Allow);
        assert_eq!(of(Scheme::Basic, &basic("b"), "app"), challenge);
        assert_eq!(of(Scheme::Basic, &Credential::None, "app"), challenge);
        assert_eq!(of(Scheme::Basic, &Credential::None, "open"), Verdict::Allow);
        assert_eq!(of(Scheme::Bearer, &basic("a"), "app"), challenge);
        assert_eq!(of(Scheme::Bearer, &Credential::None, "open"), challenge);
    }
}
