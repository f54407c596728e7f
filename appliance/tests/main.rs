//! The appliance as a whole: its configuration, its commands, its process, and the tidiness of
//! the tree it is built from.

mod config;
mod papers;
mod process;
mod tidy;
