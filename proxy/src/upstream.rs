//! Pure: what an error of the upstream side is to the one who asked.

use http::{StatusCode, header};
use swarm::{
    ReadError,
    open::OpenError,
    source::{Answer, AnsweredBy, SourceError},
};

use crate::{
    body::BrokenOff,
    error::{Fault, Refusal, UpstreamWord},
    range,
};

/// Headers of an upstream's refusal that its caller needs.
const RELAYED: [header::HeaderName; 2] = [header::WWW_AUTHENTICATE, header::RETRY_AFTER];

/// The refusal for `error`; a 404 of the upstream's means `missing`.
pub(crate) fn refusal(error: &SourceError, missing: Fault) -> Refusal {
    let fault = match error {
        SourceError::NotAllowed(_) | SourceError::Forbidden { .. } => Fault::NotAllowed,
        SourceError::Unreachable { .. } => Fault::Unreachable,
        SourceError::Stalled { .. } => Fault::Slow,
        SourceError::Redirect(_) | SourceError::Interrupted | SourceError::Malformed(_) => {
            Fault::Failing
        }
        SourceError::TooLong { .. } => Fault::TooLarge,
        SourceError::RateLimited { .. } => Fault::Limited,
        SourceError::Refused(answer) | SourceError::Status(answer) => answered(answer, missing),
    };
    let mut refusal = Refusal::new(fault, error.to_string());
    // What a host behind a redirect says may hold a signed address, and no challenge of the registry's.
    if let Some(answer) = error
        .answer()
        .filter(|answer| answer.by == AnsweredBy::Registry)
    {
        relay(&mut refusal, answer);
    }
    refusal
}

/// The refusal for a content that its registry did not give, or not to this caller.
///
/// Whether somebody may read is asked by HEAD, which has no body: with the upstream's words a refusal
/// would tell what is held from what is not.
pub(crate) fn content_refusal(error: &SourceError, missing: Fault) -> Refusal {
    let mut refused = refusal(error, missing);
    let is_about_rights = matches!(refused.fault, Fault::Unauthorized | Fault::Denied);
    if is_about_rights || refused.fault == missing {
        refused.upstream = None;
    }
    refused
}

/// The refusal for a content that the swarm could not open.
pub(crate) fn open_refusal(error: &OpenError, missing: Fault) -> Refusal {
    let fault = match error {
        OpenError::Source(error) => return content_refusal(error, missing),
        OpenError::NotSatisfiable { size } => {
            let refused = Refusal::new(Fault::Range, error.to_string());
            return refused.with_text(
                header::CONTENT_RANGE,
                &range::content_range_unsatisfied(*size),
            );
        }
        OpenError::NotProven => Fault::Denied,
        OpenError::Corrupt | OpenError::ResumeRefused => Fault::Corrupt,
        OpenError::Overloaded | OpenError::ShuttingDown => Fault::Local,
    };
    Refusal::new(fault, error.to_string())
}

/// What it is to the one who asked that a content has no more bytes.
pub(crate) fn broken_off(error: &ReadError) -> BrokenOff {
    let fault = match error {
        ReadError::Source(error) => refusal(error, Fault::Failing).fault,
        ReadError::Corrupt => Fault::Corrupt,
        ReadError::Disk(_) | ReadError::Cancelled => Fault::Local,
    };
    let reason = error.to_string();
    BrokenOff { fault, reason }
}

/// Whether this error of a registry says neither that its caller may see a content nor that it may not:
/// whoever goes on and asks for it learns more.
pub(crate) fn is_undecided(error: &SourceError) -> bool {
    let is_an_answer = |answer: &Answer| {
        answer.by == AnsweredBy::Registry && answer.status == StatusCode::NOT_FOUND
    };
    match error {
        SourceError::Status(answer) => !is_an_answer(answer),
        silent_or_refused => is_outage(silent_or_refused),
    }
}

/// Whether the last answer for a tag is still worth more than this error: the upstream did not say
/// no, it said nothing.
pub(crate) fn is_outage(error: &SourceError) -> bool {
    match error {
        SourceError::Unreachable { .. }
        | SourceError::Stalled { .. }
        | SourceError::Redirect(_)
        | SourceError::RateLimited { .. }
        | SourceError::Interrupted
        | SourceError::TooLong { .. }
        | SourceError::Malformed(_) => true,
        SourceError::Status(answer) => {
            answer.by == AnsweredBy::Elsewhere
                || answer.status.is_server_error()
                || matches!(answer.status.as_u16(), 408 | 429)
        }
        SourceError::NotAllowed(_) | SourceError::Forbidden { .. } | SourceError::Refused(_) => {
            false
        }
    }
}

