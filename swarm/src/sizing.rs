//! Asks the source how large a content is, without its body.

use crate::{
    open::OpenRequest,
    source::{Method, Redirects, Reference, Resource, SourceError, UpstreamRequest, Upstreams},
};

/// The size that the source tells; `None` where it tells none.
pub(crate) async fn learn(
    upstreams: &Upstreams,
    request: &OpenRequest,
) -> Result<Option<u64>, SourceError> {
    let digest = request.task.0;
    let resource = match request.origin.kind {
        protocol::ContentKind::Blob => Resource::Blob(digest),
        protocol::ContentKind::Manifest => Resource::Manifest(Reference::Digest(digest)),
    };
    let head = UpstreamRequest {
        method: Method::Head,
        registry: request.origin.registry.clone(),
        repository: request.origin.repository.clone(),
        resource,
        range: None,
        credential: request.credential.clone(),
        redirects: Redirects::Follow,
    };
    upstreams
        .send(&head)
        .await
        .map(|response| response.content_length)
}
