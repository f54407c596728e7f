//! What Darter's services say to each other: domain types, messages, and the traits callers hold.
//!
//! Everything a peer, a scheduler or a seed may tell another is here, as plain data. Only
//! [`grpc`] knows protobuf; callers hold an `Arc<dyn Scheduler>`, `Arc<dyn Operator>` or
//! `Arc<dyn Availability>` and cannot tell a local service from a remote one.

pub mod availability;
pub mod batch;
pub mod content;
pub mod digest;
pub mod grpc;
pub mod host;
pub mod identity;
pub mod layout;
pub mod operator;
pub mod piece_set;
pub mod right;
pub mod ring;
pub mod scheduler;
pub mod want;

pub use batch::{PieceBatch, PieceDigest, SignedBatch};
pub use content::{
    AttemptId, Content, ContentKind, Origin, RegistryName, Repository, TaskId, Visibility,
};
pub use digest::{ContentHasher, Digest};
pub use host::{Host, HostId, Role, Roles};
pub use identity::{Identity, PeerIdentity};
pub use layout::{Layout, PieceIndex};
pub use operator::Operator;
pub use piece_set::PieceSet;
pub use right::Right;
pub use scheduler::{Candidate, Down, Proof, Scheduler, Session, Up};
pub use want::Want;
