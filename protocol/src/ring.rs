//! Pure: which seed fetches a task. The same answer on every host that has the same view.
//!
//! Rendezvous hashing: every seed gets a weight for the task and the heaviest wins, so that a
//! seed that leaves moves only its own tasks.

use crate::{content::TaskId, host::HostId};

/// The member that is responsible for `task`; `None` where there is no member.
pub fn responsible<'a>(
    task: TaskId,
    members: impl IntoIterator<Item = &'a HostId>,
) -> Option<&'a HostId> {
    members
        .into_iter()
        .max_by_key(|member| (weight(task, member), *member))
}

fn weight(task: TaskId, member: &HostId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(task.0.as_bytes());
    hasher.update(member.as_str().as_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn hosts(names: &[&str]) -> Vec<HostId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_lost_member_moves_only_its_own_tasks() {
        let all = hosts(&["a", "b", "c", "d"]);
        let mut moved = 0;
        for n in 0..400u32 {
            let task = TaskId(Digest::sha256_of(&n.to_le_bytes()));
            let before = responsible(task, &all);
            let after = responsible(task, &all[..3]);
            if before != after {
                assert_eq!(before.unwrap().as_str(), "d");
                moved += 1;
            }
        }
        assert!((60..140).contains(&moved), "about a quarter, not {moved}");
    }

    #[test]
    fn the_order_of_the_view_does_not_matter() {
        let task = TaskId(Digest::sha256_of(b"x"));
        assert_eq!(
            responsible(task, &hosts(&["a", "b", "c"])),
            responsible(task, &hosts(&["c", "a", "b"]))
        );
        assert_eq!(responsible(task, &[]), None);
    }
}
