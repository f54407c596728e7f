//! What the source, or a parent, says that an attempt is, before any of its pieces.

use protocol::{AttemptId, Layout, Origin, Visibility};

use super::source_run::Answer;
use crate::source::Access;

/// What the source, or a parent, says that the attempt is.
#[derive(Debug)]
pub(crate) struct Begin {
    /// `None` from the source, which knows nothing of attempts.
    pub(crate) attempt: Option<AttemptId>,
    pub(crate) layout: Layout,
    pub(crate) media_type: Option<String>,
    pub(crate) visibility: Visibility,
}

// === impl Begin ===

impl Begin {
    pub(crate) fn from_source(answer: &Answer, origin: &Origin) -> Self {
        Self {
            attempt: None,
            layout: Layout::for_size(answer.size),
            media_type: answer.media_type.clone(),
            visibility: match answer.access {
                Access::Anonymous => Visibility::Public,
                Access::Caller => Visibility::Private {
                    origins: vec![origin.registry.clone()],
                },
            },
        }
    }
}
