//! Pure: patterns of registry names, and the public registries that need no configuration.

use std::{fmt, str::FromStr};

use protocol::RegistryName;

/// A registry name in which `*` stands for one label, or as the first label for one or more.
///
/// A port is matched as written, so a pattern without one matches only names without one.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pattern is a host name with `*` for whole labels, and must end with at least two labels that are written out"
)]
pub struct PatternError;

/// Public registries, each with TLS and its own authorisation.
pub const WELL_KNOWN: [&str; 21] = [
    "docker.io",
    "ghcr.io",
    "quay.io",
    "gcr.io",
    "*.gcr.io",
    "*.pkg.dev",
    "registry.k8s.io",
    "k8s.gcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "*.dkr.ecr.*.amazonaws.com",
    "*.dkr.ecr.*.amazonaws.com.cn",
    "*.azurecr.io",
    "registry.gitlab.com",
    "nvcr.io",
    "registry.access.redhat.com",
    "registry.redhat.io",
    "registry.suse.com",
    "registry.fedoraproject.org",
    "docker.elastic.co",
    "cgr.dev",
];

/// How many labels at the end of a pattern are written out.
const LITERAL_LABELS_MIN: usize = 2;

/// Whether `registry` is one of the public registries that need no configuration.
pub(super) fn is_well_known(registry: &RegistryName) -> bool {
    WELL_KNOWN
        .iter()
        .any(|pattern| matches(pattern, registry.as_str()))
}

// === impl Pattern ===

impl Pattern {
    pub fn matches(&self, registry: &RegistryName) -> bool {
        matches(&self.text, registry.as_str())
    }

    /// Whether this is the name of `registry`, written out.
    pub(super) fn is_name(&self, registry: &RegistryName) -> bool {
        self.text == registry.as_str()
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = text.to_ascii_lowercase();
        // With every `*` read as a letter it must be a registry name.
        let is_name = text.replace('*', "x").parse::<RegistryName>().is_ok();
        let labels: Vec<&str> = text.split('.').collect();
        let whole = labels
            .iter()
            .all(|label| *label == "*" || !label.contains('*'));
        let literal = labels
            .iter()
            .rev()
            .take_while(|label| **label != "*")
            .count();
        let wild = literal < labels.len();
        if !is_name || !whole || (wild && literal < LITERAL_LABELS_MIN) {
            return Err(PatternError);
        }
        Ok(Self { text })
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Label by label from the end; a `*` that is the first label takes what is left.
fn matches(pattern: &str, name: &str) -> bool {
    let mut patterns = pattern.rsplit('.').peekable();
    let mut labels = name.rsplit('.');
    while let Some(pattern) = patterns.next() {
        let Some(label) = labels.next() else {
            return false;
        };
        if pattern == "*" && patterns.peek().is_none() {
            return true;
        }
        if pattern != "*" && pattern != label {
            return false;
        }
    }
    labels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, expect: bool) {
        let pattern: Pattern = pattern.parse().unwrap();
        assert_eq!(
            pattern.matches(&name.parse().unwrap()),
            expect,
            "{pattern:?} {name}"
        );
    }

    #[test]
    fn a_star_stands_for_whole_labels() {
        check("*.corp.example", "a.corp.example", true);
        check("*.corp.example", "a.b.corp.example", true);
        check("*.corp.example", "corp.example", false);
        check("*.corp.example", "evilcorp.example", false);
        check("*.corp.example", "a.corp.example:5000", false);
        check("*.corp.example:5000", "a.corp.example:5000", true);
        check("r.*.corp.example", "r.x.corp.example", true);
        check("r.*.corp.example", "r.x.y.corp.example", false);
        check("r.corp.example", "R.corp.example", true);
    }

    #[test]
    fn a_pattern_that_allows_everything_is_refused() {
        for bad in [
            "",
            "*",
            "*.example",
            "a*.corp.example",
            "r.corp.*",
            "*:5000",
            "http://*.corp.example",
        ] {
            assert_eq!(bad.parse::<Pattern>(), Err(PatternError), "{bad}");
        }
    }

    #[test]
    fn the_public_registries_are_known() {
        let known = |name: &str| is_well_known(&name.parse().unwrap());
        assert!(known("123456789012.dkr.ecr.eu-west-1.amazonaws.com"));
        assert!(known("europe-docker.pkg.dev"));
        assert!(known("index.docker.io"));
        assert!(!known("dkr.ecr.eu-west-1.amazonaws.com"));
        assert!(!known("docker.io.evil.example"));
        assert!(!known("pkg.dev"));
    }
}
