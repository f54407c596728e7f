//! Real clients and registries against the real binary, one module per theme.

mod direct;
mod faults;
mod herd;
mod kill;
mod raw;
mod sealed;
mod stage;
mod two_hosts;
