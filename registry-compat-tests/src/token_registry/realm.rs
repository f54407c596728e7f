//! The token server: passwords and refresh tokens in, tokens out; anybody gets one for what is public.
//!
//! By GET as the docker distribution specifies ("Token Authentication"), by POST as its OAuth2 form.

use anyhow::Result;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    Caller, State, TokenForm,
    credential::Credential,
    locked,
    rights::Access,
    serve::{Answered, Body, error, json_answer, parameter, parameters},
    tokens::{Issued, Scheme},
};
use crate::process::unix_time;

/// A purchase that is paid for.
struct Order<'a> {
    user: Option<&'a str>,
    scopes: &'a [String],
    /// A refresh token to tell of.
    refresh: Option<String>,
}

/// The longest form that is read, in bytes.
const FORM_LEN_MAX: usize = 64 << 10;

pub(super) async fn answer(state: &State, request: Request<Incoming>) -> Result<Answered> {
    if request.uri().path() != "/token" || state.settings.scheme == Scheme::Basic {
        return Ok((Caller::Nobody, error(StatusCode::NOT_FOUND, "UNSUPPORTED")?));
    }
    match *request.method() {
        Method::GET => by_query(state, &request),
        Method::POST if !locked(&state.rules).refuses_post => by_form(state, request).await,
        _ => Ok((Caller::Nobody, error(StatusCode::NOT_FOUND, "UNSUPPORTED")?)),
    }
}

fn by_query(state: &State, request: &Request<Incoming>) -> Result<Answered> {
    let query = request.uri().query().unwrap_or_default();
    let credential = Credential::of(request.headers());
    let user = match &credential {
        Credential::None => None,
        Credential::Basic { user, password } if locked(&state.rules).is_user(user, password) => {
            Some(user.as_str())
        }
        Credential::Basic { .. } | Credential::Bearer(_) | Credential::Other => {
            return Ok((Caller::Unknown, unauthorized(state)?));
        }
    };
    let wants_refresh = parameter(query, "offline_token").is_some_and(|told| told == "true");
    let order = Order {
        user,
        scopes: &parameters(query, "scope"),
        refresh: user
            .filter(|_| wants_refresh)
            .and_then(|user| state.give_refresh(user)),
    };
    let caller = user.map_or(Caller::Nobody, |user| Caller::User(user.to_owned()));
    Ok((caller, state.sell(query, order)?))
}

async fn by_form(state: &State, request: Request<Incoming>) -> Result<Answered> {
    let read = Limited::new(request.into_body(), FORM_LEN_MAX)
        .collect()
        .await;
    let Ok(form) = read.map(|read| read.to_bytes()) else {
        let answer = error(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID")?;
        return Ok((Caller::Nobody, answer));
    };
    let form = String::from_utf8_lossy(&form).into_owned();
    let told = |name| parameter(&form, name).unwrap_or_default();
    let grant = told("grant_type");
    let (user, refresh) = match grant.as_str() {
        "password" => {
            let (user, password) = (told("username"), told("password"));
            let is_user = locked(&state.rules).is_user(&user, &password);
            let wants = is_user && told("access_type") == "offline";
            let refresh = wants.then(|| state.give_refresh(&user)).flatten();
            (is_user.then_some(user), refresh)
        }
        "refresh_token" => {
            let token = told("refresh_token");
            let user = locked(&state.tokens)
                .user_of_refresh(&token)
                .map(str::to_owned);
            let user = user.filter(|user| locked(&state.rules).users.contains_key(user));
            (user, Some(token))
        }
        _ => {
            let answer = json_answer(
                StatusCode::BAD_REQUEST,
                &json!({"error": "unsupported_grant_type"}),
            )?;
            return Ok((Caller::Nobody, answer));
        }
    };
    let Some(user) = user else {
        return Ok((Caller::Unknown, unauthorized(state)?));
    };
    let order = Order {
        user: Some(&user),
        scopes: &parameters(&form, "scope"),
        refresh,
    };
    let answer = state.sell(&form, order)?;
    Ok((Caller::User(user), answer))
}

// === impl State ===

impl State {
    fn sell(&self, query: &str, order: Order<'_>) -> Result<Response<Body>> {
        if parameter(query, "service").is_some_and(|told| told != self.settings.service) {
            return error(StatusCode::BAD_REQUEST, "UNSUPPORTED");
        }
        let life = locked(&self.rules).token_life;
        let token = self.give_token(order.user, order.scopes);
        let mut told = json!({
            "token": token,
            "access_token": token,
            "expires_in": life.as_secs(),
            "issued_at": rfc3339(unix_time().as_secs()),
        });
        if let Some(refresh) = order.refresh {
            told["refresh_token"] = Value::String(refresh);
        }
        json_answer(StatusCode::OK, &told)
    }

    /// A token for as much of `scopes` as `user` has a right to.
    pub(super) fn give_token(&self, user: Option<&str>, scopes: &[String]) -> String {
        let (access, life) = {
            let rules = locked(&self.rules);
            let granted = rules.grant(user, scopes.iter().map(String::as_str));
            (granted, rules.token_life)
        };
        let now = unix_time();
        let issued = Issued {
            user: user.map(str::to_owned),
            access,
            expires_at: now + life,
            is_revoked: false,
        };
        let token = match self.settings.token_form {
            TokenForm::Opaque => format!("opaque-{}", secret()),
            TokenForm::Jwt => self.jwt(&issued, now.as_secs()),
        };
        locked(&self.tokens).issue(token.clone(), issued);
        token
    }

    pub(super) fn give_refresh(&self, user: &str) -> Option<String> {
        let token = format!("refresh-{}", secret());
        let is_kept = locked(&self.tokens).remember_refresh(token.clone(), user);
        is_kept.then_some(token)
    }

    fn jwt(&self, issued: &Issued, now: u64) -> String {
        let access: Vec<Value> = issued.access.iter().map(told_access).collect();
        let header = json!({"alg": "none", "typ": "JWT"});
        let claims = json!({
            "iss": "token-registry",
            "aud": self.settings.service,
            "sub": issued.user.as_deref().unwrap_or_default(),
            "iat": now,
            "nbf": now,
            "exp": issued.expires_at.as_secs(),
            "jti": secret(),
            "access": access,
        });
        let [header, claims] =
            [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        format!("{header}.{claims}.")
    }
}

fn told_access(access: &Access) -> Value {
    let actions: Vec<&str> = access.actions.iter().map(|action| action.word()).collect();
    json!({"type": "repository", "name": access.repository, "actions": actions})
}

fn unauthorized(state: &State) -> Result<Response<Body>> {
    let mut answer = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED")?;
    let challenge = format!("Basic realm=\"{}\"", state.settings.service);
    let value = HeaderValue::try_from(challenge)?;
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    Ok(answer)
}

fn secret() -> String {
    hex::encode(rand::random::<[u8; 24]>())
}

/// Seconds since the epoch as RFC 3339 writes them in UTC; the calendar is Howard Hinnant's
/// "days_from_civil", backwards.
fn rfc3339(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = month_from_march % 12 + 3 - if month_from_march < 10 { 0 } else { 12 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_the_standard_has_it() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_764_068_398), "2025-11-25T10:59:58Z");
        assert_eq!(rfc3339(1_767_225_600), "2026-01-01T00:00:00Z");
    }
}
