//! Opens one content for one caller: who may read it is found out once, then any parts of it are had.

use std::sync::Arc;

use protocol::{Origin, TaskId, Visibility};
use swarm::{
    open::{OpenError, OpenRequest, ReadProof, Wanted},
    source::Patience,
};

use crate::{
    answer::Ask,
    blob::Named,
    engine::{Engine, OpenContent},
    error::{Fault, Refusal},
    route::Target,
    serve::Proxy,
    upstream,
};

/// A content that a caller may read, as far as anybody has said.
#[derive(Debug)]
pub(crate) struct Door {
    engine: Arc<dyn Engine>,
    request: OpenRequest,
    /// What the registry said where that was neither yes nor no.
    unproven: Option<Refusal>,
    missing: Fault,
}

// === impl Proxy ===

impl Proxy {
    /// Opens a content that this caller may read: one that is held and everybody's, or one that the
    /// registry of the request lets it see.
    pub(crate) async fn open(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
        wanted: Wanted,
    ) -> Result<OpenContent, Refusal> {
        let door = self.door(ask, target, named).await?;
        let opened = door.open(wanted, ask.patience()).await;
        opened.map_err(|error| door.refusal(&error))
    }

    /// Whether this caller may open a content.
    pub(crate) async fn door(
        &self,
        ask: &Ask,
        target: &Target,
        named: Named,
    ) -> Result<Door, Refusal> {
        let task = TaskId(named.digest);
        let held = self.engine.held(task).await;
        let is_everybodys =
            held.is_some_and(|held| held.complete && held.visibility == Visibility::Public);
        let (proof, unproven) = match is_everybodys {
            true => (ReadProof::Unchecked, None),
            false => match self.may_read(ask, target, named).await {
                Ok(_) => (ReadProof::Checked, None),
                Err(unproven) if unproven.is_undecided => {
                    (ReadProof::Unchecked, Some(unproven.refusal))
                }
                Err(unproven) => return Err(unproven.refusal),
            },
        };
        let request = OpenRequest {
            task,
            origin: Origin {
                registry: target.registry.clone(),
                repository: target.repository.clone(),
                kind: named.kind,
            },
            wanted: Wanted::Whole,
            credential: ask.credential.clone(),
            proof,
        };
        Ok(Door {
            engine: Arc::clone(&self.engine),
            request,
            unproven,
            missing: named.missing(),
        })
    }
}

// === impl Door ===

impl Door {
    pub(crate) async fn open(
        &self,
        wanted: Wanted,
        patience: Patience,
    ) -> Result<OpenContent, OpenError> {
        let request = OpenRequest {
            wanted,
            ..self.request.clone()
        };
        self.engine.open(request, patience).await
    }

    /// What `error` of an open is to the caller.
    pub(crate) fn refusal(&self, error: &OpenError) -> Refusal {
        match (error, &self.unproven) {
            // Held as private, and the registry did not say who may read it.
            (OpenError::NotProven, Some(refusal)) => refusal.clone(),
            _ => upstream::open_refusal(error, self.missing),
        }
    }
}
