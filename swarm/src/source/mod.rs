//! The upstream side: asks registries, and gives their content with the right to it that was used.
//!
//! Anonymous first: a caller's credential is used only after the registry refused to answer
//! without one, then that of this node where it has one, and [`Access`] says which it was. Connections are judged by the address really
//! connected to. Nothing in here verifies content: the engine does, by digest.

mod address;
mod certs_d;
mod challenge;
mod client;
mod clock;
mod corporate;
mod credential;
mod dial;
mod docker_config;
mod endpoints;
mod error;
mod failover;
mod fetch;
#[doc(hidden)]
pub mod fuzz;
mod grant;
mod login;
mod metrics;
mod pass;
mod patience;
mod pattern;
mod public;
mod range;
mod rate_limit;
mod redirect;
mod refusal;
mod registry;
mod request;
mod resolve;
mod retry;
mod rights;
mod silence;
mod token;
mod trust;
mod tunnel;
mod upstream;

pub use address::AddressClass;
pub use certs_d::{Files, Papers};
pub use challenge::{BearerChallenge, Offer};
pub use client::{Outside, Upstreams};
pub use corporate::{ProxyTexts, UpstreamProxy};
pub use credential::{Credential, Fingerprint, Scheme};
pub use error::{ANSWER_LEN_MAX, Answer, AnsweredBy, Awaited, RedirectFault, SourceError};
pub use fetch::{Fetch, FetchRequest, MANIFEST_LEN_MAX};
pub use grant::{Form, Grant, TokenAnswer, TokenRequest};
pub use login::{Keyring, NoKeys};
pub use metrics::SourceMetrics;
pub use pass::{PassBody, PassRequest, PassResponse};
pub(crate) use patience::Brief;
pub use pattern::{Pattern, PatternError, WELL_KNOWN};
pub use public::{Question, Subject, Told};
pub use range::{ByteRange, ContentRange};
pub use registry::{
    Authority, Config, RawRegistry, RegistryConfig, SourceConfigError, Timeouts, check,
};
pub use request::{
    Access, Body, Method, Redirects, Reference, Resource, UpstreamRequest, UpstreamResponse,
};
pub use resolve::{Names, SystemNames};
pub(crate) use silence::Errand;
pub use silence::Patience;
pub use trust::ClientIdentity;
pub use tunnel::{ClientPlace, TunnelError, Tunnels};
