//! Rights that other hosts have lent to this seed: each for one task, used where the registry wants to
//! know who asks, in memory alone and not for long.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use protocol::{Origin, TaskId};
use tokio::{sync::Notify, time::timeout};

use crate::source::Credential;

/// The rights lent to this host. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Lent {
    rights: Cache<TaskId, (Origin, Credential)>,
    came: Arc<Notify>,
}

/// Rights kept at once; the least used go first.
const RIGHTS_MAX: u64 = 4096;

/// How long one is kept.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How long a right is waited for that may be on its way: the scheduler's word to begin with a task may
/// be faster.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

// === impl Lent ===

impl Lent {
    /// The last that was lent counts: it has the most of its life before it.
    pub(crate) async fn put(&self, task: TaskId, origin: Origin, credential: Credential) {
        self.rights.insert(task, (origin, credential)).await;
        self.came.notify_waiters();
    }

    /// A right to read `task` at `origin`, if one is here or comes in a moment.
    pub(crate) async fn wait_for(&self, task: TaskId, origin: &Origin) -> Option<Credential> {
        let waiting = async {
            loop {
                let came = self.came.notified();
                if let Some(credential) = self.get(task, origin).await {
                    return credential;
                }
                came.await;
            }
        };
        timeout(ON_ITS_WAY, waiting).await.ok()
    }

    async fn get(&self, task: TaskId, origin: &Origin) -> Option<Credential> {
        let (of, credential) = self.rights.get(&task).await?;
        (of == *origin).then_some(credential)
    }
}

impl Default for Lent {
    fn default() -> Self {
        let rights = Cache::builder().max_capacity(RIGHTS_MAX);
        Self {
            rights: rights.time_to_live(KEPT_FOR).build(),
            came: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use protocol::{ContentKind, Digest};

    use super::*;

    fn origin(repository: &str) -> Origin {
        Origin {
            registry: "r.example".parse().unwrap(),
            repository: repository.parse().unwrap(),
            kind: ContentKind::Blob,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_is_for_one_task_and_may_come_a_little_late() {
        let (lent, task) = (Lent::default(), TaskId(Digest::sha256_of(b"one")));
        let credential = Credential::from_header(&HeaderValue::from_static("Bearer x")).unwrap();
        let late = async {
            tokio::time::sleep(ON_ITS_WAY / 2).await;
            lent.put(task, origin("a"), credential.clone()).await;
        };
        let a = origin("a");
        let (waited, ()) = tokio::join!(lent.wait_for(task, &a), late);
        assert_eq!(waited, Some(credential));
        assert_eq!(lent.wait_for(task, &origin("b")).await, None);
        let other = TaskId(Digest::sha256_of(b"other"));
        assert_eq!(lent.wait_for(other, &a).await, None);
    }
}
