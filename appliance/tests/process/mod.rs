//! The binary as a process: what it prints, what it answers, how it ends.

mod authorities;
mod commands;
mod node;
mod operate;
mod running;
mod setup;
