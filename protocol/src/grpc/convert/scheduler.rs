//! Pure: the messages of a scheduler session.

use std::{sync::Arc, time::Duration};

use super::{
    Malformed, host_message, origin_message, proto, read_host, read_id, read_label, read_origin,
    read_pieces, read_task, read_total, read_wants, task_bytes, wants_message, welcome,
};
use crate::{
    batch::SignedBatch,
    content::{AttemptId, TaskId},
    grpc::PROTOCOL_VERSION,
    scheduler::{
        CANDIDATES_MAX, Candidate, Down, Failure, Hello, Outcome, ParentFailure, Proof,
        SIBLINGS_MAX, TASKS_PER_MESSAGE_MAX, Up,
    },
};
use proto::{host_message::Kind as HostKind, scheduler_message::Kind as SchedulerKind};

/// Longer than any host is ever told to wait.
const PATIENCE_MAX: Duration = Duration::from_secs(24 * 3600);

pub(in crate::grpc) fn hello_message(hello: &Hello) -> proto::HostMessage {
    from_host(HostKind::Hello(proto::Hello {
        version: PROTOCOL_VERSION,
        host: Some(host_message(&hello.host)),
        is_seed: hello.is_seed,
        upload_slots: hello.upload_slots,
        idc: hello.idc.clone(),
        location: hello.location.clone(),
    }))
}

/// The version that the first message of a host tells, and the rest, which another version may
/// write otherwise.
pub(in crate::grpc) fn read_hello(
    first: proto::HostMessage,
) -> Result<(u32, Result<Hello, Malformed>), Malformed> {
    let Some(HostKind::Hello(hello)) = first.kind else {
        return Err(Malformed("the first message is no hello"));
    };
    Ok((hello.version, read_hello_fields(hello)))
}

pub(in crate::grpc) fn scheduler_welcome() -> proto::SchedulerMessage {
    from_scheduler(SchedulerKind::Welcome(welcome()))
}

/// The version that the first message of a scheduler tells.
pub(in crate::grpc) fn scheduler_version(
    first: &proto::SchedulerMessage,
) -> Result<u32, Malformed> {
    match &first.kind {
        Some(SchedulerKind::Welcome(welcome)) => Ok(welcome.version),
        _ => Err(Malformed("the first message is no welcome")),
    }
}

pub(in crate::grpc) fn up_message(up: Up) -> proto::HostMessage {
    from_host(match up {
        Up::Held { tasks } => HostKind::Held(tasks_message(&tasks)),
        Up::Dropped { tasks } => HostKind::Dropped(tasks_message(&tasks)),
        Up::Register {
            task,
            origin,
            wants,
        } => HostKind::Register(proto::Register {
            task: task_bytes(task),
            origin: Some(origin_message(&origin)),
            wants: wants_message(&wants),
        }),
        Up::Progress {
            task,
            attempt,
            total,
            new,
        } => HostKind::Progress(proto::Progress {
            task: task_bytes(task),
            attempt: attempt.0,
            total,
            new_pieces: new.to_bytes(),
        }),
        Up::ParentFailed {
            task,
            parent,
            reason,
        } => HostKind::ParentFailed(proto::ParentFailed {
            task: task_bytes(task),
            parent: parent.to_string(),
            reason: parent_failure(reason).into(),
        }),
        Up::Proves(proof) => HostKind::Proves(proof_message(&proof)),
        Up::Finished { task, outcome } => HostKind::Finished(finished(task, outcome)),
        Up::Load {
            uploads,
            upload_rate,
        } => HostKind::Load(proto::Load {
            uploads,
            upload_rate,
        }),
    })
}

pub(in crate::grpc) fn read_up(message: proto::HostMessage) -> Result<Up, Malformed> {
    match message.kind {
        Some(HostKind::Held(told)) => Ok(Up::Held {
            tasks: read_tasks(&told)?,
        }),
        Some(HostKind::Dropped(told)) => Ok(Up::Dropped {
            tasks: read_tasks(&told)?,
        }),
        Some(HostKind::Register(told)) => Ok(Up::Register {
            task: read_task(&told.task)?,
            origin: read_origin(told.origin)?,
            wants: read_wants(told.wants)?,
        }),
        Some(HostKind::Progress(told)) => Ok(Up::Progress {
            task: read_task(&told.task)?,
            attempt: AttemptId(told.attempt),
            total: read_total(told.total)?,
            new: read_pieces(&told.new_pieces)?,
        }),
        Some(HostKind::ParentFailed(told)) => Ok(Up::ParentFailed {
            task: read_task(&told.task)?,
            parent: read_id(&told.parent)?,
            reason: read_parent_failure(told.reason)?,
        }),
        Some(HostKind::Proves(told)) => Ok(Up::Proves(Arc::new(read_proof(told)?))),
        Some(HostKind::Finished(told)) => Ok(Up::Finished {
            task: read_task(&told.task)?,
            outcome: read_outcome(&told)?,
        }),
        Some(HostKind::Load(told)) => Ok(Up::Load {
            uploads: told.uploads,
            upload_rate: told.upload_rate,
        }),
        Some(HostKind::Hello(_)) => Err(Malformed("a session has one hello")),
        None => Err(Malformed("a host said nothing that is known")),
    }
}

