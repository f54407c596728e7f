//! The scenarios of this crate, one module per part.

mod host;
mod peer;
mod source;
