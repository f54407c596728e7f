//! One suite over every adapter of the services: whoever holds an `Arc<dyn Scheduler>`, an
//! `Arc<dyn Operator>` or an `Arc<dyn Availability>` cannot tell the local pair from gRPC in mutual TLS. What only gRPC can
//! get wrong (certificates, versions, garbage, silence) is in `refusals`, its drain in `drain`.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails fails its test, and names its line"
)]

mod availability;
mod drain;
mod harness;
mod operator;
mod raw;
mod refusals;
mod session;
