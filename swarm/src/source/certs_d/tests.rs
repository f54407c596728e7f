//! Directories as people lay them out.

use rcgen::{CertificateParams, KeyPair};

use super::{super::check, *};
use crate::source::RawRegistry;

/// Files by their paths; each is one of a good certificate, its key, another key, and nonsense.
struct Disk {
    certificate: String,
    own: KeyPair,
    other: KeyPair,
    files: Vec<(&'static str, &'static str)>,
}

impl Disk {
    /// `files` are pairs of a path and a word for what is in it.
    fn new(files: &[(&'static str, &'static str)]) -> Self {
        let own = KeyPair::generate().unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        Self {
            certificate: params.self_signed(&own).unwrap().pem(),
            own,
            other: KeyPair::generate().unwrap(),
            files: files.to_vec(),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = path.to_str().unwrap();
        let file = self.files.iter().find(|(name, _)| *name == path);
        let (_, word) = file.ok_or(io::ErrorKind::NotFound)?;
        Ok(match *word {
            "cert" => self.certificate.clone().into_bytes(),
            "two" => format!("{0}{0}", self.certificate).into_bytes(),
            "key" => self.own.serialize_pem().into_bytes(),
            "other" => self.other.serialize_pem().into_bytes(),
            "nonsense" => b"none".to_vec(),
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        })
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        let paths = self.files.iter().map(|(path, _)| Path::new(path));
        let below = paths.filter_map(|path| path.strip_prefix(directory).ok());
        let mut names: Vec<String> = below
            .filter_map(|path| Some(path.iter().next()?.to_str()?.to_owned()))
            .collect();
        names.dedup();
        match names.is_empty() {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(names),
        }
    }
}

fn entry(name: &str) -> RawRegistry {
    RawRegistry {
        name: name.to_owned(),
        ..RawRegistry::default()
    }
}

/// With entries for r.example, whose authority and certificate are written, for s.example, and for
/// p.example, which is plain; and everything below corp.example is allowed.
fn looked(
    files: &[(&'static str, &'static str)],
    directories: &[&str],
) -> Result<Config, Vec<String>> {
    let mut all = vec![("/r.pem", "cert"), ("/r.key", "key")];
    all.extend(files);
    let disk = Disk::new(&all);
    let written = RawRegistry {
        ca: "/r.pem".into(),
        client_cert: "/r.pem".into(),
        client_key: "/r.key".into(),
        ..entry("r.example")
    };
    let plain = RawRegistry {
        endpoint: "http://p.example".to_owned(),
        ..entry("p.example")
    };
    let raw = [written, entry("s.example"), plain];
    let read = |path: &Path| disk.read(path);
    let config = check(&raw, &["*.corp.example".to_owned()], read).unwrap();
    let directories: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
    let files = Files {
        read: &read,
        names: &|path| disk.names(path),
    };
    let told = |errors: Vec<SourceConfigError>| errors.iter().map(ToString::to_string).collect();
    config.with_certs_d(&directories, files).map_err(told)
}

/// The authorities, and whether a certificate is shown, of each registry that has some.
#[track_caller]
fn check_found(
    files: &[(&'static str, &'static str)],
    directories: &[&str],
    expect: &[(&str, usize, bool)],
) {
    let config = looked(files, directories).unwrap();
    let entries = config.registries.iter();
    let entries = entries.map(|(name, one)| (name.as_str(), one.ca.len(), one.client.is_some()));
    let papers = config.papers.iter();
    let papers = papers.map(|(name, one)| (name.as_str(), one.ca.len(), one.client.is_some()));
    let mut seen: Vec<_> = entries
        .chain(papers)
        .filter(|one| one.1 > 0 || one.2)
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, expect, "{files:?}");
}

const WRITTEN: (&str, usize, bool) = ("r.example", 1, true);

