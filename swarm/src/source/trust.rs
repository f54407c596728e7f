//! Pure: what TLS to a registry rests on: its authorities, and the certificate shown to it.
//!
//! Files are read by the caller. A private key stays in here and in rustls, and is never printed.

use std::{io, path::Path, sync::Arc};

use rustls::{
    client::ResolvesClientCert,
    crypto::aws_lc_rs,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::registry::RawRegistry;

/// The certificate that this host shows to one registry, with its key.
#[derive(Debug, Clone)]
pub struct ClientIdentity(Arc<SingleCertAndKey>);

// === impl ClientIdentity ===

impl ClientIdentity {
    /// # Errors
    /// Where `key` is of no kind that is known, or is not that of the first certificate of `chain`.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let provider = aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider)?;
        Ok(Self(Arc::new(SingleCertAndKey::from(certified))))
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.0) as _
    }
}

/// The certificates of the PEM file at `path`; none where there is no path.
pub(super) fn authorities(
    path: &Path,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    match path.as_os_str().is_empty() {
        true => Ok(Vec::new()),
        false => certificates(path, &contents(path, read)?),
    }
}

/// The certificate that `registry` is shown, if any; the key of the configuration that is wrong,
/// and what is wrong with it.
pub(super) fn client_identity(
    registry: &RawRegistry,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Option<ClientIdentity>, (&'static str, String)> {
    let (cert, key) = (&registry.client_cert, &registry.client_key);
    match (cert.as_os_str().is_empty(), key.as_os_str().is_empty()) {
        (true, true) => return Ok(None),
        (true, false) => return Err(("client_cert", "is missing beside client_key".to_owned())),
        (false, true) => return Err(("client_key", "is missing beside client_cert".to_owned())),
        (false, false) => {}
    }
    pair(cert, key, read).map(Some)
}

/// The certificate in `cert` with its key in `key`; which of both is wrong, by its key of the
/// configuration, and what is wrong with it.
pub(super) fn pair(
    cert: &Path,
    key: &Path,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<ClientIdentity, (&'static str, String)> {
    let in_cert = |problem| ("client_cert", problem);
    let in_key = |problem| ("client_key", problem);
    let pem = contents(cert, &read).map_err(in_cert)?;
    let chain = certificates(cert, &pem).map_err(in_cert)?;
    let pem = contents(key, &read).map_err(in_key)?;
    let told = |error| in_key(format!("{} holds no private key: {error}", key.display()));
    let private_key = PrivateKeyDer::from_pem_slice(&pem).map_err(told)?;
    let told = |error| {
        let (key, cert) = (key.display(), cert.display());
        in_key(format!("{key} is not the key of {cert}: {error}"))
    };
    ClientIdentity::new(chain, private_key).map_err(told)
}

fn contents(path: &Path, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{} holds no certificate", path.display())),
        Err(error) => Err(format!("{} is no PEM file: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Checks a registry whose files are those of one good pair, and of another key.
    #[track_caller]
    fn check(cert: &str, key: &str, expect: Result<bool, &str>) {
        let own = KeyPair::generate().unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        let pem = params.self_signed(&own).unwrap().pem();
        let other = KeyPair::generate().unwrap().serialize_pem();
        let read = |path: &Path| match path.to_str() {
            Some("cert.pem") => Ok(pem.clone().into_bytes()),
            Some("key.pem") => Ok(own.serialize_pem().into_bytes()),
            Some("other.pem") => Ok(other.clone().into_bytes()),
            Some("cut.pem") => Ok(pem.as_bytes()[..pem.len() / 2].to_vec()),
            Some("garbage.pem") => Ok(b"\xff\0 no PEM".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let registry = RawRegistry {
            client_cert: cert.into(),
            client_key: key.into(),
            ..RawRegistry::default()
        };
        let found = client_identity(&registry, read);
        match (found, expect) {
            (Ok(found), Ok(is_some)) => assert_eq!(found.is_some(), is_some),
            (Err((wrong, _)), Err(expect)) => assert_eq!(wrong, expect),
            (found, expect) => panic!("{found:?} is not {expect:?}"),
        }
    }

    #[test]
    fn a_certificate_is_shown_with_its_own_key_alone() {
        check("", "", Ok(false));
        check("cert.pem", "key.pem", Ok(true));
        check("cert.pem", "", Err("client_key"));
        check("", "key.pem", Err("client_cert"));
        check("cert.pem", "other.pem", Err("client_key"));
        check("cert.pem", "none.pem", Err("client_key"));
        check("cert.pem", "garbage.pem", Err("client_key"));
        check("cert.pem", "cert.pem", Err("client_key"));
        check("none.pem", "key.pem", Err("client_cert"));
        check("cut.pem", "key.pem", Err("client_cert"));
        check("key.pem", "key.pem", Err("client_cert"));
    }
}
