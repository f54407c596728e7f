//! The appliance: binds sockets, reads files, arguments and environment, puts the roles together
//! and takes them down again. It decides nothing about content.

mod accept;
mod admin;
mod ca;
mod cache;
pub mod command;
pub mod config;
mod control;
mod crowd;
mod data_dir;
mod descriptors;
mod doctor;
mod drain;
mod environment;
mod expiry;
mod explain;
mod handlers;
mod http_service;
mod keyring;
mod listen;
mod logging;
mod metrics;
mod node;
mod operators;
mod preheat;
mod presence;
mod reload;
mod roles;
mod setup;
mod start;
mod status;
mod terminal;
mod whole_file;
