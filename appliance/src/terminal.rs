//! The only place that prints.

use std::io::{IsTerminal as _, Write as _};

/// Writes `text` to standard output. A reader that has gone away is no problem of ours.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"));
    let _gone = written.and_then(|()| out.flush());
}

/// Writes a note for the person to standard error, so that standard output stays a clean file.
pub(crate) fn note(text: &str) {
    let _gone = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says why the command failed.
pub(crate) fn fail(text: &str) {
    note(&format!("darter: {text}"));
}

/// Whether log lines go to a person.
pub(crate) fn is_attended() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether what is said goes to a person, and bars can be drawn for them.
pub(crate) fn is_watched() -> bool {
    std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
}

/// Says `text` in the place of what was said before, where a person watches.
pub(crate) fn say_anew(text: &str) {
    // Home, and away with everything below: ECMA-48, CUP and ED.
    let start = if is_watched() { "\u{1b}[H\u{1b}[J" } else { "" };
    say(&format!("{start}{text}"));
}
