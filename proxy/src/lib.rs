//! The mirror: speaks the OCI distribution protocol to container runtimes, and gives every content
//! through the swarm.

mod activity;
mod answer;
mod blob;
mod body;
mod byteranges;
pub mod challenge;
pub mod client;
pub mod config;
mod door;
pub mod engine;
pub mod error;
mod flights;
#[doc(hidden)]
pub mod fuzz;
mod hop;
pub mod image;
pub mod intercept;
mod line;
mod log;
pub mod manifest;
pub mod metrics;
mod passthrough;
pub mod range;
pub mod rights;
pub mod route;
mod serve;
mod swarm_engine;
mod through;
mod upstream;
mod upstream_proxy;

pub use activity::Activity;
pub use body::{BrokenOff, ContentStream};
pub use config::{Config, RawConfig};
pub use intercept::{CertificateError, Certificates, Met, Owner};
pub use log::BytesBy;
pub use metrics::Metrics;
pub use serve::{Parts, Proxy};
pub use swarm_engine::Registries;
