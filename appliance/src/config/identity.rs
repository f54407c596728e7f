//! The `[identity]` table: who this host is to the others, read from its files when it is checked, so
//! that `darter check-config` finds what a start would.

use std::path::{Path, PathBuf};

use protocol::{Identity, Roles};
use serde::{Deserialize, Serialize};

use super::Problem;

/// The cluster of a host that has no certificate files.
const OWN_CLUSTER: &str = "local";

/// The id of such a host.
const OWN_ID: &str = "local";

/// The `[identity]` table: PEM files; all three or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawIdentity {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

// === impl RawIdentity ===

impl RawIdentity {
    /// Whether the host is a cluster of its own.
    pub(crate) fn is_empty(&self) -> bool {
        self.files().iter().all(|(_, path)| is_unset(path))
    }

    /// The identity that the files give, if it has every one of `roles`; without files, one that is
    /// made now and known to nobody else.
    pub(super) fn check(&self, roles: Roles, problems: &mut Vec<Problem>) -> Option<Identity> {
        if self.is_empty() {
            return made_up(roles, problems);
        }
        let before = problems.len();
        for (key, _) in self.files().iter().filter(|(_, path)| is_unset(path)) {
            problems.push(Problem::at(
                key,
                "is missing: ca, cert and key are given together or not at all",
            ));
        }
        if before < problems.len() {
            return None;
        }
        let texts = self.files().map(|(key, path)| text(key, path, problems));
        let [Some(ca), Some(cert), Some(key)] = texts else {
            return None;
        };
        let identity = match Identity::from_pem(&ca, &cert, &key) {
            Ok(identity) => identity,
            Err(error) => {
                problems.push(Problem::at("identity.cert", &error.to_string()));
                return None;
            }
        };
        for role in roles
            .iter()
            .filter(|role| !identity.roles().contains(*role))
        {
            problems.push(Problem::at(
                "identity.cert",
                &format!(
                    "the certificate in {} does not give this host the role {}; its roles are in the URI name",
                    self.cert.display(),
                    role.as_str(),
                ),
            ));
        }
        Some(identity)
    }

    fn files(&self) -> [(&'static str, &Path); 3] {
        [
            ("identity.ca", &self.ca),
            ("identity.cert", &self.cert),
            ("identity.key", &self.key),
        ]
    }
}

fn is_unset(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn made_up(roles: Roles, problems: &mut Vec<Problem>) -> Option<Identity> {
    let id = OWN_ID.parse().expect("a constant in this file");
    let made = Identity::ephemeral(id, OWN_CLUSTER, roles);
    made.map_err(|error| problems.push(Problem::at("identity", &error.to_string())))
        .ok()
}

fn text(key: &'static str, path: &Path, problems: &mut Vec<Problem>) -> Option<String> {
    let read = std::fs::read_to_string(path);
    read.map_err(|error| {
        let told = format!("{} cannot be read: {error}", path.display());
        problems.push(Problem::at(key, &told));
    })
    .ok()
}
