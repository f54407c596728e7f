//! The only reader of environment variables.

use std::path::PathBuf;

use swarm::source::ProxyTexts;

/// Which log lines are written, as `tracing` spells it: `info,swarm=debug`.
pub(crate) const LOG_VARIABLE: &str = "DARTER_LOG";

/// Where `darter up` keeps its data: the user's data directory.
pub(crate) fn user_data_dir() -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let data_home = variable("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(absolute);
    let home = || {
        variable("HOME")
            .map(|home| PathBuf::from(home).join(".local/share"))
            .filter(absolute)
    };
    data_home.or_else(home).map(|folder| folder.join("darter"))
}

/// The filter of log lines, where one is set.
pub(crate) fn log_filter() -> Option<String> {
    variable(LOG_VARIABLE)
}

/// The HTTP proxies that the environment names; the names in small letters go first, as for curl.
pub(crate) fn upstream_proxies() -> ProxyTexts {
    let either = |small: &str, great: &str| {
        let found = variable(small).or_else(|| variable(great));
        found.unwrap_or_default()
    };
    ProxyTexts {
        https: either("https_proxy", "HTTPS_PROXY"),
        http: either("http_proxy", "HTTP_PROXY"),
        no: either("no_proxy", "NO_PROXY"),
        credentials: String::new(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this file is the one that reads the environment"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
