//! The schedulers of this host's cluster, as its operator asks them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use protocol::{HostId, Operator, TaskId};
use swarm::Swarm;

/// How long a session is waited for: a node that has just come up opens it in a moment.
const SESSION_WAIT: Duration = Duration::from_secs(3);

/// How often it is looked whether there is one.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Every scheduler that this host has sessions with, and the one in this process.
#[derive(Debug, Clone)]
pub(crate) struct Operators {
    pub(crate) by_scheduler: BTreeMap<HostId, Arc<dyn Operator>>,
    pub(crate) local: Option<Arc<dyn Operator>>,
}

// === impl Operators ===

impl Operators {
    /// The scheduler that decides about `task`.
    pub(crate) async fn of(
        &self,
        swarm: &Swarm,
        task: TaskId,
    ) -> anyhow::Result<(HostId, Arc<dyn Operator>)> {
        let known = async {
            loop {
                if let Some(scheduler) = swarm.scheduler_of(task) {
                    return scheduler;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let scheduler = tokio::time::timeout(SESSION_WAIT, known)
            .await
            .context("this node has no session with a scheduler")?;
        let operator = self.by_scheduler.get(&scheduler).cloned();
        let operator =
            operator.with_context(|| format!("the scheduler {scheduler} is not known"))?;
        Ok((scheduler, operator))
    }
}
