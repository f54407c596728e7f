//! The engine under any order of events and hosts: what must hold after each of them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    prelude::{ProptestConfig, Strategy, any, prop_assert, proptest},
    test_runner::TestCaseError,
};
use protocol::{
    AttemptId, PieceSet, TaskId, Up,
    operator::{PeerStatus, PreheatOrder, Scope, Snapshot, TaskStatus},
    scheduler::{Failure, Outcome, ParentFailure},
};

use super::{
    Engine, Event, Limits,
    peer::Exclusion,
    tests::{epoch, hello, origin},
};

mod truthful;

use truthful::Truthful;

const HOSTS: u8 = 7;
const TASKS: u8 = 2;
const PEERS_MAX: usize = 5;

/// One step: who, which task, what, and a number for it.
type Step = (u8, u8, u8, u8);

fn limits() -> Limits {
    Limits {
        peers_per_task_max: PEERS_MAX,
        hosts_max: 6,
        depth_max: 3,
        siblings_max: 3,
        ..Limits::default()
    }
}

fn name(number: u8) -> String {
    format!("h{}", number % HOSTS)
}

fn task(number: u8) -> TaskId {
    TaskId(protocol::Digest::sha256_of(&[number % TASKS]))
}

fn said((who, which, what, argument): Step) -> Event {
    let task = task(which);
    let id = name(who).parse().unwrap();
    let up = match what {
        0 => return Event::Joined(hello(&name(who), who % HOSTS < 2, u32::from(argument % 4))),
        1 => return Event::Left(id),
        2 => Up::Held { tasks: vec![task] },
        3 => Up::Dropped { tasks: vec![task] },
        4..=9 => Up::Register {
            task,
            origin: origin(),
            wants: Vec::new(),
        },
        10 | 11 => {
            let new = PieceSet::of_range(0..u32::from(argument % 9));
            Up::Progress {
                task,
                attempt: AttemptId(1),
                total: Some(8),
                new,
            }
        }
        12 | 13 => {
            let reasons = [
                ParentFailure::Busy,
                ParentFailure::Gone,
                ParentFailure::Lied,
            ];
            let reason = reasons[usize::from(argument % 3)];
            Up::ParentFailed {
                task,
                parent: name(argument / 3).parse().unwrap(),
                reason,
            }
        }
        14 | 15 => Up::Finished {
            task,
            outcome: Outcome::Complete,
        },
        16 => Up::Finished {
            task,
            outcome: Outcome::Left,
        },
        17 => {
            let failures = [Failure::Refused, Failure::Unavailable, Failure::Corrupt];
            let failure = failures[usize::from(argument % 3)];
            Up::Finished {
                task,
                outcome: Outcome::Failed(failure),
            }
        }
        _ => Up::Load {
            uploads: u32::from(argument % 4),
            upload_rate: u64::from(argument) << 20,
        },
    };
    Event::Said(id, up)
}

fn holds(snapshot: &Snapshot, is_seed_expected: bool) -> Result<(), TestCaseError> {
    prop_assert!(snapshot.hosts.len() <= limits().hosts_max);
    for task in &snapshot.tasks {
        prop_assert!(task.peers.len() <= PEERS_MAX, "{task:?}");
        peers_hold(task)?;
        prop_assert!(
            is_seed_expected || somebody_helps(task),
            "nobody for those who wait in {task:?}"
        );
    }
    for host in &snapshot.hosts {
        let is_child = |peer: &&PeerStatus| peer.parents.contains(&host.host.id);
        let peers = snapshot.tasks.iter().flat_map(|task| &task.peers);
        let children = peers.filter(is_child).count();
        prop_assert!(
            host.children as usize == children,
            "{host:?} has {children} children"
        );
        let reserved = limits().reserved_children * host.tasks as usize;
        let children_max = host.upload_slots as usize + reserved;
        prop_assert!(children <= children_max, "{host:?}");
    }
    Ok(())
}

fn peers_hold(task: &TaskStatus) -> Result<(), TestCaseError> {
    let fetchers = task
        .peers
        .iter()
        .filter(|peer| peer.state == "at-source")
        .count();
    prop_assert!(
        fetchers == usize::from(task.phase == "fetching"),
        "{task:?}"
    );
    let mut rooted = BTreeSet::new();
    for _ in &task.peers {
        for peer in &task.peers {
            let is_fed = peer.state == "fed";
            prop_assert!(is_fed != peer.parents.is_empty(), "{task:?}");
            prop_assert!(peer.parents.len() <= limits().parents_max, "{task:?}");
            // A graph is acyclic where everybody is reached after all of its parents.
            if peer.parents.iter().all(|parent| rooted.contains(parent)) {
                rooted.insert(peer.host.clone());
            }
        }
    }
    prop_assert!(rooted.len() == task.peers.len(), "a cycle in {task:?}");
    siblings_hold(task)?;
    Ok(())
}

