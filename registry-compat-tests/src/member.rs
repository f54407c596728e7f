//! One running process of a cluster: what it has said, how it ends, and how it is started again.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    darter::{Darter, Home},
    process,
};

/// A running process of a cluster.
#[derive(Debug)]
pub struct Member {
    pub darter: Darter,
    pub home: Home,
    pub(crate) id: String,
    /// As it was started with.
    pub config: String,
}

/// What a process leaves behind: all that it takes to start it again.
#[derive(Debug)]
pub struct Remains {
    home: Home,
    id: String,
    config: String,
}

/// How long a process may take to say what it must.
const WORD_LIMIT: Duration = Duration::from_secs(20);

/// What a host logs when a scheduler has let it in.
const SESSION_OPEN: &str = "session open";

// === impl Member ===

impl Member {
    pub(crate) fn run(id: String, config: String, home: Home) -> Result<Self> {
        let darter = Darter::run(&config, &home).with_context(|| config.clone())?;
        Ok(Self {
            darter,
            home,
            id,
            config,
        })
    }

    /// Waits until it has logged a line with `word` in it, and returns that line.
    ///
    /// # Errors
    /// It does not come; the error has what it said.
    pub fn wait_for_word(&self, word: &str) -> Result<String> {
        self.wait_for_words(word, 1)?;
        let log = self.darter.log()?;
        let line = log.lines().find(|line| line.contains(word));
        line.map(str::to_owned).context("a log loses no line")
    }

    /// The id that it goes by.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until so many schedulers have let it in.
    ///
    /// # Errors
    /// As [`Member::wait_for_word`].
    pub fn wait_for_sessions(&self, count: usize) -> Result<()> {
        self.wait_for_words(SESSION_OPEN, count)
    }

    /// Waits until it has logged so many lines with `word` in them.
    ///
    /// # Errors
    /// As [`Member::wait_for_word`].
    pub fn wait_for_words(&self, word: &str, count: usize) -> Result<()> {
        let lines = || {
            let log = self.darter.log().unwrap_or_default();
            log.lines().filter(|line| line.contains(word)).count()
        };
        process::wait_until(word, WORD_LIMIT, || count <= lines())
            .with_context(|| self.darter.log().unwrap_or_default())
    }

    /// Ends it by a power cut.
    ///
    /// # Errors
    /// The process is not to be found.
    pub fn kill(self) -> Result<Remains> {
        self.darter.kill()?;
        Ok(Remains {
            home: self.home,
            id: self.id,
            config: self.config,
        })
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(self) -> Result<Remains> {
        self.darter.stop()?;
        Ok(Remains {
            home: self.home,
            id: self.id,
            config: self.config,
        })
    }
}

// === impl Remains ===

impl Remains {
    /// The same host once more, with what it had on its disk.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(self) -> Result<Member> {
        Member::run(self.id, self.config, self.home)
    }
}
