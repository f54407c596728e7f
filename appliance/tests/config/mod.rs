//! The configuration file: every problem is told, and the shipped file is what the code does.

mod problems;
mod shipped;
