//! How a runtime is set up now: by what is recorded, and by what stands in its files.

use std::path::{Path, PathBuf};

use super::{below, file, record::Records, runtime::Runtime};

/// What points a runtime here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing that is known.
    Unset,
    /// A file that no setup has written.
    ByHand,
    /// A setup.
    Recorded {
        /// Files that have our part no more.
        missing: Vec<PathBuf>,
        /// Whether one of the files names the port.
        is_port_named: bool,
    },
}

/// Where programs are.
const PROGRAM_DIRECTORIES: [&str; 4] =
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// Whether the runtime is there, below `root`.
pub(crate) fn is_installed(root: &Path, runtime: Runtime) -> bool {
    let program = runtime.program();
    let mut places = PROGRAM_DIRECTORIES.iter();
    places.any(|directory| below(root, Path::new(directory)).join(program).exists())
}

/// How `runtime` is pointed to the proxy on `port`.
pub(crate) fn state(
    root: &Path,
    data_dir: &Path,
    runtime: Runtime,
    port: u16,
) -> anyhow::Result<State> {
    let record = Records::in_data_dir(data_dir).read(runtime)?;
    let text = |path: &Path| -> Option<String> {
        let target = file::target(root, path).ok()?;
        file::read(&target).ok().flatten()
    };
    if record.files.is_empty() {
        let mut files = runtime.customary_files().iter();
        let is_named =
            files.any(|path| text(Path::new(path)).is_some_and(|text| names(&text, port)));
        return Ok(if is_named {
            State::ByHand
        } else {
            State::Unset
        });
    }
    let (mut missing, mut is_port_named) = (Vec::new(), false);
    for file in &record.files {
        let text = text(&file.path);
        is_port_named |= text.as_deref().is_some_and(|text| names(text, port));
        let ours = file.writes.last();
        let stands = ours.is_none_or(|write| text.is_some_and(|text| write.edit.stands_in(&text)));
        if !stands {
            missing.push(file.path.clone());
        }
    }
    Ok(State::Recorded {
        missing,
        is_port_named,
    })
}

/// Whether `text` names `port` of this host.
fn names(text: &str, port: u16) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| {
        let name = format!("{host}:{port}");
        let mut after = text.match_indices(&name);
        after.any(|(at, found)| {
            let next = text[at + found.len()..].chars().next();
            !next.is_some_and(|next| next.is_ascii_digit())
        })
    })
}
