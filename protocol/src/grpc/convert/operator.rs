//! Pure: what an operator asks of a scheduler, and the answers.

use super::{
    Malformed, host_message, origin_message, proto, read_host, read_id, read_origin, read_task,
    read_total,
    scheduler::{failure, read_failure},
    task_bytes,
};
use crate::{
    content::{Origin, TaskId},
    grpc::PROTOCOL_VERSION,
    host::HostId,
    operator::{
        Child, Explanation, HostStatus, Judged, LABEL_LEN_MAX, LISTED_MAX, PeerStatus,
        PreheatFailure, PreheatOrder, PreheatProgress, PreheatState, Question, SCORE_PARTS_MAX,
        Scope, ScorePart, Snapshot, TASKS_PER_ORDER_MAX, TaskProgress, TaskStatus, Verdict,
    },
    scheduler::{CANDIDATES_MAX, SIBLINGS_MAX},
};

pub(in crate::grpc) fn order_message(order: &PreheatOrder) -> proto::PreheatOrder {
    let task = |(task, origin): &(TaskId, Origin)| proto::PreheatTask {
        task: task_bytes(*task),
        origin: Some(origin_message(origin)),
    };
    let scope = match order.scope {
        Scope::Seeds => proto::Scope::Seeds,
        Scope::AllHosts => proto::Scope::AllHosts,
    };
    proto::PreheatOrder {
        version: PROTOCOL_VERSION,
        tasks: order.tasks.iter().map(task).collect(),
        scope: scope.into(),
    }
}

pub(in crate::grpc) fn read_order(told: proto::PreheatOrder) -> Result<PreheatOrder, Malformed> {
    bounded(told.tasks.len(), TASKS_PER_ORDER_MAX)?;
    let task = |task: proto::PreheatTask| Ok((read_task(&task.task)?, read_origin(task.origin)?));
    let tasks = all(told.tasks, task)?;
    let scope = match proto::Scope::try_from(told.scope) {
        Ok(proto::Scope::Seeds) => Scope::Seeds,
        Ok(proto::Scope::AllHosts) => Scope::AllHosts,
        Ok(proto::Scope::Unspecified) | Err(_) => {
            return Err(Malformed("an order is for no known scope"));
        }
    };
    Ok(PreheatOrder { tasks, scope })
}

pub(in crate::grpc) fn progress_message(progress: PreheatProgress) -> proto::PreheatProgress {
    proto::PreheatProgress {
        version: PROTOCOL_VERSION,
        tasks: progress.tasks.iter().map(task_progress).collect(),
    }
}

pub(in crate::grpc) fn read_progress(
    told: proto::PreheatProgress,
) -> Result<PreheatProgress, Malformed> {
    bounded(told.tasks.len(), TASKS_PER_ORDER_MAX)?;
    let task = |told: proto::TaskProgress| {
        Ok(TaskProgress {
            task: read_task(&told.task)?,
            wanted: told.wanted,
            held: told.held,
            pieces: told.pieces,
            total: read_total(told.total)?,
            state: read_state(&told)?,
        })
    };
    Ok(PreheatProgress {
        tasks: all(told.tasks, task)?,
    })
}

pub(in crate::grpc) fn snapshot_question(listed_max: usize) -> proto::SnapshotQuestion {
    proto::SnapshotQuestion {
        version: PROTOCOL_VERSION,
        listed_max: listed(listed_max),
    }
}

pub(in crate::grpc) fn read_listed(listed_max: u32) -> usize {
    (listed_max as usize).min(LISTED_MAX)
}

pub(in crate::grpc) fn snapshot_message(snapshot: Snapshot) -> proto::SnapshotAnswer {
    proto::SnapshotAnswer {
        version: PROTOCOL_VERSION,
        host_count: snapshot.host_count as u64,
        task_count: snapshot.task_count as u64,
        peer_count: snapshot.peer_count as u64,
        hosts: snapshot.hosts.iter().map(host_status).collect(),
        tasks: snapshot.tasks.into_iter().map(task_status).collect(),
    }
}

