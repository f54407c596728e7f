//! What is wrong with a configuration: which key, on which line, and what to do.

use std::fmt;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; 0 where the problem has no line.
    line: usize,
    /// As in `proxy.listen`; empty where the problem is the file's.
    key: String,
    text: String,
}

/// Every problem of one file, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    pub source: String,
    pub problems: Vec<Problem>,
}

// === impl Problem ===

impl Problem {
    /// A problem of the value at `key`.
    pub fn at(key: &str, text: &str) -> Self {
        Self {
            line: 0,
            key: key.to_owned(),
            text: text.to_owned(),
        }
    }

    /// A problem that a role's crate tells as `key: what is wrong`.
    pub fn told(text: &str) -> Self {
        match text.split_once(": ") {
            Some((key, rest)) if !key.contains(' ') => Self::at(key, rest),
            Some(_) | None => Self::at("", text),
        }
    }

    /// The same problem, seen on `line`.
    pub fn on_line(self, line: usize) -> Self {
        Self { line, ..self }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

// === impl Problems ===

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used:", self.source)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
