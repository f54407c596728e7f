//! How many connections the process can hold with the files and sockets that it may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a listener leaves to files, to upstreams and to the other listeners: it has a half at most.
const SHARE: u64 = 2;

/// Lets the process have as many descriptors open as it is allowed to ask for, and says how many
/// connections one listener holds of `wanted`.
pub(crate) fn connections(wanted: usize) -> usize {
    let had = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: had.maximum,
        maximum: had.maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => had.maximum,
        Err(_) => had.current,
    };
    let held = at_most(wanted, limit);
    if held < wanted {
        tracing::warn!(
            connections_max = wanted,
            held,
            descriptors = limit,
            "each listener holds fewer connections than configured: raise the limit of open files"
        );
    }
    held
}

/// Of `wanted` connections, those for which `limit` descriptors are enough; `None` is no limit.
fn at_most(wanted: usize, limit: Option<u64>) -> usize {
    let share = limit.and_then(|limit| usize::try_from(limit / SHARE).ok());
    share.map_or(wanted, |share| wanted.min(share.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_half_of_the_descriptors_at_most() {
        assert_eq!(at_most(4096, Some(1_048_576)), 4096);
        assert_eq!(at_most(4096, Some(1024)), 512);
        assert_eq!(at_most(4096, Some(1)), 1);
        assert_eq!(at_most(4096, None), 4096);
        assert_eq!(at_most(7, Some(1024)), 7);
    }
}