pub(in crate::grpc) fn read_snapshot(told: proto::SnapshotAnswer) -> Result<Snapshot, Malformed> {
    bounded(told.hosts.len(), LISTED_MAX)?;
    bounded(told.tasks.len(), LISTED_MAX)?;
    bounded(
        told.tasks.iter().map(|task| task.peers.len()).sum(),
        LISTED_MAX,
    )?;
    Ok(Snapshot {
        host_count: count(told.host_count),
        task_count: count(told.task_count),
        peer_count: count(told.peer_count),
        hosts: all(told.hosts, read_host_status)?,
        tasks: all(told.tasks, read_task_status)?,
    })
}

pub(in crate::grpc) fn question_message(question: &Question) -> proto::ExplainQuestion {
    proto::ExplainQuestion {
        version: PROTOCOL_VERSION,
        task: task_bytes(question.task),
        child: match &question.child {
            Child::Host(id) => Some(id.to_string()),
            Child::EveryRunning => None,
        },
        listed_max: listed(question.listed_max),
    }
}

pub(in crate::grpc) fn read_question(told: &proto::ExplainQuestion) -> Result<Question, Malformed> {
    Ok(Question {
        task: read_task(&told.task)?,
        child: match &told.child {
            Some(id) => Child::Host(read_id(id)?),
            None => Child::EveryRunning,
        },
        listed_max: read_listed(told.listed_max),
    })
}

pub(in crate::grpc) fn explanations_message(all: Vec<Explanation>) -> proto::ExplainAnswer {
    let explanation = |one: Explanation| proto::Explanation {
        child: one.child.to_string(),
        state: one.state,
        candidates: one.candidates.into_iter().map(judged).collect(),
    };
    proto::ExplainAnswer {
        version: PROTOCOL_VERSION,
        explanations: all.into_iter().map(explanation).collect(),
    }
}

pub(in crate::grpc) fn read_explanations(
    told: proto::ExplainAnswer,
) -> Result<Vec<Explanation>, Malformed> {
    let told = told.explanations;
    bounded(told.len(), LISTED_MAX)?;
    bounded(
        told.iter().map(|one| one.candidates.len()).sum(),
        LISTED_MAX,
    )?;
    all(told, |one| {
        Ok(Explanation {
            child: read_id(&one.child)?,
            state: one.state.map(read_name).transpose()?,
            candidates: all(one.candidates, read_judged)?,
        })
    })
}

fn task_progress(told: &TaskProgress) -> proto::TaskProgress {
    let (state, reason) = match told.state {
        PreheatState::Running => (proto::PreheatState::Running, None),
        PreheatState::Done => (proto::PreheatState::Done, None),
        PreheatState::Failed(PreheatFailure::NoHost) => (proto::PreheatState::NoHost, None),
        PreheatState::Failed(PreheatFailure::Stuck) => (proto::PreheatState::Stuck, None),
        PreheatState::Failed(PreheatFailure::Source(reason)) => {
            (proto::PreheatState::SourceFailed, Some(failure(reason)))
        }
    };
    proto::TaskProgress {
        task: task_bytes(told.task),
        wanted: told.wanted,
        held: told.held,
        pieces: told.pieces,
        total: told.total,
        state: state.into(),
        failure: reason.unwrap_or_default().into(),
    }
}

fn read_state(told: &proto::TaskProgress) -> Result<PreheatState, Malformed> {
    let is_unfailed = told.failure == i32::from(proto::Failure::Unspecified);
    match proto::PreheatState::try_from(told.state) {
        Ok(proto::PreheatState::Running) if is_unfailed => Ok(PreheatState::Running),
        Ok(proto::PreheatState::Done) if is_unfailed => Ok(PreheatState::Done),
        Ok(proto::PreheatState::NoHost) if is_unfailed => {
            Ok(PreheatState::Failed(PreheatFailure::NoHost))
        }
        Ok(proto::PreheatState::Stuck) if is_unfailed => {
            Ok(PreheatState::Failed(PreheatFailure::Stuck))
        }
        Ok(proto::PreheatState::SourceFailed) => {
            let reason = read_failure(told.failure)?;
            Ok(PreheatState::Failed(PreheatFailure::Source(reason)))
        }
        Ok(_) | Err(_) => Err(Malformed("a preheat is in no known state")),
    }
}

