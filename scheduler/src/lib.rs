//! The scheduler: decides who fetches what from whom.
//!
//! The brain is [`engine`], which is pure; [`driver`] owns it, is its clock and carries its
//! messages. Sockets are not here: sessions come in through [`protocol::Scheduler`],
//! and what operators ask through [`protocol::Operator`].

mod carrier;
pub mod config;
pub mod driver;
pub mod engine;
mod followers;
pub mod metrics;

pub use config::{Config, ConfigError, RawConfig};
pub use driver::{SchedulerDriver, SchedulerService};
pub use metrics::Metrics;
