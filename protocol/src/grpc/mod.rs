//! The services over gRPC: HTTP/2 in mutual TLS, one stream per session.
//!
//! The only module that knows protobuf. Who the other end is comes from its certificate; whatever
//! a message says is bounded and checked before it becomes a domain type, and a stream that says
//! something else is ended with `InvalidArgument`. No socket is bound here: the server half is
//! handed connections whose handshake is done.

use std::time::Duration;

mod availability;
mod connect;
mod convert;
mod operator;
mod scheduler;
mod serve;
mod stream;

pub use availability::{AvailabilityClient, serve_availability};
pub use operator::OperatorClient;
pub use scheduler::{Refusals, SchedulerClient, SchedulerServices, serve_scheduler};
pub use serve::ServeError;

/// Told in the first message of every stream, in both directions.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a connection is negotiated as by ALPN.
pub const ALPN: &[u8] = b"h2";

/// The longest message, in bytes; a longer one ends its stream.
const MESSAGE_LEN_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one stream that are under way before its sender waits.
const STREAM_WINDOW: u32 = 256 * 1024;

/// A connection that has not said anything for so long is asked whether it lives…
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// …and is dead when it has not answered for so long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long TCP and TLS may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the other end may take to say its first word.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection or a stream may take to end once it is over.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What is generated from `proto/darter.proto`.
mod generated {
    #![allow(
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        elided_lifetimes_in_paths,
        clippy::too_many_lines,
        clippy::excessive_nesting,
        clippy::wildcard_imports,
        clippy::allow_attributes_without_reason,
        reason = "generated code keeps no rules of ours"
    )]
    tonic::include_proto!("darter.v1");
}
