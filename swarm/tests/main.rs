//! The scenarios of this crate, one module per part.

mod peer;
mod source;
