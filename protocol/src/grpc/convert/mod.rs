//! Pure: between the messages of `proto/darter.proto` and the domain.
//!
//! What goes out is always readable; what comes in is bounded and checked field by field. A field
//! that is absent, unknown or past its bound makes the whole message malformed.

mod availability;
mod operator;
mod scheduler;
#[cfg(test)]
mod tests;

pub(super) use availability::{
    ask_message, child_hello, child_version, parent_version, parent_welcome, read_ask, read_tell,
    tell_message,
};
pub(super) use operator::{
    explanations_message, order_message, progress_message, question_message, read_explanations,
    read_listed, read_order, read_progress, read_question, read_snapshot, snapshot_message,
    snapshot_question,
};
pub(super) use scheduler::{
    down_message, hello_message, read_down, read_hello, read_up, scheduler_version,
    scheduler_welcome, up_message,
};

use super::{PROTOCOL_VERSION, generated as proto};
use crate::{
    content::{ContentKind, NAME_LEN_MAX, Origin, TaskId},
    digest::Digest,
    host::{Host, HostId},
    layout::{LAYOUT_VERSION, Layout},
    piece_set::{PIECES_MAX, PieceSet},
    want::{WANTS_MAX, Want},
};
use proto::want::Kind as WantKind;

/// The first thing in a message that nobody may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

fn welcome() -> proto::Welcome {
    proto::Welcome {
        version: PROTOCOL_VERSION,
    }
}

fn wants_message(wants: &[Want]) -> Vec<proto::Want> {
    let kind = |want: &Want| match *want {
        Want::Span { start, end } => WantKind::Span(proto::Span { start, end }),
        Want::Last { length } => WantKind::Last(length),
    };
    let message = |want| proto::Want {
        kind: Some(kind(want)),
    };
    wants.iter().take(WANTS_MAX).map(message).collect()
}

fn read_wants(told: Vec<proto::Want>) -> Result<Vec<Want>, Malformed> {
    if told.len() > WANTS_MAX {
        return Err(Malformed("too many parts are wanted"));
    }
    told.into_iter().map(read_want).collect()
}

fn read_want(told: proto::Want) -> Result<Want, Malformed> {
    let want = match told.kind {
        Some(WantKind::Span(proto::Span { start, end })) => Want::Span { start, end },
        Some(WantKind::Last(length)) => Want::Last { length },
        None => return Err(Malformed("a part is of no kind")),
    };
    match want.is_part() {
        true => Ok(want),
        false => Err(Malformed("a part is none of a task")),
    }
}

fn task_bytes(task: TaskId) -> Vec<u8> {
    task.0.as_bytes().to_vec()
}

fn read_task(bytes: &[u8]) -> Result<TaskId, Malformed> {
    if let Ok(sha256) = bytes.try_into() {
        return Ok(TaskId(Digest::Sha256(sha256)));
    }
    let sha512 = bytes
        .try_into()
        .map_err(|_| Malformed("a task is 32 or 64 bytes long"))?;
    Ok(TaskId(Digest::Sha512(sha512)))
}

fn host_message(host: &Host) -> proto::Host {
    proto::Host {
        id: host.id.to_string(),
        address: host.address.to_string(),
    }
}

fn read_host(host: Option<proto::Host>) -> Result<Host, Malformed> {
    let host = host.ok_or(Malformed("a host is missing"))?;
    let address = host
        .address
        .parse()
        .map_err(|_| Malformed("an address is not ip:port"))?;
    Ok(Host {
        id: read_id(&host.id)?,
        address,
    })
}

fn read_id(id: &str) -> Result<HostId, Malformed> {
    id.parse()
        .map_err(|_| Malformed("a host id is no DNS label"))
}

fn origin_message(origin: &Origin) -> proto::Origin {
    let kind = match origin.kind {
        ContentKind::Blob => proto::ContentKind::Blob,
        ContentKind::Manifest => proto::ContentKind::Manifest,
    };
    proto::Origin {
        registry: origin.registry.to_string(),
        repository: origin.repository.to_string(),
        kind: kind.into(),
    }
}

fn read_origin(origin: Option<proto::Origin>) -> Result<Origin, Malformed> {
    let origin = origin.ok_or(Malformed("an origin is missing"))?;
    let kind = match proto::ContentKind::try_from(origin.kind) {
        Ok(proto::ContentKind::Blob) => ContentKind::Blob,
        Ok(proto::ContentKind::Manifest) => ContentKind::Manifest,
        Ok(proto::ContentKind::Unspecified) | Err(_) => {
            return Err(Malformed("a content is neither blob nor manifest"));
        }
    };
    let registry = origin
        .registry
        .parse()
        .map_err(|_| Malformed("a registry has no such name"))?;
    let repository = origin
        .repository
        .parse()
        .map_err(|_| Malformed("a repository has no such name"))?;
    Ok(Origin {
        registry,
        repository,
        kind,
    })
}

fn layout_message(layout: Layout) -> proto::Layout {
    proto::Layout {
        version: u32::from(LAYOUT_VERSION),
        piece_length: layout.piece_len() as u32,
        size: layout.size(),
    }
}

fn read_layout(layout: Option<proto::Layout>) -> Result<Layout, Malformed> {
    let layout = layout.ok_or(Malformed("a layout is missing"))?;
    u8::try_from(layout.version)
        .ok()
        .and_then(|version| Layout::told(version, layout.piece_length, layout.size))
        .ok_or(Malformed("a layout is not one of ours"))
}

fn read_pieces(bitmap: &[u8]) -> Result<PieceSet, Malformed> {
    PieceSet::from_bytes(bitmap).ok_or(Malformed("a set has a piece past the bound"))
}

fn read_total(total: Option<u32>) -> Result<Option<u32>, Malformed> {
    match total {
        Some(total) if total > PIECES_MAX => Err(Malformed("a task has too many pieces")),
        Some(_) | None => Ok(total),
    }
}

/// A short text that is shown or compared, never interpreted.
fn read_label(label: Option<String>) -> Result<Option<String>, Malformed> {
    let holds = |label: &String| label.len() <= NAME_LEN_MAX && !label.contains(char::is_control);
    match label {
        Some(label) if !holds(&label) => Err(Malformed("a label is too long or not printable")),
        Some(_) | None => Ok(label),
    }
}
