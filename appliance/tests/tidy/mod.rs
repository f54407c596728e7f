//! The tidy test: rules of the tree that the compiler and clippy cannot hold. Each message names
//! the remedy.

mod arrows;
mod lock;
mod readme;
mod runs;
mod source;
mod table;
mod text;

/// Fails with every problem at once.
#[track_caller]
fn report(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} untidy places:\n{}",
        problems.len(),
        problems.join("\n")
    );
}
