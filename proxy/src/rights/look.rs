//! How a registry is asked whether it lets somebody see a content: by HEAD, or by one byte.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use swarm::source::{
    Access, AnsweredBy, Patience, SourceError, Told, UpstreamRequest, UpstreamResponse,
};

use crate::{blob::first_byte_of, engine::Upstream};

/// What the registry told of a content that it let somebody see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) access: Access,
    pub(super) size: Option<u64>,
    pub(super) is_told: bool,
    /// How long ago the registry said so.
    pub(super) age: Duration,
}

// === impl Seen ===

impl Seen {
    /// Everybody may, as another host has heard.
    pub(super) fn of_everybodys(told: &Told) -> Self {
        Self {
            access: Access::Anonymous,
            size: told.size,
            is_told: told.size.is_some(),
            age: told.age,
        }
    }
}

/// Asks the registry whether it lets somebody see a content. A redirect is a yes, and is not followed:
/// where it leads has no say in who may read.
pub(super) async fn look(
    source: Arc<dyn Upstream>,
    request: UpstreamRequest,
    patience: Patience,
) -> Result<Seen, SourceError> {
    // Some registries have no HEAD, and say so in several ways.
    let is_refused = |error: &SourceError| match error {
        SourceError::Status(answer) => {
            answer.by == AnsweredBy::Registry
                && (answer.status == StatusCode::METHOD_NOT_ALLOWED
                    || answer.status.is_server_error())
        }
        _ => false,
    };
    let response = match source.send_lightly(request.clone(), patience).await {
        Err(error) if is_refused(&error) => {
            let by_get = first_byte_of(request);
            let response = source.send_lightly(by_get, patience).await?;
            let total = response.content_range.and_then(|range| range.total);
            return Ok(Seen {
                access: response.access,
                size: total,
                is_told: false,
                age: Duration::ZERO,
            });
        }
        response => response?,
    };
    Ok(Seen {
        access: response.access,
        size: size_of(&response),
        is_told: response.status.is_success(),
        age: Duration::ZERO,
    })
}

fn size_of(response: &UpstreamResponse) -> Option<u64> {
    response
        .content_length
        .filter(|_| response.status.is_success())
}
