//! Fetches, keeps, verifies and shares pieces: the engine of the proxy and the seed.
//!
//! The proxy opens a content through [`Swarm::open`] and reads it; whether the bytes come from
//! the store, from other hosts or from the upstream is decided in here.

pub mod bandwidth;
pub mod conductor;
pub mod config;
mod direct;
pub mod engine;
pub mod metrics;
pub mod open;
pub mod peer;
pub mod reader;
pub mod session;
mod sizing;
pub mod source;
pub mod store;
pub mod task;

pub use engine::{Parts, Swarm, WarmOrder};
pub use open::{Held, How, OpenError, OpenRequest, Opened, ReadProof, Wanted};
pub use reader::{ReadError, Reader, Served};