fn answered(answer: &Answer, missing: Fault) -> Fault {
    if answer.by == AnsweredBy::Elsewhere {
        return Fault::Failing;
    }
    match answer.status {
        StatusCode::UNAUTHORIZED => Fault::Unauthorized,
        StatusCode::FORBIDDEN => Fault::Denied,
        StatusCode::NOT_FOUND => missing,
        StatusCode::TOO_MANY_REQUESTS => Fault::Limited,
        _ => Fault::Failing,
    }
}

fn relay(refusal: &mut Refusal, answer: &Answer) {
    for name in RELAYED {
        for value in answer.headers.get_all(&name) {
            refusal.headers.append(name.clone(), value.clone());
        }
    }
    refusal.upstream = Some(UpstreamWord {
        status: answer.status,
        content_type: answer.headers.get(header::CONTENT_TYPE).cloned(),
        body: answer.body.clone(),
    });
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};

    use swarm::source::Awaited;

    use super::*;
    use crate::client::Asker;

    fn answer(status: u16, by: AnsweredBy) -> Box<Answer> {
        let mut headers = HeaderMap::new();
        headers.append(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"a\""),
        );
        headers.append(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"b\""),
        );
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("9"));
        headers.insert(header::SET_COOKIE, HeaderValue::from_static("secret"));
        let status = StatusCode::from_u16(status).unwrap();
        Box::new(Answer {
            status,
            headers,
            body: Bytes::new(),
            by,
        })
    }

    #[track_caller]
    fn check(error: &SourceError, fault: Fault, is_an_outage: bool) {
        assert_eq!(refusal(error, Fault::BlobUnknown).fault, fault, "{error:?}");
        assert_eq!(is_outage(error), is_an_outage, "{error:?}");
    }

    #[test]
    fn each_error_of_the_source_has_its_fault() {
        let by_registry = |status| SourceError::Status(answer(status, AnsweredBy::Registry));
        let by_other = |status| SourceError::Status(answer(status, AnsweredBy::Elsewhere));
        check(&by_registry(404), Fault::BlobUnknown, false);
        check(&by_registry(400), Fault::Failing, false);
        check(&by_registry(500), Fault::Failing, true);
        check(&by_registry(429), Fault::Limited, true);
        check(&by_other(404), Fault::Failing, true);
        check(&by_other(403), Fault::Failing, true);
        check(
            &SourceError::Refused(answer(401, AnsweredBy::Registry)),
            Fault::Unauthorized,
            false,
        );
        check(
            &SourceError::Refused(answer(403, AnsweredBy::Registry)),
            Fault::Denied,
            false,
        );
        check(&SourceError::Interrupted, Fault::Failing, true);
        check(&SourceError::TooLong { len_max: 1 }, Fault::TooLarge, true);
        let limited = answer(429, AnsweredBy::Registry);
        check(
            &SourceError::RateLimited {
                answer: limited,
                retry_after: None,
            },
            Fault::Limited,
            true,
        );
    }

    #[test]
    fn a_body_that_ends_early_has_the_fault_of_what_ended_it() {
        let source = |error| ReadError::Source(Arc::new(error));
        let stalled = SourceError::Stalled {
            awaited: Awaited::Body,
            waited: Duration::from_secs(1),
        };
        for (error, fault) in [
            (source(stalled), Fault::Slow),
            (source(SourceError::Interrupted), Fault::Failing),
            (ReadError::Corrupt, Fault::Corrupt),
            (ReadError::Cancelled, Fault::Local),
        ] {
            assert_eq!(broken_off(&error).fault, fault, "{error:?}");
        }
    }

    #[test]
    fn the_challenge_is_passed_on_untouched_and_nothing_else() {
        let error = SourceError::Refused(answer(401, AnsweredBy::Registry));
        let response = refusal(&error, Fault::BlobUnknown).response(Asker::Namespace);
        assert_eq!(response.status(), 401);
        let challenges: Vec<_> = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .collect();
        assert_eq!(challenges, ["Bearer realm=\"a\"", "Basic realm=\"b\""]);
        assert!(!response.headers().contains_key(header::SET_COOKIE));
    }

    #[test]
    fn a_host_behind_a_redirect_is_not_quoted() {
        let error = SourceError::Status(answer(403, AnsweredBy::Elsewhere));
        let response = refusal(&error, Fault::BlobUnknown).response(Asker::Direct);
        assert_eq!(response.status(), 502);
    }
}