fn host_status(status: &HostStatus) -> proto::HostStatus {
    proto::HostStatus {
        host: Some(host_message(&status.host)),
        is_live: status.is_live,
        is_seed: status.is_seed,
        upload_slots: status.upload_slots,
        children: status.children,
        tasks: status.tasks,
    }
}

fn read_host_status(told: proto::HostStatus) -> Result<HostStatus, Malformed> {
    Ok(HostStatus {
        host: read_host(told.host)?,
        is_live: told.is_live,
        is_seed: told.is_seed,
        upload_slots: told.upload_slots,
        children: told.children,
        tasks: told.tasks,
    })
}

fn task_status(status: TaskStatus) -> proto::TaskStatus {
    let peer = |peer: PeerStatus| proto::PeerStatus {
        host: peer.host.to_string(),
        state: peer.state,
        pieces: peer.pieces,
        parents: peer.parents.iter().map(HostId::to_string).collect(),
        siblings: peer.siblings.iter().map(HostId::to_string).collect(),
    };
    proto::TaskStatus {
        task: task_bytes(status.task),
        phase: status.phase,
        source: status.source.map(|id| id.to_string()),
        pieces: status.pieces,
        peers: status.peers.into_iter().map(peer).collect(),
    }
}

fn read_task_status(told: proto::TaskStatus) -> Result<TaskStatus, Malformed> {
    let peer = |told: proto::PeerStatus| {
        bounded(told.parents.len(), CANDIDATES_MAX)?;
        bounded(told.siblings.len(), SIBLINGS_MAX)?;
        Ok(PeerStatus {
            host: read_id(&told.host)?,
            state: read_name(told.state)?,
            pieces: told.pieces,
            parents: all(told.parents, |id| read_id(&id))?,
            siblings: all(told.siblings, |id| read_id(&id))?,
        })
    };
    Ok(TaskStatus {
        task: read_task(&told.task)?,
        phase: read_name(told.phase)?,
        source: told.source.as_deref().map(read_id).transpose()?,
        pieces: read_total(told.pieces)?,
        peers: all(told.peers, peer)?,
    })
}

fn judged(judged: Judged) -> proto::Judged {
    let part = |part: ScorePart| proto::ScorePart {
        name: part.name,
        weight: part.weight,
        value: part.value,
    };
    let (parts, refusal) = match judged.verdict {
        Verdict::Scored(parts) => (parts, None),
        Verdict::Refused(rule) => (Vec::new(), Some(rule)),
    };
    proto::Judged {
        candidate: judged.candidate.to_string(),
        is_parent: judged.is_parent,
        parts: parts.into_iter().map(part).collect(),
        refusal,
    }
}

fn read_judged(told: proto::Judged) -> Result<Judged, Malformed> {
    bounded(told.parts.len(), SCORE_PARTS_MAX)?;
    let part = |told: proto::ScorePart| {
        if !told.weight.is_finite() || !told.value.is_finite() {
            return Err(Malformed("a part of a score is no number"));
        }
        Ok(ScorePart {
            name: read_name(told.name)?,
            weight: told.weight,
            value: told.value,
        })
    };
    let verdict = match told.refusal {
        Some(_) if !told.parts.is_empty() => {
            return Err(Malformed("a candidate is both scored and refused"));
        }
        Some(rule) => Verdict::Refused(read_name(rule)?),
        None => Verdict::Scored(all(told.parts, part)?),
    };
    Ok(Judged {
        candidate: read_id(&told.candidate)?,
        is_parent: told.is_parent,
        verdict,
    })
}

/// A name that is shown to a person.
fn read_name(name: String) -> Result<String, Malformed> {
    let holds = name.len() <= LABEL_LEN_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    holds
        .then_some(name)
        .ok_or(Malformed("a name is too long or not printable"))
}

fn bounded(len: usize, max: usize) -> Result<(), Malformed> {
    if max < len {
        return Err(Malformed("a message lists too much"));
    }
    Ok(())
}

fn all<M, T>(
    messages: Vec<M>,
    read: impl Fn(M) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    messages.into_iter().map(read).collect()
}

fn listed(listed_max: usize) -> u32 {
    listed_max.min(LISTED_MAX) as u32
}

fn count(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
