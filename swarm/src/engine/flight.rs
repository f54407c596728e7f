//! A download under way, and what it is to those who come to it.

use protocol::Origin;

use crate::{bandwidth::Demand, open::OpenRequest, source::Fingerprint, task::ActiveTask};

/// A download under way: from where, and by whose credential it would read what is private.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) active: ActiveTask,
    pub(super) origin: Origin,
    pub(super) credential: Option<Fingerprint>,
    pub(super) demand: Demand,
}

/// How an open came to its download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Started,
    Joined(Begun),
}

/// By whose wish the download was begun that somebody joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// By the same caller's, in the same repository.
    ByItself,
    /// By another caller's, in the same repository.
    ByAnother,
    /// In another repository, whose registry may say something else.
    Elsewhere,
}

// === impl Flight ===

impl Flight {
    /// What this download is to a `request` with the credential `own`.
    pub(super) fn begun(&self, request: &OpenRequest, own: Option<Fingerprint>) -> Begun {
        match () {
            () if self.origin != request.origin => Begun::Elsewhere,
            () if self.credential != own => Begun::ByAnother,
            () => Begun::ByItself,
        }
    }
}
