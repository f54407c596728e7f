//! Real clients and registries against the real binary, one module per theme.

mod conformance;
mod counted;
mod direct;
mod drain;
mod faults;
mod halfway;
mod herd;
mod kill;
mod log_lines;
mod loops;
mod memory;
mod operator;
mod patience;
mod paused;
mod pull;
mod raw;
mod refused;
mod sealed;
mod secrets;
mod stage;
mod star;
mod start;
mod storeless;
mod swarm;
mod two_clients;
mod two_hosts;
