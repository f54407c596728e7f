//! Exchange of pieces with other hosts: the server children ask, the client that asks parents,
//! and the streams on which hosts tell each other what they hold.
//!
//! Nothing is verified here: the task's driver checks each piece against a signed digest before
//! it is stored, served or forwarded.

mod admission;
mod assembly;
mod bans;
mod client;
mod dial;
mod exchange;
mod feed;
mod hub;
mod lent;
mod metrics;
mod public;
mod request;
mod seats;
mod server;
mod slots;
mod spread;
mod subscribers;
mod upload;

pub(crate) use bans::Bans;
pub use client::{PieceClient, PieceClientConfig, PieceError, PieceRun, PieceStream};
pub use hub::{Hub, HubConfig};
pub(crate) use lent::Lent;
pub use metrics::PeerMetrics;
pub(crate) use public::path as public_path;
pub use request::Asker;
pub use server::{PeerServer, PeerServerConfig};