#[test]
fn each_registry_has_what_is_in_the_directory_of_its_name() {
    check_found(&[("/d/s.example/ca.crt", "two")], &[], &[WRITTEN]);
    check_found(&[], &["/none"], &[WRITTEN]);
    check_found(
        &[
            ("/d/ghcr.io/a.crt", "cert"),
            ("/d/ghcr.io/b.crt", "cert"),
            ("/d/ghcr.io/readme", "nonsense"),
            ("/d/s.example/ca.crt", "two"),
            ("/d/s.example/client.cert", "cert"),
            ("/d/s.example/client.key", "key"),
            ("/d/x.corp.example/ca.crt", "cert"),
        ],
        &["/d"],
        &[
            ("ghcr.io", 2, false),
            WRITTEN,
            ("s.example", 2, true),
            ("x.corp.example", 1, false),
        ],
    );
}

#[test]
fn what_an_entry_says_itself_stays_and_of_several_directories_the_first_counts() {
    let files = [
        ("/d/r.example/ca.crt", "two"),
        ("/d/r.example/client.cert", "nonsense"),
        ("/d/s.example/ca.crt", "cert"),
        ("/e/s.example/client.cert", "cert"),
        ("/e/s.example/client.key", "key"),
    ];
    check_found(&files, &["/d", "/e"], &[WRITTEN, ("s.example", 1, false)]);
    check_found(&files, &["/e", "/d"], &[WRITTEN, ("s.example", 0, true)]);
}

/// What is of no use here is no problem either: the directories are other programs' too.
#[test]
fn nothing_is_allowed_by_a_directory_and_nothing_read_of_what_is_not_asked() {
    let files = [
        ("/d/evil.example/ca.crt", "nonsense"),
        ("/d/GHCR.io/ca.crt", "nonsense"),
        ("/d/p.example/ca.crt", "nonsense"),
        ("/d/ghcr.io", "nonsense"),
    ];
    check_found(&files, &["/d"], &[WRITTEN]);
    let config = looked(&files, &["/d"]).unwrap();
    assert!(!config.allowed(&"evil.example".parse().unwrap()));
}

#[test]
fn what_is_wrong_is_told_with_its_file_and_all_at_once() {
    let told = looked(
        &[
            ("/d/ghcr.io/ca.crt", "nonsense"),
            ("/d/ghcr.io/alone.cert", "cert"),
            ("/d/quay.io/alone.key", "key"),
            ("/d/s.example/a.cert", "cert"),
            ("/d/s.example/a.key", "other"),
            ("/d/s.example/secret.crt", "closed"),
            ("/d/x.corp.example/a.cert", "cert"),
            ("/d/x.corp.example/a.key", "key"),
            ("/d/x.corp.example/b.cert", "cert"),
            ("/d/x.corp.example/b.key", "key"),
        ],
        &["/d"],
    );
    let expect = [
        "/d/ghcr.io/ca.crt holds no certificate",
        "/d/ghcr.io/alone.cert has no .key beside it; the file of an authority ends with .crt",
        "/d/quay.io/alone.key has no .cert beside it",
        "/d/s.example/secret.crt cannot be read: permission denied",
        "/d/s.example/a.key is not the key of /d/s.example/a.cert: ",
        "/d/x.corp.example/b.cert is the second certificate to be shown; ",
    ];
    let told = told.unwrap_err();
    assert_eq!(told.len(), expect.len(), "{told:#?}");
    for (told, expect) in told.iter().zip(expect) {
        let expect = format!("proxy.certs_d: {expect}");
        assert!(told.starts_with(&expect), "{told}");
    }
}

#[test]
fn what_is_too_much_is_told_and_not_read() {
    let leak = |text: String| -> &'static str { text.leak() };
    let many = (0..65).map(|n| (leak(format!("/d/ghcr.io/{n}.crt")), "cert"));
    let told = looked(&many.collect::<Vec<_>>(), &["/d"]).unwrap_err();
    assert_eq!(told, ["proxy.certs_d: /d/ghcr.io has more than 64 files"]);
    let many = (0..257).map(|n| (leak(format!("/d/r{n}.corp.example/ca.crt")), "cert"));
    let told = looked(&many.collect::<Vec<_>>(), &["/d"]).unwrap_err();
    assert_eq!(told, ["proxy.certs_d: these are more than 256 registries"]);
    let told = looked(&[], &["/d"; 9]).unwrap_err();
    assert_eq!(told, ["proxy.certs_d: must be at most 8"]);
}
