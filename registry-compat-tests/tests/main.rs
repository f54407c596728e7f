//! Real clients and registries against the real binary, one module per theme.

mod direct;
mod herd;
mod kill;
mod sealed;
mod stage;
mod two_hosts;