pub(in crate::grpc) fn down_message(down: Down) -> proto::SchedulerMessage {
    from_scheduler(match down {
        Down::Parents {
            task,
            parents,
            siblings,
            fetcher,
            proof,
        } => SchedulerKind::Parents(proto::Parents {
            task: task_bytes(task),
            parents: candidates_message(&parents),
            fetcher: fetcher.map(|id| id.to_string()),
            siblings: candidates_message(&siblings),
            proof: proof.as_deref().map(proof_message),
        }),
        Down::Wait { task, patience } => SchedulerKind::Wait(proto::Wait {
            task: task_bytes(task),
            patience_seconds: patience.as_secs(),
            patience_nanoseconds: patience.subsec_nanos(),
        }),
        Down::BackToSource {
            task,
            epoch,
            holders,
        } => SchedulerKind::BackToSource(proto::BackToSource {
            task: task_bytes(task),
            epoch,
            holders: candidates_message(&holders),
        }),
        Down::Warm {
            task,
            origin,
            wants,
        } => SchedulerKind::Warm(proto::Warm {
            task: task_bytes(task),
            origin: Some(origin_message(&origin)),
            wants: wants_message(&wants),
        }),
        Down::OnYourOwn { task, reason } => SchedulerKind::OnYourOwn(proto::OnYourOwn {
            task: task_bytes(task),
            reason: failure(reason).into(),
        }),
        Down::Drop { task, attempt } => SchedulerKind::Drop(proto::Drop {
            task: task_bytes(task),
            attempt: attempt.0,
        }),
    })
}

pub(in crate::grpc) fn read_down(message: proto::SchedulerMessage) -> Result<Down, Malformed> {
    match message.kind {
        Some(SchedulerKind::Parents(told)) => read_parents(told),
        Some(SchedulerKind::Wait(told)) => Ok(Down::Wait {
            task: read_task(&told.task)?,
            patience: read_patience(told.patience_seconds, told.patience_nanoseconds)?,
        }),
        Some(SchedulerKind::BackToSource(told)) => Ok(Down::BackToSource {
            task: read_task(&told.task)?,
            epoch: told.epoch,
            holders: read_candidates(told.holders, CANDIDATES_MAX)?,
        }),
        Some(SchedulerKind::Warm(told)) => Ok(Down::Warm {
            task: read_task(&told.task)?,
            origin: read_origin(told.origin)?,
            wants: read_wants(told.wants)?,
        }),
        Some(SchedulerKind::OnYourOwn(told)) => Ok(Down::OnYourOwn {
            task: read_task(&told.task)?,
            reason: read_failure(told.reason)?,
        }),
        Some(SchedulerKind::Drop(told)) => Ok(Down::Drop {
            task: read_task(&told.task)?,
            attempt: AttemptId(told.attempt),
        }),
        Some(SchedulerKind::Welcome(_)) => Err(Malformed("a session has one welcome")),
        None => Err(Malformed("a scheduler said nothing that is known")),
    }
}

fn from_host(kind: HostKind) -> proto::HostMessage {
    proto::HostMessage { kind: Some(kind) }
}

fn from_scheduler(kind: SchedulerKind) -> proto::SchedulerMessage {
    proto::SchedulerMessage { kind: Some(kind) }
}

fn read_hello_fields(hello: proto::Hello) -> Result<Hello, Malformed> {
    Ok(Hello {
        host: read_host(hello.host)?,
        is_seed: hello.is_seed,
        upload_slots: hello.upload_slots,
        idc: read_label(hello.idc)?,
        location: read_label(hello.location)?,
    })
}

fn tasks_message(tasks: &[TaskId]) -> proto::Tasks {
    proto::Tasks {
        tasks: tasks.iter().copied().map(task_bytes).collect(),
    }
}

fn read_tasks(told: &proto::Tasks) -> Result<Vec<TaskId>, Malformed> {
    if told.tasks.len() > TASKS_PER_MESSAGE_MAX {
        return Err(Malformed("a message names too many tasks"));
    }
    told.tasks.iter().map(|task| read_task(task)).collect()
}

fn read_parents(told: proto::Parents) -> Result<Down, Malformed> {
    Ok(Down::Parents {
        task: read_task(&told.task)?,
        parents: read_candidates(told.parents, CANDIDATES_MAX)?,
        siblings: read_candidates(told.siblings, SIBLINGS_MAX)?,
        fetcher: told.fetcher.as_deref().map(read_id).transpose()?,
        proof: told.proof.map(read_proof).transpose()?.map(Arc::new),
    })
}

