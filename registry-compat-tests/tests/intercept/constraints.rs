//! A local authority is trusted with its own names alone: what else it signs, no client takes.

use std::{fs, path::Path, process::Command, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    darter::Home,
    process,
    registry::{Registry, free_address},
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

use super::{LIMIT, papers};

/// An authority, a name that it signs, and whether clients are to take it.
const CASES: [(&str, &str, bool); 18] = [
    ("registry.test", "registry.test", true),
    ("registry.test", "sub.registry.test", false),
    ("registry.test", "other.test", false),
    ("registry.test", "localhost", false),
    ("registry.test", "127.0.0.1", false),
    ("registry.test", "10.0.0.7", false),
    ("registry.test", "::1", false),
    ("registry.test", "fd00::7", false),
    ("docker.io", "registry-1.docker.io", true),
    ("docker.io", "auth.docker.io", false),
    ("docker.io", "docker.io", false),
    ("10.0.0.7:5000", "10.0.0.7", true),
    ("10.0.0.7:5000", "10.0.0.8", false),
    ("10.0.0.7:5000", "::1", false),
    ("10.0.0.7:5000", "registry.test", false),
    ("[fd00::7]:5000", "fd00::7", true),
    ("[fd00::7]:5000", "10.0.0.7", false),
    ("[fd00::7]:5000", "localhost", false),
];

/// The authority of `owner`, and a certificate for `name` that its own key has signed, whatever it
/// is limited to.
struct Signed {
    directory: tempfile::TempDir,
}

// === impl Signed ===

impl Signed {
    fn by(home: &Home, owner: &str, name: &str) -> Result<Self> {
        let signed = Self {
            directory: tempfile::tempdir()?,
        };
        fs::write(signed.at("ca.pem"), home.ca_of(owner)?)?;
        let directory = if owner == "localhost" {
            "@loopback"
        } else {
            owner
        };
        let own = home.path().join("data/ca").join(directory).join("key.pem");
        fs::copy(own, signed.at("ca.key"))?;
        let kind = match name.parse::<std::net::IpAddr>() {
            Ok(_) => "IP",
            Err(_) => "DNS",
        };
        let extensions = format!("subjectAltName={kind}:{name}\nextendedKeyUsage=serverAuth\n");
        fs::write(signed.at("extensions"), extensions)?;
        let curve = "ec_paramgen_curve:P-256";
        let request = [
            "req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", "leaf.key",
            "-out", "leaf.csr", "-subj", "/O=leaf",
        ];
        let sign = [
            "x509",
            "-req",
            "-in",
            "leaf.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            "leaf.pem",
        ];
        for arguments in [request.as_slice(), &sign] {
            process::check(openssl(arguments, signed.directory.path()), LIMIT)?;
        }
        Ok(signed)
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn is_taken_by_openssl(&self, name: &str) -> Result<bool> {
        let host = match name.parse::<std::net::IpAddr>() {
            Ok(_) => "-verify_ip",
            Err(_) => "-verify_hostname",
        };
        let verify = ["verify", "-CAfile", "ca.pem", host, name, "leaf.pem"];
        let ended = process::run(openssl(&verify, self.directory.path()), LIMIT)?;
        let is_told = ended.output.contains("subtree violation");
        ensure!(ended.status.success() != is_told, "{}", ended.output);
        Ok(ended.status.success())
    }

    fn is_taken_by_rustls(&self, name: &str) -> Result<bool> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.at("ca.pem"))?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        let leaf = CertificateDer::from_pem_file(self.at("leaf.pem"))?;
        let name = ServerName::try_from(name.to_owned())?;
        let verified = verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now());
        if let Err(error) = &verified {
            let told = format!("{error:?}");
            ensure!(told.contains("NameConstraint"), "{told}");
        }
        Ok(verified.is_ok())
    }

    /// skopeo, a program in Go, asks a registry on the loopback that shows the certificate.
    fn is_taken_by_go(&self, name: &str) -> Result<bool> {
        let tls = papers::tls(&self.at("leaf.pem"), &self.at("leaf.key"));
        let content = self.directory.path();
        let address = free_address()?;
        let registry =
            Registry::start_with(&tls, content, address, |program| process::command(program))?;
        let trust = self.at("trust");
        fs::create_dir_all(&trust)?;
        fs::copy(self.at("ca.pem"), trust.join("ca.crt"))?;
        let mut inspect = process::command("skopeo");
        inspect.arg("inspect").arg("--cert-dir").arg(trust);
        inspect.arg(format!("docker://{name}:{}/none:latest", address.port()));
        let ended = process::run(inspect, LIMIT)?;
        registry.stop()?;
        let (no_image, no_trust) = ("manifest unknown", "x509: ");
        let is_taken = ended.output.contains(no_image);
        ensure!(
            is_taken != ended.output.contains(no_trust),
            "{}",
            ended.output
        );
        Ok(is_taken)
    }
}

fn openssl(arguments: &[&str], directory: &Path) -> Command {
    let mut command = process::command("openssl");
    command.args(arguments).current_dir(directory);
    command
}

#[test]
fn openssl_and_rustls_take_an_authority_for_its_own_names_alone() -> Result<()> {
    if !can_run(&["openssl", "setpriv"])? {
        return Ok(());
    }
    let home = Home::new()?;
    for (owner, name, expect) in CASES {
        let signed = Signed::by(&home, owner, name)?;
        let told = || format!("{name} by the authority of {owner}");
        ensure!(
            signed.is_taken_by_openssl(name).with_context(told)? == expect,
            "{}",
            told()
        );
        ensure!(
            signed.is_taken_by_rustls(name).with_context(told)? == expect,
            "{}",
            told()
        );
    }
    Ok(())
}

#[test]
fn so_does_a_client_in_go() -> Result<()> {
    if !can_run(&["docker-registry", "openssl", "setpriv", "skopeo"])? {
        return Ok(());
    }
    let home = Home::new()?;
    for (owner, name, expect) in [
        ("localhost", "localhost", true),
        ("localhost", "127.0.0.1", true),
        ("registry.test", "localhost", false),
        ("registry.test", "127.0.0.1", false),
        ("10.0.0.7:5000", "127.0.0.1", false),
        ("10.0.0.7:5000", "localhost", false),
    ] {
        let signed = Signed::by(&home, owner, name)?;
        let told = || format!("{name} by the authority of {owner}");
        ensure!(
            signed.is_taken_by_go(name).with_context(told)? == expect,
            "{}",
            told()
        );
    }
    Ok(())
}
