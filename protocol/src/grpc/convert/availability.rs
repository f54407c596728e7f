//! Pure: the messages of an availability stream.

use super::{
    Malformed, layout_message, origin_message, proto, read_label, read_layout, read_origin,
    read_pieces, read_task, read_wants, task_bytes, wants_message, welcome,
};
use crate::{
    availability::{Ask, Tell},
    batch::SignedBatch,
    content::AttemptId,
    grpc::PROTOCOL_VERSION,
    layout::SIZE_MAX,
    right::Right,
};
use proto::{child_message::Kind as ChildKind, parent_message::Kind as ParentKind};

pub(in crate::grpc) fn child_hello() -> proto::ChildMessage {
    from_child(ChildKind::Hello(proto::ChildHello {
        version: PROTOCOL_VERSION,
    }))
}

pub(in crate::grpc) fn parent_welcome() -> proto::ParentMessage {
    from_parent(ParentKind::Welcome(welcome()))
}

/// The version that the first message of a child tells.
pub(in crate::grpc) fn child_version(first: &proto::ChildMessage) -> Result<u32, Malformed> {
    match &first.kind {
        Some(ChildKind::Hello(hello)) => Ok(hello.version),
        _ => Err(Malformed("the first message is no hello")),
    }
}

/// The version that the first message of a parent tells.
pub(in crate::grpc) fn parent_version(first: &proto::ParentMessage) -> Result<u32, Malformed> {
    match &first.kind {
        Some(ParentKind::Welcome(welcome)) => Ok(welcome.version),
        _ => Err(Malformed("the first message is no welcome")),
    }
}

pub(in crate::grpc) fn ask_message(ask: Ask) -> proto::ChildMessage {
    from_child(match ask {
        Ask::Subscribe(task) => ChildKind::Subscribe(proto::Subscribe {
            task: task_bytes(task),
            origin: None,
        }),
        Ask::Bring { task, origin } => ChildKind::Subscribe(proto::Subscribe {
            task: task_bytes(task),
            origin: Some(origin_message(&origin)),
        }),
        Ask::Wants { task, wants } => ChildKind::Wants(proto::Wants {
            task: task_bytes(task),
            wants: wants_message(&wants),
        }),
        Ask::Lend {
            task,
            origin,
            right,
        } => ChildKind::Lend(proto::Lend {
            task: task_bytes(task),
            origin: Some(origin_message(&origin)),
            right: right.as_str().to_owned(),
        }),
        Ask::Unsubscribe(task) => ChildKind::Unsubscribe(proto::Unsubscribe {
            task: task_bytes(task),
        }),
    })
}

pub(in crate::grpc) fn read_ask(message: proto::ChildMessage) -> Result<Ask, Malformed> {
    match message.kind {
        Some(ChildKind::Subscribe(ask)) => {
            let task = read_task(&ask.task)?;
            Ok(match ask.origin {
                None => Ask::Subscribe(task),
                origin => Ask::Bring {
                    task,
                    origin: read_origin(origin)?,
                },
            })
        }
        Some(ChildKind::Wants(ask)) => Ok(Ask::Wants {
            task: read_task(&ask.task)?,
            wants: read_wants(ask.wants)?,
        }),
        Some(ChildKind::Lend(ask)) => Ok(Ask::Lend {
            task: read_task(&ask.task)?,
            origin: read_origin(ask.origin)?,
            right: Right::bearer(&ask.right).ok_or(Malformed("a right that is no token"))?,
        }),
        Some(ChildKind::Unsubscribe(ask)) => Ok(Ask::Unsubscribe(read_task(&ask.task)?)),
        Some(ChildKind::Hello(_)) => Err(Malformed("a stream has one hello")),
        None => Err(Malformed("a child said nothing that is known")),
    }
}

pub(in crate::grpc) fn tell_message(tell: Tell) -> proto::ParentMessage {
    from_parent(match tell {
        Tell::Begins {
            task,
            attempt,
            layout,
            media_type,
        } => ParentKind::Begins(proto::Begins {
            task: task_bytes(task),
            attempt: attempt.0,
            layout: Some(layout_message(layout)),
            media_type,
        }),
        Tell::Batch(batch) => ParentKind::Batch(batch.to_bytes()),
        Tell::Holds { task, attempt, new } => ParentKind::Holds(proto::Holds {
            task: task_bytes(task),
            attempt: attempt.0,
            new_pieces: new.to_bytes(),
        }),
        Tell::Ended {
            task,
            attempt,
            size,
        } => ParentKind::Ended(proto::Ended {
            task: task_bytes(task),
            attempt: attempt.0,
            size,
        }),
        Tell::Gone { task } => ParentKind::Gone(proto::Gone {
            task: task_bytes(task),
        }),
    })
}

pub(in crate::grpc) fn read_tell(message: proto::ParentMessage) -> Result<Tell, Malformed> {
    match message.kind {
        Some(ParentKind::Begins(told)) => Ok(Tell::Begins {
            task: read_task(&told.task)?,
            attempt: AttemptId(told.attempt),
            layout: read_layout(told.layout)?,
            media_type: read_label(told.media_type)?,
        }),
        Some(ParentKind::Batch(bytes)) => match SignedBatch::from_bytes(&bytes) {
            Ok(batch) => Ok(Tell::Batch(batch)),
            Err(_) => Err(Malformed("a batch cannot be read")),
        },
        Some(ParentKind::Holds(told)) => Ok(Tell::Holds {
            task: read_task(&told.task)?,
            attempt: AttemptId(told.attempt),
            new: read_pieces(&told.new_pieces)?,
        }),
        Some(ParentKind::Ended(told)) if told.size > SIZE_MAX => {
            Err(Malformed("a task is too large"))
        }
        Some(ParentKind::Ended(told)) => Ok(Tell::Ended {
            task: read_task(&told.task)?,
            attempt: AttemptId(told.attempt),
            size: told.size,
        }),
        Some(ParentKind::Gone(told)) => Ok(Tell::Gone {
            task: read_task(&told.task)?,
        }),
        Some(ParentKind::Welcome(_)) => Err(Malformed("a stream has one welcome")),
        None => Err(Malformed("a parent said nothing that is known")),
    }
}

fn from_child(kind: ChildKind) -> proto::ChildMessage {
    proto::ChildMessage { kind: Some(kind) }
}

fn from_parent(kind: ParentKind) -> proto::ParentMessage {
    proto::ParentMessage { kind: Some(kind) }
}