fn proof_message(proof: &Proof) -> proto::Proof {
    proto::Proof {
        batch: proof.batch.to_bytes(),
        media_type: proof.media_type.clone(),
    }
}

fn read_proof(told: proto::Proof) -> Result<Proof, Malformed> {
    let batch =
        SignedBatch::from_bytes(&told.batch).map_err(|_| Malformed("a batch is malformed"))?;
    Proof::new(batch, read_label(told.media_type)?)
        .ok_or(Malformed("a proof is not of a content of one piece"))
}

fn candidates_message(candidates: &[Candidate]) -> Vec<proto::Host> {
    candidates
        .iter()
        .map(|candidate| host_message(&candidate.host))
        .collect()
}

fn read_candidates(told: Vec<proto::Host>, max: usize) -> Result<Vec<Candidate>, Malformed> {
    if told.len() > max {
        return Err(Malformed("a task has too many candidates"));
    }
    let candidate = |host| {
        Ok(Candidate {
            host: read_host(Some(host))?,
        })
    };
    told.into_iter().map(candidate).collect()
}

fn read_patience(seconds: u64, nanoseconds: u32) -> Result<Duration, Malformed> {
    let nanoseconds = Duration::from_nanos(u64::from(nanoseconds));
    match Duration::from_secs(seconds).checked_add(nanoseconds) {
        Some(patience) if patience <= PATIENCE_MAX => Ok(patience),
        Some(_) | None => Err(Malformed("a host is told to wait for more than a day")),
    }
}

fn parent_failure(reason: ParentFailure) -> proto::ParentFailure {
    match reason {
        ParentFailure::Unreachable => proto::ParentFailure::Unreachable,
        ParentFailure::Slow => proto::ParentFailure::Slow,
        ParentFailure::Gone => proto::ParentFailure::Gone,
        ParentFailure::Busy => proto::ParentFailure::Busy,
        ParentFailure::Lied => proto::ParentFailure::Lied,
    }
}

fn read_parent_failure(reason: i32) -> Result<ParentFailure, Malformed> {
    match proto::ParentFailure::try_from(reason) {
        Ok(proto::ParentFailure::Unreachable) => Ok(ParentFailure::Unreachable),
        Ok(proto::ParentFailure::Slow) => Ok(ParentFailure::Slow),
        Ok(proto::ParentFailure::Gone) => Ok(ParentFailure::Gone),
        Ok(proto::ParentFailure::Busy) => Ok(ParentFailure::Busy),
        Ok(proto::ParentFailure::Lied) => Ok(ParentFailure::Lied),
        Ok(proto::ParentFailure::Unspecified) | Err(_) => {
            Err(Malformed("a parent failed for no known reason"))
        }
    }
}

pub(super) fn failure(failure: Failure) -> proto::Failure {
    match failure {
        Failure::Refused => proto::Failure::Refused,
        Failure::NotFound => proto::Failure::NotFound,
        Failure::Unavailable => proto::Failure::Unavailable,
        Failure::Corrupt => proto::Failure::Corrupt,
        Failure::Local => proto::Failure::Local,
    }
}

pub(super) fn read_failure(failure: i32) -> Result<Failure, Malformed> {
    match proto::Failure::try_from(failure) {
        Ok(proto::Failure::Refused) => Ok(Failure::Refused),
        Ok(proto::Failure::NotFound) => Ok(Failure::NotFound),
        Ok(proto::Failure::Unavailable) => Ok(Failure::Unavailable),
        Ok(proto::Failure::Corrupt) => Ok(Failure::Corrupt),
        Ok(proto::Failure::Local) => Ok(Failure::Local),
        Ok(proto::Failure::Unspecified) | Err(_) => {
            Err(Malformed("a task failed for no known reason"))
        }
    }
}

fn finished(task: TaskId, outcome: Outcome) -> proto::Finished {
    let (outcome, failure) = match outcome {
        Outcome::Complete => (proto::Outcome::Complete, proto::Failure::Unspecified),
        Outcome::Left => (proto::Outcome::Left, proto::Failure::Unspecified),
        Outcome::Failed(reason) => (proto::Outcome::Failed, failure(reason)),
    };
    proto::Finished {
        task: task_bytes(task),
        outcome: outcome.into(),
        failure: failure.into(),
    }
}

fn read_outcome(told: &proto::Finished) -> Result<Outcome, Malformed> {
    let unfailed = told.failure == i32::from(proto::Failure::Unspecified);
    match proto::Outcome::try_from(told.outcome) {
        Ok(proto::Outcome::Complete) if unfailed => Ok(Outcome::Complete),
        Ok(proto::Outcome::Left) if unfailed => Ok(Outcome::Left),
        Ok(proto::Outcome::Failed) => Ok(Outcome::Failed(read_failure(told.failure)?)),
        Ok(_) | Err(_) => Err(Malformed("a download ended in no known way")),
    }
}
