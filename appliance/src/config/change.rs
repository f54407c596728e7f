//! Pure: which keys of a configuration a running node takes over, and which need a restart.

use super::RawConfig;

/// What a reload takes over. A key that names a file stands for what is in the file, too.
const RELOADED: [&str; 13] = [
    "identity.cert",
    "identity.key",
    "proxy.registry",
    "proxy.certs_d",
    "proxy.allow",
    "proxy.own_names",
    "proxy.default_registry",
    "proxy.tag_ttl",
    "proxy.stale_if_error",
    "proxy.manifest_size_max",
    "proxy.upstream_",
    "proxy.idle_timeout",
    "proxy.client_stall_timeout",
];

/// The keys that differ and that a running node goes on with as they were, in order.
pub(crate) fn needing_restart(running: &RawConfig, wanted: &RawConfig) -> Vec<String> {
    let mut differing = Vec::new();
    match (
        toml::Value::try_from(running),
        toml::Value::try_from(wanted),
    ) {
        (Ok(running), Ok(wanted)) => compare("", &running, &wanted, &mut differing),
        (Err(_), _) | (_, Err(_)) => {}
    }
    let is_reloaded = |key: &str| RELOADED.iter().any(|known| key.starts_with(known));
    differing.retain(|key| !is_reloaded(key));
    differing
}

fn compare(at: &str, running: &toml::Value, wanted: &toml::Value, differing: &mut Vec<String>) {
    let (Some(running), Some(wanted)) = (running.as_table(), wanted.as_table()) else {
        if running != wanted {
            differing.push(at.to_owned());
        }
        return;
    };
    for (name, value) in wanted {
        let key = match at.is_empty() {
            true => name.clone(),
            false => format!("{at}.{name}"),
        };
        match running.get(name) {
            Some(old) => compare(&key, old, value, differing),
            None => differing.push(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(running: &str, wanted: &str, expect: &[&str]) {
        let raw = |text: &str| toml::from_str::<RawConfig>(text).unwrap();
        let mut seen = needing_restart(&raw(running), &raw(wanted));
        seen.sort_unstable();
        assert_eq!(seen, expect, "{wanted}");
    }

    #[test]
    fn what_is_reloaded_needs_no_restart() {
        check("", "", &[]);
        let wanted = "[proxy]\ntag_ttl = \"5s\"\nallow = [\"*.corp.example\"]\n\
                      upstream_stall_timeout = \"5s\"\n\
                      [[proxy.registry]]\nname = \"r.example\"\n";
        check("", wanted, &[]);
        check(wanted, "", &[]);
        let moved = "[identity]\ncert = \"/new.pem\"\nkey = \"/new.key\"\n";
        check("", moved, &[]);
    }

    #[test]
    fn listeners_and_data_need_one_and_are_named() {
        let wanted = "data_dir = \"/x\"\nroles = [\"proxy\"]\n[identity]\nca = \"/ca.pem\"\n\
                      [proxy]\nlisten = \"127.0.0.1:7\"\ntags_max = 7\ntag_ttl = \"5s\"\n\
                      [swarm]\nserve_rate = \"50MB/s\"\n[admin]\nlisten = \"127.0.0.1:8\"\n";
        let expect = [
            "admin.listen",
            "data_dir",
            "identity.ca",
            "proxy.listen",
            "proxy.tags_max",
            "roles",
            "swarm.serve_rate",
        ];
        check("", wanted, &expect);
    }

    /// A name that is misspelt above would make its key need a restart, or nothing at all.
    #[test]
    fn every_name_above_is_that_of_a_key() {
        let raw = toml::Value::try_from(RawConfig::default()).unwrap();
        for known in RELOADED {
            let (table, name) = known.split_once('.').unwrap();
            let table = raw[table].as_table().unwrap();
            assert!(table.keys().any(|key| key.starts_with(name)), "{known}");
        }
    }
}