/// Whether those who do not have it all can get the rest.
fn somebody_helps(task: &TaskStatus) -> bool {
    let is_complete = |peer: &PeerStatus| peer.state == "complete";
    let is_wanted = !task.peers.iter().all(is_complete);
    let has_holder = task.peers.iter().any(is_complete);
    // Where all fetchers failed, those who wait go to the upstream one by one.
    let is_coming = matches!(
        task.phase.as_str(),
        "settling" | "warming" | "fetching" | "failed"
    );
    !is_wanted || is_coming || has_holder
}

fn siblings_hold(task: &TaskStatus) -> Result<(), TestCaseError> {
    for peer in &task.peers {
        prop_assert!(peer.siblings.len() <= limits().siblings_max, "{task:?}");
        for sibling in &peer.siblings {
            let other = task.peers.iter().find(|other| other.host == *sibling);
            let is_mutual = other.is_some_and(|other| other.siblings.contains(&peer.host));
            prop_assert!(is_mutual && *sibling != peer.host, "{task:?}");
        }
    }
    Ok(())
}

/// What only the engine's own records show of `task`.
fn records_hold(engine: &Engine, now: Instant) -> Result<(), TestCaseError> {
    for task in engine.tasks.values() {
        for (key, peer) in task.peers() {
            prop_assert!(peer.depth <= engine.limits.depth_max, "{task:?}");
            for parent in &peer.parents {
                let is_excluded = Exclusion::holds(&peer.excluded, *parent, now);
                prop_assert!(!is_excluded, "{key:?} has {parent:?} in {task:?}");
                prop_assert!(!engine.hosts.is_banned(*parent, now), "{parent:?}");
            }
        }
        let source = task.source_host().filter(|_| task.fetcher().is_none());
        let has_failed =
            source.is_some_and(|seed| Exclusion::holds(&task.failed_fetchers, seed, now));
        prop_assert!(!has_failed, "a seed that failed warms {task:?}");
    }
    Ok(())
}

fn step() -> impl Strategy<Value = (Step, u16)> {
    let event = (any::<u8>(), any::<u8>(), 0u8..19, any::<u8>());
    (event, any::<u16>())
}

/// Plays `steps` before an engine whose view names `seeds`; all that must hold holds after each.
fn plays(steps: Vec<(Step, u16)>, seeds: &[&str]) -> Result<Truthful, TestCaseError> {
    let view = seeds.iter().map(|seed| seed.parse().unwrap());
    let mut engine = Engine::new(limits(), view.collect());
    let mut now = epoch();
    let mut oldest_order = 0;
    for number in 0..HOSTS - 2 {
        engine.handle(now, said((number, 0, 0, 3)));
    }
    for (step, wait) in steps {
        let (_, which, what, argument) = step;
        if what == 18 && argument % 4 == 0 {
            let scope = if argument % 8 == 0 {
                Scope::Seeds
            } else {
                Scope::AllHosts
            };
            let tasks = vec![(task(which), origin())];
            // One too many is refused, and the oldest makes room.
            if engine.preheat(now, PreheatOrder { tasks, scope }).is_err() {
                engine.end_preheat(oldest_order);
                oldest_order += 1;
            }
        }
        engine.handle(now, said(step));
        // Most events come close together, some after a while.
        now += Duration::from_millis(u64::from(wait) * u64::from(wait) / 400_000);
        if engine.poll_timeout().is_some_and(|at| at <= now) {
            engine.handle_timeout(now);
            prop_assert!(engine.poll_timeout().is_none_or(|at| now < at));
        }
        while let Some(command) = engine.poll_command() {
            prop_assert!(engine.has_host(&command.host), "{command:?}");
        }
        while engine.poll_expired().is_some() {}
        holds(&engine.snapshot(now, usize::MAX), !seeds.is_empty())?;
        records_hold(&engine, now)?;
    }
    Ok(Truthful::new(engine, now))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// The graph holds, and nobody waits for ever.
    #[test]
    fn whatever_happens_the_graph_holds(steps in vec(step(), 1..120)) {
        let mut after = plays(steps, &[])?;
        after.settle();
        after.is_over()?;
    }

    /// So it does where the view names the seeds, one of which is never here.
    #[test]
    fn whatever_happens_the_graph_holds_with_seeds_in_the_view(steps in vec(step(), 1..120)) {
        let mut after = plays(steps, &["h0", "h1", "away"])?;
        after.settle();
        after.is_over()?;
    }
}
