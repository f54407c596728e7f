//! What every driver is given of its host.

use std::sync::Arc;

use protocol::{Host, Identity};

use super::spoiled::Spoiled;
use crate::{
    conductor,
    peer::{Bans, Hub, Lent, PieceClient},
    session::Sessions,
    source::Upstreams,
    store::Store,
};

/// What every driver needs of its host.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) store: Store,
    pub(crate) upstreams: Upstreams,
    pub(crate) identity: Identity,
    pub(crate) sessions: Sessions,
    pub(crate) hub: Hub,
    pub(crate) pieces: PieceClient,
    pub(crate) seeds: Arc<Vec<Host>>,
    pub(crate) limits: conductor::Limits,
    pub(crate) bans: Bans,
    pub(crate) spoiled: Spoiled,
    pub(crate) lent: Lent,
}
