//! Finds which process listens on a port, from what the kernel shows to this user.

use std::{fmt, fs, path::Path};

/// A process that holds a socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pid: u32,
    program: String,
}

/// The state `LISTEN` as the kernel's tables write it.
const LISTEN: &str = "0A";

/// Who listens on `port`; `None` where it cannot be seen.
pub(super) fn of_port(port: u16) -> Option<Owner> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let links: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if links.is_empty() {
        return None;
    }
    fs::read_dir("/proc")
        .ok()?
        .filter_map(Result::ok)
        .find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            holds_any(&entry.path(), &links).then(|| Owner {
                pid,
                program: program(&entry.path()),
            })
        })
}

/// The inodes of the sockets in one of the kernel's tables that listen on `port`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let matches = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
        matches
            .then(|| fields.get(9).map(|inode| (*inode).to_owned()))
            .flatten()
    };
    table.lines().skip(1).filter_map(inode).collect()
}

fn holds_any(process: &Path, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors.filter_map(Result::ok).any(|descriptor| {
        fs::read_link(descriptor.path())
            .is_ok_and(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
    })
}

fn program(process: &Path) -> String {
    fs::read_to_string(process.join("comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n   \
            0: 0100007F:FDE9 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 111 1 x\n   \
            1: 0100007F:FDE9 0100007F:1234 01 00000000:00000000 00:00000000 00000000 0 0 222 1 x\n   \
            2: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 333 1 x\n";
        assert_eq!(listening_inodes(table, 65001), ["111"]);
        assert_eq!(listening_inodes("", 65001), Vec::<String>::new());
    }
}
