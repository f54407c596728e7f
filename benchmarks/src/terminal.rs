//! The only place that prints: the report to standard output, what is going on to standard error.

/// Writes the report.
#[expect(
    clippy::print_stdout,
    reason = "the report is what this program is for"
)]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Tells the person what is being done.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
